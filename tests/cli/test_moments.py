"""Times, lengths of time and sizes as users write them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import click
import pytest

from pktproc.cli.moments import Moment, parse_moment
from pktproc.cli.quantities import Period, Size, parse_period

NS_PER_S = 1_000_000_000
NOON_NS = 1_795_262_400 * NS_PER_S  # 2026-11-21 12:00 UTC


@pytest.fixture(autouse=True)
def _one_hour_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "offset_s"),
    [
        ("now", 0),
        ("now-5m", -300),
        ("now - 1.5h", -5400),
        ("NOW-2d", -172800),
        ("2026-11-21 13:00", 0),
        ("2026-11-21T13:00:30", 30),
        ("2026-11-21 12:00:00Z", 0),
        ("2026-11-21T12:00:00+00:00", 0),
        ("2026-11-21T07:00:00-05:00", 0),
        ("2026-11-21 13:00:00.5", 0.5),
        ("2026-11-21T12:00:00.25Z", 0.25),
        ("2026-11-21", -13 * 3600),
        ("13:30", 1800),
        ("9:00:01", -4 * 3600 + 1),
        ("1795262400", 0),
        ("1795262400.75", 0.75),
    ],
)
def test_a_moment(text: str, offset_s: float) -> None:
    assert parse_moment(text, NOON_NS) == NOON_NS + round(offset_s * NS_PER_S)


def test_nanoseconds_are_kept() -> None:
    assert parse_moment("1795262400.123456789", 0) == NOON_NS + 123456789
    assert parse_moment("2026-11-21T12:00:00.123456789Z", 0) == NOON_NS + 123456789


@pytest.mark.parametrize(
    "text",
    ["", "soon", "now-", "now+5m", "now-5x", "2026-13-01", "25:00", "12345", "2026-11-21 99:99", "9" * 400, "٣:٣٣"],
)
def test_no_moment(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time"):
        Moment().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1", 1),
        ("0.5", 0.5),
        ("500ms", 0.5),
        ("90s", 90),
        ("15m", 900),
        ("15min", 900),
        ("24h", 86400),
        ("7d", 604800),
        ("1w", 604800),
    ],
)
def test_a_period(text: str, seconds: float) -> None:
    assert parse_period(text) == round(seconds * NS_PER_S)


@pytest.mark.parametrize("text", ["", "-1", "1y", "s", "1e9", "99999999999999999999", "nan"])
def test_no_period(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a time"):
        Period().convert(text, None, None)


def test_a_period_may_have_a_least() -> None:
    with pytest.raises(click.BadParameter, match="too short: at least 1 s"):
        Period(NS_PER_S).convert("10ms", None, None)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("1k", 1024),
        ("100M", 100 << 20),
        ("1.5G", 3 << 29),
        ("2GiB", 2 << 30),
        ("8 mb", 8 << 20),
        ("1T", 1 << 40),
    ],
)
def test_a_size(text: str, size: int) -> None:
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize("text", ["", "-1", "1x", "M", "1e3"])
def test_no_size(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a size"):
        Size().convert(text, None, None)


def test_a_size_may_have_a_least() -> None:
    with pytest.raises(click.BadParameter, match="too small: at least 8M"):
        Size(8 << 20).convert("1M", None, None)
