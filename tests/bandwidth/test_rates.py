"""Rates, means and peaks: what they are taken over, and what a peak never falls short of."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandwidth.counted import NS_PER_S, START_NS, Seen, block, by, tcp
from pktproc.bandwidth import intervals
from pktproc.bandwidth.ledger import Ledger

FRAME = tcp(40000, 80, "A")
TIMES_AND_SIZES = st.lists(st.tuples(st.integers(0, 5 * NS_PER_S), st.integers(60, 70_000)), min_size=1, max_size=20)
KIB = 1024


def packet(at_s: float, size: int, port: int = 40000, owner: int = 1) -> Seen:
    time_ns = START_NS + round(at_s * NS_PER_S)
    return Seen(tcp(port, 80, "A"), (by(owner), None), time_ns=time_ns, wire_bytes=size)


def at(seconds: float) -> int:
    return START_NS + round(seconds * NS_PER_S)


def counted(packets: Sequence[Seen], *, keys: Sequence[str] = ("process",), keep: int | None = None) -> Ledger:
    """A live ledger that began at `START_NS` and got each packet in a block of its own."""
    book = Ledger(keys, start_ns=START_NS, keep=keep)
    for one in packets:
        book.add(block([one]))
    return book


@settings(deadline=None, max_examples=200)
@given(TIMES_AND_SIZES, st.sampled_from([NS_PER_S // 10, NS_PER_S, 3 * NS_PER_S]), st.sampled_from([None, 5, 9]))
def test_no_mean_exceeds_its_peak(packets: list[tuple[int, int]], interval_ns: int, live_until_s: int | None) -> None:
    book = Ledger(["process"], interval_ns=interval_ns, start_ns=None if live_until_s is None else START_NS)
    for time_ns, size in packets:
        book.add(block([packet(time_ns / NS_PER_S, size)]))
    (row,) = book.view(None if live_until_s is None else at(live_until_s)).rows
    for name, mean in row.mean._asdict().items():
        assert getattr(row.peak, name) >= mean
    assert row.peak.sent_bytes > 0


def test_a_mean_is_the_sum_over_the_time_between_first_and_last_packet() -> None:
    view = counted([packet(0, 900), packet(1.5, 600)]).view()
    (row,) = view.rows
    assert view.elapsed_s == 1.5
    assert (row.mean.sent_bytes, row.peak.sent_bytes) == (1000, 1000)  # the busiest second had 900 alone


def test_of_a_single_packet_mean_and_peak_are_those_of_an_interval() -> None:
    book = Ledger(["process"], interval_ns=NS_PER_S // 2)
    book.add(block([packet(0, 700)]))
    (row,) = book.view().rows
    assert row.mean.sent_bytes == row.peak.sent_bytes == row.rate.sent_bytes == 1400


@pytest.mark.parametrize(
    ("seconds", "over_s", "rate"),
    [(0, 1, 16), (1, 1, 16), (3, 3, 14), (2.6, 3, 14), (8, 8, 9), (60, 9, 8)],
    ids=["least", "one", "three", "nearest", "eight", "all"],
)
def test_rates_are_of_the_latest_whole_intervals_that_make_up_the_time(
    seconds: float, over_s: float, rate: float
) -> None:
    """Each second has 2 KiB more than the one before; the tenth is not over."""
    book = counted([packet(second + 0.5, max(2 * KIB * second, 60)) for second in range(10)])
    view = book.view(at(9.7), rate_ns=round(seconds * NS_PER_S))
    assert view.rate_s == over_s
    (row,) = view.rows
    assert row.rate.sent_bytes == pytest.approx(rate * KIB, abs=60)
    (connection,) = book.connections_of(row.key, at(9.7), rate_ns=round(seconds * NS_PER_S)).shown
    assert connection.rate == row.rate


def test_before_an_interval_is_over_rates_are_of_the_time_so_far() -> None:
    view = counted([packet(0.1, 300), packet(0.2, 300)]).view(at(0.3))
    assert view.rate_s == pytest.approx(0.3)
    assert view.rows[0].rate.sent_bytes == pytest.approx(2000)


@pytest.mark.parametrize("keys", [("process",), ("remote-port",)])
def test_rates_are_of_no_interval_of_which_something_was_given_up(
    keys: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred connections a second, each of 1,000 bytes, and room for some seconds of them."""
    monkeypatch.setattr(intervals, "MAX_ENTRIES", 500)
    monkeypatch.setattr(intervals, "_MERGE_ABOVE", 300)
    book = counted(
        [packet(second + 0.5, 1000, 1000 + 100 * second + port) for second in range(20) for port in range(100)],
        keys=keys,
        keep=60,
    )
    for dimension in ("process", "remote-port"):
        view = book.view(at(20.2), by=(dimension,), rate_ns=60 * NS_PER_S)
        assert [row.rate.sent_bytes for row in view.rows if row.rate.sent_bytes] == [100_000], dimension
        assert 1 <= view.rate_s <= 20
