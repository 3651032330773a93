"""Points in time on the command line."""

from __future__ import annotations

import re
import time
from datetime import datetime

import click

from pktproc.cli.quantities import NS_PER_S, parse_period

_EPOCH = re.compile(r"(\d{6,12})(?:\.(\d{1,9}))?", re.ASCII)
_AGO = re.compile(r"now(?:\s*-\s*(.+))?", re.IGNORECASE)
_CLOCK = re.compile(r"(\d{1,2})(:\d\d(?::\d\d)?(?:\.\d+)?)", re.ASCII)
_FRACTION = re.compile(r"(?<=:\d\d)\.(\d{1,9})\d*", re.ASCII)
_MOST_NS = 1 << 62


class Moment(click.ParamType[int]):
    """A time in ns since the epoch.

    `2026-11-21 03:12[:30[.5]]` is local time, also with a `T` or a zone (`Z`, `+01:00`); `03:12` is today, `2026-11-21`
    midnight. `now`, `now-5m` and seconds since the epoch do as well.
    """

    name = "time"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the time."""
        try:
            return parse_moment(str(value).strip(), time.time_ns())
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is not a time: give '2026-11-21 03:12', 03:12, now-5m or epoch seconds", param, ctx)


def parse_moment(text: str, now_ns: int) -> int:
    """Return the ns since the epoch that a text means; raise ValueError or OverflowError for none."""
    moment_ns = _parse(text, now_ns)
    if abs(moment_ns) >= _MOST_NS:
        raise OverflowError(text)
    return moment_ns


def _parse(text: str, now_ns: int) -> int:
    if matched := _EPOCH.fullmatch(text):
        return int(matched[1]) * NS_PER_S + int((matched[2] or "").ljust(9, "0"))
    if matched := _AGO.fullmatch(text):
        period_ns = parse_period(matched[1]) if matched[1] else 0
        if period_ns is None:
            raise ValueError(text)
        return now_ns - period_ns
    if matched := _CLOCK.fullmatch(text):
        today = time.strftime("%Y-%m-%d", time.localtime(now_ns // NS_PER_S))
        text = f"{today} {matched[1]:0>2}{matched[2]}"
    fraction_ns = 0
    if matched := _FRACTION.search(text):  # which datetime knows to the microsecond only
        fraction_ns = int(matched[1].ljust(9, "0"))
        text = text[: matched.start()] + text[matched.end() :]
    return int(datetime.fromisoformat(text).timestamp()) * NS_PER_S + fraction_ns
