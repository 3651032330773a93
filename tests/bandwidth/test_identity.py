"""Rows add up to what was captured, exactly, whatever comes and however late the names are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandwidth.counted import (
    BRIDGE,
    ETH0,
    LOOPBACK,
    NS_PER_S,
    START_NS,
    Seen,
    adds_up,
    arp,
    block,
    by,
    sums,
    tcp,
    udp,
    why,
)
from pktproc.bandwidth import folding, ledger
from pktproc.bandwidth.dimensions import DIMENSIONS
from pktproc.bandwidth.layers import LAYERS
from pktproc.bandwidth.ledger import Ledger
from pktproc.model import PacketType, Reason

REASONS = list(Reason)
ENDS = st.one_of(
    st.none(),
    st.integers(0, 4).map(by),
    st.builds(why, st.sampled_from(REASONS), final=st.booleans()),
)
PORTS = [(port, service) for port in (1, 2, 3) for service in (1, 2)]
FRAMES = st.sampled_from(
    [
        *(
            tcp(*ports, flags, size, local=local, id=size)
            for ports in PORTS
            for flags, size in (("S", 0), ("SA", 0), ("A", 3), ("PA", 50), ("FA", 1), ("R", 0))
            for local in ("10.77.0.1", "10.77.0.2")
        ),
        *(udp(*ports, size, id=size) for ports in PORTS for size in (0, 40)),
        arp(),
    ]
)
SEEN = st.builds(
    Seen,
    FRAMES,
    st.tuples(ENDS, ENDS),
    st.sampled_from([kind.value for kind in PacketType]),
    st.sampled_from([ETH0, BRIDGE, LOOPBACK]),
    st.integers(START_NS, START_NS + 100 * NS_PER_S),
    st.integers(60, 70_000),
)
BLOCKS = st.lists(st.lists(SEEN, min_size=1, max_size=8), min_size=1, max_size=8)
patiently = settings(deadline=None, max_examples=60)
BY = st.lists(st.sampled_from(DIMENSIONS), min_size=1, max_size=4, unique=True)


@patiently
@given(BLOCKS, BY, st.sampled_from(LAYERS), st.booleans(), st.sampled_from([None, 1, 3, 1000]))
def test_rows_add_up(blocks: list[list[Seen]], keys: list[str], layer: str, repeats: bool, most: int | None) -> None:
    book = Ledger(keys, layer=layer, repeats=repeats)
    for seen in blocks:
        book.add(block(seen))
    view = book.view(most=most)
    adds_up(view)
    captured = view.captured
    everything = [one for seen in blocks for one in seen]
    assert captured.packets + captured.duplicate_packets == len(everything)
    if layer == "wire":
        whole = sum(one.wire_bytes or 0 for one in everything)
        assert captured.bytes + captured.duplicate_bytes == whole
    if not repeats:
        assert captured.duplicate_packets == 0


@patiently
@given(BLOCKS, BY)
def test_the_course_over_time_adds_up_to_the_totals(blocks: list[list[Seen]], keys: list[str]) -> None:
    book = Ledger(keys, interval_ns=NS_PER_S // 3)
    for seen in blocks:
        book.add(block(seen))
        for row in book.view().rows:
            assert row.peak.sent_bytes * book.view().interval_s <= row.total.sent_bytes + 1e-6
    view = book.view()
    series = book.series(view)
    for row in view.rows:
        course = np.array([point[1:] for point in series[row.key]]).sum(axis=0)
        assert course.tolist() == [row.total.sent_bytes, row.total.received_bytes, row.total.passed_bytes]
        assert [point.time_ns for point in series[row.key]] == sorted({p.time_ns for p in series[row.key]})


@pytest.mark.parametrize("keys", [("process",), ("connection",), ("name", "remote")])
@patiently
@given(blocks=BLOCKS)
def test_nothing_is_lost_where_there_is_no_room(keys: Sequence[str], blocks: list[list[Seen]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "FOLD_ABOVE", 2)
        patch.setattr(folding, "MAX_SLOTS", 4)
        patch.setattr(folding, "MAX_OWNERS", 2)
        patch.setattr("pktproc.bandwidth.intervals._MERGE_ABOVE", 4)
        patch.setattr("pktproc.bandwidth.intervals.MAX_ENTRIES", 8)
        small, large = Ledger(keys), Ledger(keys)
        for seen in blocks:
            small.add(block(seen))
            adds_up(small.view())
    for seen in blocks:
        large.add(block(seen))
    assert sums(small.view()) == sums(large.view())
    assert small.captured == large.captured


@patiently
@given(BLOCKS)
def test_connections_of_a_row_add_up_to_the_row(blocks: list[list[Seen]]) -> None:
    book = Ledger(["name"])
    for seen in blocks:
        book.add(block(seen))
    for row in book.view().rows:
        connections = book.connections_of(row.key).shown
        assert tuple(map(sum, zip(*(one.total for one in connections), strict=True))) == row.total
