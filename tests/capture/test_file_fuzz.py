"""Whatever a file holds: the packets that the plainest reader finds, then at most one `FormatError`."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import struct
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from capture.plain_readers import Ended, plain_pcap, plain_pcapng
from capture.recorded_files import (
    MICROSECONDS,
    MODIFIED,
    NANOSECONDS,
    ORDERS,
    Draft,
    Packet,
    Stretch,
    pcap,
    pcap_header,
    read,
    some_packets,
)
from capture.test_pcapng_file import everything
from packets.capture_files import DIRECTORY, FILES
from pktproc.capture.pcap_records import Layout, RecordFinder
from pktproc.packets.pcapng import ByteOrder

MAGICS = (MICROSECONDS, NANOSECONDS, MODIFIED)
SEEDS = [
    *(pcap(some_packets(6, largest=60), order, magic) for order in ORDERS for magic in MAGICS),
    *(b"".join(everything(order)[0]) for order in ORDERS),
    *(Draft(order).pcapng(some_packets(50, largest=60)) for order in ORDERS),
    *((DIRECTORY / name).read_bytes()[:3000] for name in FILES),
]
EXTREMES = (0, 1, 2, 3, 5, 6, 8, 12, 13, 28, 0x0A0D0D0A, 0x1A2B3C4D, 1 << 16, 1 << 24, 1 << 31, (1 << 32) - 1)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A whole file with some bits flipped, some numbers made extreme, stretches moved about, and its end cut off."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for at, bit in draw(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 7)), max_size=4)):
        data[at % len(data)] ^= 1 << bit
    for word, value in draw(st.lists(st.tuples(st.integers(0, 750), st.sampled_from(EXTREMES)), max_size=3)):
        at = word * 4 % len(data)
        data[at : at + 4] = struct.pack(draw(st.sampled_from(ORDERS)) + "I", value)
    for start, length, to in draw(st.lists(st.tuples(*[st.integers(0, 3000)] * 3), max_size=2)):
        stretch = data[start : start + length % 64]
        data[to % (len(data) + 1) : to % (len(data) + 1)] = stretch
    end = draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))
    return bytes(data[:end]) + draw(st.binary(max_size=6))


@st.composite
def composed(draw: st.DrawFn) -> bytes:
    """Blocks as they come, whole each, in an order that may make no sense, and options of random bytes."""
    draft = Draft(draw(st.sampled_from(ORDERS)))
    other = Draft(">" if draft.order == "<" else "<")
    ticks, small = st.integers(0, 2**64 - 1), st.integers(0, 3)
    block = st.one_of(
        st.builds(draft.enhanced, st.binary(max_size=40), ticks, small, options=st.binary(max_size=24)),
        st.builds(draft.enhanced, st.binary(max_size=40), ticks, small, wire=st.integers(0, 2**32 - 1)),
        st.builds(draft.obsolete, st.binary(max_size=40), ticks, small, options=st.binary(max_size=24)),
        st.builds(draft.simple, st.binary(max_size=40), st.none() | st.integers(0, 60)),
        st.builds(
            draft.interface,
            st.integers(0, 65535),
            small | st.just(65535),
            tsresol=st.none() | st.integers(0, 255),
            tsoffset=st.none() | st.integers(-(2**63), 2**63 - 1),
        ),
        st.builds(draft.block, st.integers(0, 2**32 - 1), st.binary(max_size=40)),
        st.sampled_from([draft.section(), other.section(), other.interface(), other.enhanced(b"other", 1)]),
    )
    return (
        draft.section()
        + draft.interface(tsresol=9)
        + draft.interface() * 2
        + b"".join(draw(st.lists(block, max_size=20)))
    )


STARTS = [*(pcap_header(order, magic) for order in ORDERS for magic in MAGICS), *(Draft(o).section() for o in ORDERS)]
RANDOM = st.builds(bytes.__add__, st.sampled_from([b"", b"\x0a\x0d\x0d\x0a", *STARTS]), st.binary(max_size=400))


def read_bytes(data: bytes) -> Stretch:
    """Read a file that lies in memory."""
    descriptor = os.memfd_create("capture")
    try:
        os.write(descriptor, data)
        return read(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def plainly(data: bytes) -> tuple[list[Packet], int | None]:
    """The packets of a file, and where it breaks."""
    found: Iterable[Packet | Ended] = [Ended(0)]
    if data[:4] in {start[:4] for start in STARTS[:6]}:
        found = plain_pcap(data)
    elif data[:4] == b"\x0a\x0d\x0d\x0a":
        found = plain_pcapng(data)
    *packets, end = found
    assert isinstance(end, Ended)
    return [packet for packet in packets if isinstance(packet, Packet)], end.offset


def check(found: Stretch) -> None:
    """What every batch promises."""
    for file_batch in found.batches:
        batch, origin = file_batch.batch, file_batch.origin
        columns = (batch.offset, batch.captured_bytes, batch.wire_bytes, batch.time_ns, batch.interface)
        assert {column.dtype for column in (*columns, file_batch.options)} == {np.dtype(np.int64)}
        assert (batch.packet_type.dtype, batch.linktype.dtype) == (np.dtype(np.uint8), np.dtype(np.uint16))
        assert {len(column) for column in (*columns, batch.packet_type, batch.linktype, file_batch.options)} == {
            len(batch)
        }
        assert (batch.offset >= 0).all()
        assert (batch.captured_bytes >= 0).all()
        assert (batch.offset + batch.captured_bytes <= len(batch.data)).all()
        assert (batch.interface < len(batch.interfaces)).all()
        assert (file_batch.options < len(file_batch.option_sets)).all()
        if origin is not None:
            ends = np.cumsum(origin.block_bytes)
            assert (ends[-1], origin.block_offset[0]) == (len(batch.data), 0)
            assert (origin.block_offset[1:] == ends[:-1]).all()
            assert 0x0A0D0D0A not in origin.block_type[1:].tolist()
            rows = origin.block_row[origin.block_row >= 0]
            assert rows.tolist() == list(range(len(batch)))


@settings(max_examples=1500, deadline=None)
@given(st.one_of(damaged(), composed(), RANDOM))
@example(b"")
def test_the_packets_of_any_file_are_those_that_the_plainest_reader_finds(data: bytes) -> None:
    found = read_bytes(data)
    check(found)
    packets, offset = plainly(data)
    assert found.packets == packets
    assert (found.error.offset if found.error else None) == offset


PACKERS: list[Callable[[bytes], bytes]] = [
    gzip.compress,
    bz2.compress,
    lzma.compress,
    zstandard.ZstdCompressor().compress,
]


@settings(max_examples=400, deadline=None)
@given(
    data=st.one_of(damaged(), st.sampled_from(SEEDS)),
    pack=st.sampled_from(PACKERS),
    flips=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 7)), max_size=3),
    cut=st.integers(0, 400),
    tail=st.binary(max_size=8),
)
def test_damaged_archives_raise_nothing_else(
    data: bytes, pack: Callable[[bytes], bytes], flips: list[tuple[int, int]], cut: int, tail: bytes
) -> None:
    packed = bytearray(pack(data))
    for at, bit in flips:
        packed[at % len(packed)] ^= 1 << bit
    found = read_bytes(bytes(packed[: max(len(packed) - cut, 0)]) + tail)
    check(found)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("seed", range(20))
def test_records_are_found_whatever_lies_among_them(order: ByteOrder, seed: int) -> None:
    """Large buffers, for only in those records are looked for in many places at once."""
    random = np.random.default_rng(seed)
    largest = int(random.choice([1, 40, 300, 1500, 9000]))
    one = pcap(some_packets(max(3_000_000 // (largest * 50), 50), seed=seed, largest=largest), order)[24:]
    data = np.frombuffer(one * (1_300_000 // len(one) + 1), np.uint8).copy()
    for _ in range(int(random.integers(0, 6))):
        at = int(random.integers(0, len(data) - 4))
        data[at : at + 4] = np.frombuffer(struct.pack(f"{order}I", int(random.choice(EXTREMES))), np.uint8)
    raw, expected, at = data.tobytes(), [], 0
    while at + 12 <= len(raw):
        expected.append(at)
        at += 16 + struct.unpack_from(f"{order}I", raw, at + 8)[0]
    assert RecordFinder(data, Layout(order, 1000)).places(0).tolist() == expected


def test_zeros_and_repetitions() -> None:
    for size in (1, 11, 12, 1000, 2_000_000):
        for start in STARTS:
            for filling in (b"\0", b"\xff", start):
                data = (start + filling * (size // len(filling) + 1))[: len(start) + min(size, 200_000)]
                found = read_bytes(data)
                packets, offset = plainly(data)
                assert len(found.packets) == len(packets)
                assert (found.error.offset if found.error else None) == offset
