"""Decoding is total: whatever arrives, no exception, and no influence of what lies beyond a packet's end."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from packets.capture_files import FILES, pack, read
from pktproc.packets.batch import Column, PacketBatch
from pktproc.packets.columns import Columns
from pktproc.packets.decode import decode
from pktproc.packets.flows import distinct_flows
from pktproc.packets.fragments import FragmentTable

LINKTYPES = [0, 1, 12, 14, 101, 108, 113, 228, 229, 276]
SEEDS = sorted({(b.packet(row), int(b.linktype[row])) for b in map(read, FILES) for row in range(len(b))})
INT64 = st.integers(-(2**63), 2**63 - 1)
POSITIONS = ("network_offset", "transport_offset")

Sample = tuple[bytes, int]


@st.composite
def mutated(draw: st.DrawFn) -> Sample:
    """A real packet with some bits flipped, some bytes made extreme, and its end cut off or drawn out."""
    data, linktype = draw(st.sampled_from(SEEDS))
    packet = bytearray(data)
    for at, bit in draw(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 7)), max_size=6)):
        if at < len(packet):
            packet[at] ^= 1 << bit
    for at, value in draw(st.lists(st.tuples(st.integers(0, 80), st.sampled_from([0, 1, 44, 60, 255])), max_size=3)):
        if at < len(packet):
            packet[at] = value
    end = draw(st.one_of(st.just(len(packet)), st.integers(0, len(packet))))
    return bytes(packet[:end]) + draw(st.binary(max_size=4)), draw(st.sampled_from([linktype, linktype, *LINKTYPES]))


SAMPLES = st.lists(
    st.one_of(mutated(), st.tuples(st.binary(max_size=120), st.sampled_from([*LINKTYPES, 147]))),
    min_size=1,
    max_size=12,
)


def rows(batch: PacketBatch, columns: Columns) -> list[dict[str, object]]:
    """All columns, row by row, positions counted from the packet's start."""

    def row_of(table: Columns, row: int, start: int) -> dict[str, object]:
        values: dict[str, object] = {}
        for field in fields(table):
            column: Column | Columns | None = getattr(table, field.name)
            if isinstance(column, np.ndarray) and field.name != "quoted_row":
                value = column[row].tolist()
                values[field.name] = value - start if field.name in POSITIONS and value >= 0 else value
        if table.quoted is not None and table.quoted_row[row] >= 0:
            values["quoted"] = row_of(table.quoted, int(table.quoted_row[row]), start)
        return values

    return [row_of(columns, row, int(batch.offset[row])) for row in range(len(batch))]


@given(samples=SAMPLES, before=st.binary(max_size=60), between=st.binary(max_size=60))
@settings(max_examples=400)
def test_bytes_beyond_a_packet_have_no_influence(samples: list[Sample], before: bytes, between: bytes) -> None:
    packets, linktypes = [data for data, _ in samples], [linktype for _, linktype in samples]
    lone, crowded = pack(packets, linktypes, between=before), pack(packets, linktypes, between=between)
    one, other = decode(lone, FragmentTable()), decode(crowded, FragmentTable())
    assert rows(lone, one) == rows(crowded, other)
    assert distinct_flows(lone, one).flows == distinct_flows(crowded, other).flows


@given(samples=SAMPLES)
@settings(max_examples=300)
def test_a_packet_is_decoded_alike_alone_and_among_others(samples: list[Sample]) -> None:
    together = pack([data for data, _ in samples], [linktype for _, linktype in samples])
    columns = decode(together, FragmentTable())
    for row, (values, (data, linktype)) in enumerate(zip(rows(together, columns), samples, strict=True)):
        alone = pack([data], linktype)
        # The ports of later fragments come from other packets.
        if columns.fragment[row] != 2:
            assert rows(alone, decode(alone, FragmentTable())) == [values]


@given(samples=SAMPLES)
@settings(max_examples=300)
def test_what_the_columns_say_fits_together(samples: list[Sample]) -> None:
    batch = pack([data for data, _ in samples], [linktype for _, linktype in samples])
    columns = decode(batch, FragmentTable())
    end = batch.offset + batch.captured_bytes
    for table, start in ((columns, batch.offset), (columns.quoted, np.int64(0))):
        if table is None:
            continue
        assert set(table.network.tolist()) <= {0, 4, 6}
        assert ((table.network == 0) == (table.protocol < 0)).all()
        assert not table.source_address[table.network == 0].any()
        assert (table.payload_bytes >= 0).all()
        for offset in (table.network_offset, table.transport_offset):
            assert ((offset == -1) | (offset >= start)).all()
        assert ((table.transport_offset == -1) | (table.transport_offset >= table.network_offset + 20)).all()
        assert (table.transport_offset[table.fragment == 2] == -1).all()
        assert not table.source_port[~table.ports_known].any()
        assert not table.tcp_flags[table.protocol != 6].any()
        assert ((table.icmp_type < 0) | (table.protocol == 1) | (table.protocol == 58)).all()
    assert (columns.network_offset < end).all()
    assert (columns.transport_offset < end).all()


@given(data=st.data(), buffer=st.binary(max_size=300), count=st.integers(0, 12))
@settings(max_examples=400)
def test_hostile_columns_are_decoded_without_an_exception(data: st.DataObject, buffer: bytes, count: int) -> None:
    def column(strategy: st.SearchStrategy[int], dtype: str) -> Column:
        return np.array(data.draw(st.lists(strategy, min_size=count, max_size=count)), dtype)

    near = st.integers(-20, 320)
    batch = replace(
        pack([b""] * count, 1),
        data=np.frombuffer(buffer, np.uint8),
        offset=column(st.one_of(near, INT64), "int64"),
        captured_bytes=column(st.one_of(near, INT64), "int64"),
        wire_bytes=column(st.one_of(near, INT64), "int64"),
        time_ns=column(INT64, "int64"),
        packet_type=column(st.integers(0, 255), "uint8"),
        linktype=column(st.one_of(st.sampled_from(LINKTYPES), st.integers(0, 65535)), "uint16"),
    )
    columns = decode(batch, FragmentTable(maxsize=2))
    assert len(columns) == count
    assert (columns.network_offset < len(buffer)).all()
    assert (columns.transport_offset < len(buffer)).all()
    table = distinct_flows(batch, columns)
    assert [len(table.flow_of), len(table.flows)] == [count, len(set(table.flows))]
