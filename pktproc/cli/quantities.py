"""Sizes and lengths of time on the command line."""

from __future__ import annotations

import re

import click

NS_PER_S = 1_000_000_000
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_SIZE_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TIME = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*(ms|s|min|m|h|d|w|)", re.ASCII)
_TIME_UNITS_S = {"ms": 0.001, "": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_MOST_NS = 1 << 62


class Size(click.ParamType[int]):
    """A number of bytes: `4096`, `200k`, `100M`, `1.5G`; units are powers of 1024."""

    name = "size"

    def __init__(self, least: int = 0) -> None:
        self._least = least

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number of bytes."""
        matched = _SIZE.fullmatch(str(value).strip())
        if matched is None:
            self.fail(f"{value!r} is not a size: give bytes, or a number with k, M or G", param, ctx)
        number = int(float(matched[1]) * _SIZE_UNITS[matched[2].lower()])
        if number < self._least:
            self.fail(f"{value} is too small: at least {self._least >> 20}M", param, ctx)
        return number


class Period(click.ParamType[int]):
    """A length of time in nanoseconds: `1`, `0.5`, `500ms`, `90s`, `15m`, `24h`, `7d`; seconds without a unit."""

    name = "time"

    def __init__(self, least_ns: int = 0) -> None:
        self._least_ns = least_ns

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the nanoseconds."""
        period_ns = parse_period(str(value))
        if period_ns is None:
            self.fail(f"{value!r} is not a time: give seconds, or a number with ms, s, m, h or d", param, ctx)
        if period_ns < self._least_ns:
            self.fail(f"{value} is too short: at least {self._least_ns / NS_PER_S:g} s", param, ctx)
        return period_ns


def parse_period(text: str) -> int | None:
    """Return the nanoseconds of a length of time, None if the text is none."""
    matched = _TIME.fullmatch(text.strip())
    if matched is None:
        return None
    period_ns = round(float(matched[1]) * _TIME_UNITS_S[matched[2]] * NS_PER_S)
    return period_ns if period_ns < _MOST_NS else None
