"""pcapng files, against scapy, tshark and the bytes that the test wrote."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.utils import RawPcapNgReader

from capture.plain_readers import units_per_second
from capture.recorded_files import (
    COMMENT,
    DARWIN,
    END_OF_OPTIONS,
    ENHANCED,
    FLAGS,
    INTERFACE,
    NS_PER_S,
    OBSOLETE,
    ORDERS,
    PRIVATE_LINKTYPE,
    SECTION,
    SIMPLE,
    Draft,
    Packet,
    as_seen,
    packets_of,
    read,
    some_packets,
    tshark,
    tshark_fields,
)
from packets.capture_files import DIRECTORY
from pktproc.capture.capture_file import FileBatch, SectionInterface
from pktproc.capture.pcapng_file import PcapngDecoder
from pktproc.capture.timestamps import nanoseconds
from pktproc.errors import FormatError
from pktproc.model import Interface, PacketType

MIXED = DIRECTORY / "mixed.pcapng"
DATA = bytes(range(61))
SECONDS = 1_790_000_000


def raw_blocks(batches: list[FileBatch]) -> list[bytes]:
    """Every block of a file, cut out by what the batches say of them."""
    blocks = []
    for file_batch in batches:
        assert file_batch.origin is not None
        places = zip(file_batch.origin.block_offset.tolist(), file_batch.origin.block_bytes.tolist(), strict=True)
        blocks += [file_batch.batch.data[start : start + length].tobytes() for start, length in places]
    return blocks


def write(path: Path, *blocks: bytes) -> Path:
    path.write_bytes(b"".join(blocks))
    return path


def as_scapy_reads(path: Path) -> list[tuple[bytes, int, int]]:
    """Bytes, wire length and link type of every packet; scapy finds blocks on its own."""
    with RawPcapNgReader(str(path)) as reader:
        packets: list[Any] = list(reader)
    return [(data, told.wirelen, told.linktype) for data, told in packets]


def test_the_packets_of_a_file_with_many_linktypes() -> None:
    found = read(MIXED)
    assert found.error is None
    assert [(packet.data, packet.wire, packet.linktype) for packet in found.packets] == as_scapy_reads(MIXED)
    assert as_seen(found.packets) == tshark(MIXED)
    assert b"".join(raw_blocks(found.batches)) == MIXED.read_bytes()


def everything(order: str) -> tuple[list[bytes], list[Packet]]:
    """A file with all kinds of blocks in two sections, and its packets."""
    draft, other = Draft(order), Draft(">" if order == "<" else "<")
    options = draft.option(COMMENT, "naïve".encode()) + END_OF_OPTIONS
    blocks = [
        draft.section(draft.option(COMMENT, b"a section")),
        draft.interface(1, 262144, name="eth0"),
        draft.interface(101, 0, name="tun 0", tsresol=9),
        *draft.other_blocks(),
        draft.enhanced(DATA, SECONDS * 10**6 + 1, 0, options=options),
        draft.enhanced(DATA[:9], SECONDS * NS_PER_S + 7, 1, wire=900),
        draft.interface(PRIVATE_LINKTYPE, 40, tsresol=3, tsoffset=1000),
        draft.obsolete(DATA, SECONDS * 10**6 + 2, 0, wire=100, options=draft.option(FLAGS, draft.pack("I", 2))),
        draft.enhanced(b"", (SECONDS - 1000) * 1000 + 9, 2),
        *draft.other_blocks(),
        draft.obsolete(DATA[:3], SECONDS * NS_PER_S + 8, 1),
        other.section(),
        other.interface(113, 8, end=b""),
        other.simple(DATA[:8], 61),
        other.simple(DATA[:3]),
        other.enhanced(DATA, SECONDS * 10**6 + 3),
    ]
    packets = [
        Packet(DATA, SECONDS * NS_PER_S + 1000, 61, 0, 1),
        Packet(DATA[:9], SECONDS * NS_PER_S + 7, 900, 1, 101),
        Packet(DATA, SECONDS * NS_PER_S + 2000, 100, 0, 1),
        Packet(b"", SECONDS * NS_PER_S + 9_000_000, 0, 2, PRIVATE_LINKTYPE),
        Packet(DATA[:3], SECONDS * NS_PER_S + 8, 3, 1, 101),
        Packet(DATA[:8], 0, 61, 3, 113),
        Packet(DATA[:3], 0, 3, 3, 113),
        Packet(DATA, SECONDS * NS_PER_S + 3000, 61, 3, 113),
    ]
    return blocks, packets


@pytest.mark.parametrize("order", ORDERS)
def test_all_kinds_of_blocks(order: str, tmp_path: Path) -> None:
    blocks, packets = everything(order)
    path = write(tmp_path / "all.pcapng", *blocks)
    found = read(path)
    assert found.error is None
    assert found.packets == packets
    # A simple packet has no time.
    assert as_seen(packets) == [seen._replace(time_ns=seen.time_ns or 0) for seen in tshark(path, sections=(0, 3))]
    assert raw_blocks(found.batches) == blocks
    # scapy 2.8 takes the interfaces of the first section for those of the second.
    assert [(packet.data, packet.wire) for packet in packets] == [seen[:2] for seen in as_scapy_reads(path)]
    names = [interface.name for interface in found.batches[-1].batch.interfaces]
    assert names == ["eth0", "tun 0", "if2", "if3"]
    assert found.batches[-1].batch.interfaces[3] == Interface("if3", 4, 0)


@pytest.mark.parametrize("order", ORDERS)
def test_a_batch_tells_where_its_blocks_and_their_packets_are(order: str, tmp_path: Path) -> None:
    blocks, _ = everything(order)
    found = read(write(tmp_path / "all.pcapng", *blocks))
    first, second = found.batches
    assert first.origin is not None
    assert second.origin is not None
    assert (first.origin.order, second.origin.order) == (order, ">" if order == "<" else "<")
    assert second.origin.block_type.tolist() == [SECTION, INTERFACE, SIMPLE, SIMPLE, ENHANCED]
    assert second.origin.block_row.tolist() == [-1, -1, 0, 1, 2]
    rows = first.origin.block_row
    assert rows[rows >= 0].tolist() == list(range(5))
    assert set(first.origin.block_type[rows >= 0].tolist()) == {ENHANCED, OBSOLETE}
    assert first.origin.section_interfaces == (
        SectionInterface(1, 262144, "eth0"),
        SectionInterface(101, 0, "tun 0", 9),
        SectionInterface(PRIVATE_LINKTYPE, 40, "", 3, 1000),
    )
    assert second.origin.section_interfaces == (SectionInterface(113, 8),)
    for file_batch in found.batches:
        assert file_batch.origin is not None
        block_ends = file_batch.origin.block_offset + file_batch.origin.block_bytes
        assert block_ends.tolist() == [*file_batch.origin.block_offset[1:].tolist(), len(file_batch.batch.data)]


@pytest.mark.parametrize("order", ORDERS)
def test_options_are_given_out_as_they_stand_and_each_kind_once(order: str, tmp_path: Path) -> None:
    draft = Draft(order)
    one = draft.option(COMMENT, b"one") + END_OF_OPTIONS
    other = draft.option(0x8001, draft.pack("I", 4))
    torn = draft.pack("HH", COMMENT, 5000)
    blocks = [draft.enhanced(DATA, 1, options=options) for options in (one, b"", other, one, torn, other)]
    path = write(tmp_path / "options.pcapng", draft.section(), draft.interface(), *blocks)
    (file_batch,) = read(path).batches
    assert file_batch.options.tolist() == [0, -1, 1, 0, 2, 1]
    assert file_batch.option_sets == [one, other, torn]
    assert (file_batch.batch.packet_type == PacketType.UNKNOWN).all()


FLAG_WORDS = {
    0: PacketType.UNKNOWN,
    1: PacketType.HOST,
    1 | 1 << 2: PacketType.HOST,
    1 | 2 << 2: PacketType.MULTICAST,
    1 | 3 << 2: PacketType.BROADCAST,
    1 | 4 << 2: PacketType.OTHERHOST,
    1 | 5 << 2: PacketType.UNKNOWN,
    2: PacketType.OUTGOING,
    2 | 2 << 2: PacketType.OUTGOING,
    3: PacketType.UNKNOWN,
    2 << 2: PacketType.UNKNOWN,
    0xFFFF0000 | 4 << 5 | 2: PacketType.OUTGOING,
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_way_of_a_packet_comes_from_its_flags(order: str, tmp_path: Path) -> None:
    draft = Draft(order)
    flags = [draft.option(COMMENT, b"first") + draft.option(FLAGS, draft.pack("I", word)) for word in FLAG_WORDS]
    blocks = [draft.enhanced(DATA, 1, options=options + END_OF_OPTIONS) for options in flags]
    blocks.append(draft.obsolete(DATA, 1, options=flags[7]))
    path = write(tmp_path / "flags.pcapng", draft.section(), draft.interface(), *blocks)
    (file_batch,) = read(path).batches
    assert file_batch.batch.packet_type.tolist() == [*FLAG_WORDS.values(), PacketType.OUTGOING]
    shown = tshark_fields(path, ["frame.packet_flags_direction"])
    # tshark writes the number in hexadecimal.
    assert [int(direction, 16) for (direction,) in shown] == [*(word & 3 for word in FLAG_WORDS), 2]


def test_flags_of_another_length_tell_nothing(tmp_path: Path) -> None:
    draft = Draft()
    blocks = [draft.enhanced(DATA, 1, options=draft.option(FLAGS, value)) for value in (b"", b"\2", b"\2" * 8)]
    (file_batch,) = read(write(tmp_path / "flags.pcapng", draft.section(), draft.interface(), *blocks)).batches
    assert file_batch.batch.packet_type.tolist() == [PacketType.UNKNOWN] * 3


RESOLUTIONS = [None, 0, 3, 6, 7, 9, 10, 12, 0x80, 0x80 | 10, 0x80 | 20, 0x80 | 30]


@pytest.mark.parametrize("order", ORDERS)
def test_interfaces_of_different_resolution_are_told_apart(order: str, tmp_path: Path) -> None:
    """Fractions are small, for tshark 4.0 multiplies them by 10**9 in 64 bits."""
    draft = Draft(order)
    interfaces = [
        draft.interface(tsresol=tsresol, tsoffset=tsoffset)
        for tsresol, tsoffset in itertools.product(RESOLUTIONS, (None, 86400, -3600))
    ]
    blocks = []
    for number, (tsresol, tsoffset) in enumerate(itertools.product(RESOLUTIONS, (0, 86400, -3600))):
        units = units_per_second(6 if tsresol is None else tsresol)
        seconds = min(SECONDS, 2**64 // units - 1)
        blocks += [draft.enhanced(DATA, seconds * units + units // 1000 + row, number) for row in range(3)]
        assert seconds + tsoffset > 0
    path = write(tmp_path / "times.pcapng", draft.section(), *interfaces, *blocks[::2], *blocks[1::2])
    assert as_seen(read(path).packets) == tshark(path)


U64 = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 64).map(lambda bits: 2**bits - 1), st.integers(0, 10**19))
I64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.integers(-(10**10), 10**10), st.just(0), st.sampled_from([-(2**63), 2**63 - 1])
)
STAMP = st.tuples(U64, st.sampled_from([0, 6, 9, 0x80 | 32]) | st.integers(0, 255), I64)


@settings(max_examples=500)
@given(st.lists(STAMP, max_size=30))
def test_every_time_is_exact_or_the_nearest_that_fits(stamps: list[tuple[int, int, int]]) -> None:
    expected = []
    for stamp, resolution, offset in stamps:
        exact = (Fraction(stamp, units_per_second(resolution)) + offset) * NS_PER_S
        expected.append(min(max(math.floor(exact), -(2**63)), 2**63 - 1))
    ticks, tsresol, tsoffset = ([values[at] for values in stamps] for at in range(3))
    found = nanoseconds(np.array(ticks, np.uint64), np.array(tsresol, np.uint8), np.array(tsoffset, np.int64))
    assert found.dtype == np.int64
    assert found.tolist() == expected


@pytest.mark.parametrize("order", ORDERS)
def test_a_file_cut_anywhere_yields_every_whole_packet_and_one_error(order: str, tmp_path: Path) -> None:
    blocks, packets = everything(order)
    data = b"".join(blocks)
    ends = list(itertools.accumulate(map(len, blocks)))
    is_packet = [block[:4] in (Draft(o).pack("I", kind) for o in ORDERS for kind in (2, 3, 6)) for block in blocks]
    path = tmp_path / "cut.pcapng"
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        found = read(path)
        whole = [end for end in ends if end <= length]
        assert found.packets == packets[: sum(is_packet[: len(whole)])], length
        assert raw_blocks(found.batches) == blocks[: len(whole)]
        if length in ends:
            assert found.error is None
        else:
            assert found.error is not None
            assert found.error.offset == max(whole, default=0)


def test_process_blocks_are_counted_within_their_section(tmp_path: Path) -> None:
    draft = Draft()
    process = draft.block(DARWIN, draft.pack("I", 4711) + draft.option(2, b"curl") + END_OF_OPTIONS)
    large = draft.enhanced(bytes(3_000_000), 1)
    start = [draft.section(), draft.interface(), process]
    path = write(tmp_path / "darwin.pcapng", *start, *[large, process] * 4, *start, large)
    origins = [file_batch.origin for file_batch in read(path).batches]
    counts: list[tuple[int, int]] = []
    for origin in origins:
        assert origin is not None
        starts_section = origin.block_type[0] == SECTION
        before = 0 if starts_section else counts[-1][1]
        counts.append((before, before + int((origin.block_type == DARWIN).sum())))
        assert origin.process_blocks == before
    assert [SECTION in origin.block_type[1:] for origin in origins if origin] == [False] * len(origins)
    assert sum(after - before for before, after in counts) == 6


def broken_files() -> dict[str, tuple[bytes, bytes]]:
    """What a whole file is followed by, and what is said of it."""
    draft = Draft()
    packet = draft.enhanced(DATA, 1)
    pack = draft.pack
    return {
        "two lengths": (packet[:-4] + pack("I", 64), b"two lengths differ"),
        "no length": (pack("II", 5, 0) + bytes(100), b"claims to be 0 bytes"),
        "length below 12": (pack("II", 5, 8) + bytes(100), b"claims to be 8 bytes"),
        "crooked length": (pack("II", 5, 13) + bytes(100), b"claims to be 13 bytes"),
        "endless length": (pack("II", 5, 0xFFFFFFFC) + bytes(100), b"claims to be 4,294,967,292 bytes"),
        "above the bound": (pack("II", 5, (1 << 24) + 4) + bytes(1 << 24), b"claims to be 16,777,220 bytes"),
        "short packet": (draft.block(ENHANCED, bytes(16)), b"claims to be 28 bytes"),
        "short obsolete packet": (draft.block(OBSOLETE, bytes(16)), b"claims to be 28 bytes"),
        "short simple packet": (draft.block(SIMPLE, b""), b"claims to be 12 bytes"),
        "short interface": (draft.block(INTERFACE, bytes(4)), b"claims to be 16 bytes"),
        "packet beyond its block": (draft.block(ENHANCED, pack("IIIII", 0, 0, 0, 9, 9) + bytes(8)), b"claims 9 bytes"),
        "simple packet beyond": (draft.simple(DATA, 70), b"claims 70 bytes"),
        "unknown interface": (draft.enhanced(DATA, 1, 1), b"interface 1, which was not described"),
        "described too late": (draft.enhanced(DATA, 1, 1) + draft.interface(), b"interface 1, which was not described"),
        "torn interface option": (draft.interface(end=pack("HH", 2, 5)), b"option 2 claims 5 bytes"),
        "section without byte order": (pack("II", SECTION, 28) + bytes(24), b"without a byte order"),
        "section of version 2": (draft.section(major=2), b"version 2.0"),
        "short section": (draft.block(SECTION, pack("IHH", 0x1A2B3C4D, 1, 0)), b"claims to be 20 bytes"),
    }


@pytest.mark.parametrize("kind", broken_files())
def test_a_broken_block_ends_the_file_behind_the_last_whole_packet(kind: str, tmp_path: Path) -> None:
    draft = Draft()
    packets = some_packets(60, unit_ns=1)
    whole = draft.pcapng(packets)
    broken, said = broken_files()[kind]
    path = write(tmp_path / "broken.pcapng", whole, broken, draft.enhanced(DATA, 1))
    found = read(path)
    assert found.packets == packets
    assert found.error is not None
    assert found.error.offset == len(whole)
    assert said.decode() in str(found.error)
    assert b"".join(raw_blocks(found.batches)) == whole


def test_a_file_may_not_describe_endless_interfaces(tmp_path: Path) -> None:
    draft = Draft()
    section = draft.section() + draft.interface(end=b"") * 1000
    path = write(tmp_path / "interfaces.pcapng", section * 66)
    found = read(path)
    assert "more than 65,536 interfaces" in str(found.error)
    assert len(found.batches[-1].batch.interfaces) == 65536


def test_a_file_of_many_pieces(tmp_path: Path) -> None:
    draft = Draft()
    packets = some_packets(5000, unit_ns=1, largest=1500)
    path = write(tmp_path / "many.pcapng", draft.pcapng(packets))
    found = read(path)
    assert found.error is None
    assert len(found.batches) > 2
    assert found.packets == packets


@pytest.mark.parametrize("order", ORDERS)
def test_many_interfaces_one_of_which_has_the_number_of_the_packet_block(order: str, tmp_path: Path) -> None:
    """The number that marks a packet block then stands in its body too."""
    draft = Draft(order)
    random = np.random.default_rng(1)
    packets = [
        Packet(packet.data, packet.time_ns, packet.wire, int(random.integers(5, 8)))
        for packet in some_packets(3000, unit_ns=1)
    ]
    blocks = [draft.enhanced(p.data + b"", p.time_ns, p.interface, wire=p.wire) for p in packets]
    path = write(tmp_path / "six.pcapng", draft.section(), draft.interface(tsresol=9) * 8, *blocks)
    found = read(path)
    assert found.error is None
    assert found.packets == packets


def test_many_short_sections(tmp_path: Path) -> None:
    parts = [
        Draft(order).pcapng([packet]) for packet, order in zip(some_packets(600, unit_ns=1), "<>" * 300, strict=True)
    ]
    path = write(tmp_path / "sections.pcapng", *parts)
    found = read(path)
    assert found.error is None
    assert len(found.batches) == 600
    assert [packet.interface for packet in found.packets] == list(range(600))
    assert [packet._replace(interface=0) for packet in found.packets] == some_packets(600, unit_ns=1)


@settings(max_examples=200)
@given(order=st.sampled_from(ORDERS), splits=st.lists(st.integers(0, 2000), max_size=8))
def test_it_does_not_matter_how_the_bytes_come(order: str, splits: list[int]) -> None:
    blocks, packets = everything(order)
    data = b"".join(blocks)
    ends = sorted({min(split, len(data)) for split in splits})
    decoder = PcapngDecoder()
    found: list[FileBatch] = []
    for end in [*ends, len(data)]:
        piece = np.frombuffer(data[decoder.position : end], np.uint8)
        found += decoder.decode(piece, is_last=end == len(data))
    assert [packet for batch in found for packet in packets_of(batch)] == packets
    assert raw_blocks(found) == blocks
    assert decoder.position == len(data)


def test_names_that_are_no_text_are_kept(tmp_path: Path) -> None:
    draft = Draft()
    head = draft.pack("HHI", 1, 0, 0)
    names = [b"\xff\xfe", b"eth0\0\0", b"", b"x" * 3000]
    interfaces = [draft.block(INTERFACE, head + draft.option(2, name) + END_OF_OPTIONS) for name in names]
    (file_batch,) = read(write(tmp_path / "names.pcapng", draft.section(), *interfaces)).batches
    assert [interface.name for interface in file_batch.batch.interfaces] == ["\udcff\udcfe", "eth0", "if2", "x" * 256]


def test_the_last_section_header_may_be_cut(tmp_path: Path) -> None:
    draft = Draft()
    whole = draft.pcapng(some_packets(3, unit_ns=1))
    for length in range(1, 28):
        found = read(write(tmp_path / "cut.pcapng", whole, draft.section()[:length]))
        assert isinstance(found.error, FormatError)
        assert found.error.offset == len(whole)
        assert len(found.packets) == 3
