"""pcap files, against scapy, tshark and the bytes that the test wrote."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.utils import RawPcapReader

from capture.recorded_files import (
    MICROSECONDS,
    MODIFIED,
    NANOSECONDS,
    ORDERS,
    Packet,
    as_seen,
    packets_of,
    pcap,
    pcap_header,
    pcap_record,
    read,
    some_packets,
    tshark,
)
from packets.capture_files import DIRECTORY, FILES
from pktproc.capture.capture_file import open_capture
from pktproc.capture.pcap_file import PcapDecoder
from pktproc.errors import FormatError
from pktproc.model import PacketType

MAGICS = (MICROSECONDS, NANOSECONDS, MODIFIED)
NAMES = [name for name in FILES if name.endswith(".pcap")]


@pytest.mark.parametrize("name", NAMES)
def test_every_packet_is_as_scapy_reads_it(name: str) -> None:
    path = DIRECTORY / name
    expected = []
    with RawPcapReader(str(path)) as reader:
        unit_ns = 1 if reader.nano else 1000
        for data, told in reader:
            expected.append(Packet(data, told.sec * 10**9 + told.usec * unit_ns, told.wirelen, 0, reader.linktype))
    found = read(path)
    assert found.packets == expected
    assert found.error is None
    assert {batch.batch.interfaces[0].name for batch in found.batches} == {""}


@pytest.mark.parametrize("name", NAMES)
def test_times_and_lengths_are_as_tshark_shows_them(name: str) -> None:
    assert as_seen(read(DIRECTORY / name).packets) == tshark(DIRECTORY / name, sections=None)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("magic", MAGICS, ids=["us", "ns", "modified"])
def test_both_byte_orders_and_all_magics(order: str, magic: int, tmp_path: Path) -> None:
    packets = some_packets(50, unit_ns=1 if magic == NANOSECONDS else 1000)
    path = tmp_path / "made.pcap"
    path.write_bytes(pcap(packets, order, magic))
    found = read(path)
    assert found.error is None
    assert found.packets == packets
    assert as_seen(packets) == tshark(path, sections=None)
    for batch in found.batches:
        assert batch.origin is None
        assert batch.option_sets == []
        assert (batch.options == -1).all()


def test_the_modified_format_tells_packet_types(tmp_path: Path) -> None:
    packet = some_packets(1)[0]
    told = (*range(5), 5, 255)
    records = [pcap_record(packet, "<", MODIFIED, packet_type) for packet_type in told]
    path = tmp_path / "modified.pcap"
    path.write_bytes(pcap_header("<", MODIFIED) + b"".join(records))
    (file_batch,) = read(path).batches
    assert file_batch.batch.packet_type.tolist() == [*range(5), PacketType.UNKNOWN, PacketType.UNKNOWN]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("magic", MAGICS, ids=["us", "ns", "modified"])
def test_a_file_cut_anywhere_yields_every_whole_packet_and_one_error(order: str, magic: int, tmp_path: Path) -> None:
    packets = some_packets(4, unit_ns=1000, largest=40)
    data = pcap(packets, order, magic)
    ends = [len(pcap(packets[:count], order, magic)) for count in range(len(packets) + 1)]
    path = tmp_path / "cut.pcap"
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        found = read(path)
        whole = [end for end in ends if end <= length]
        assert found.packets == packets[: max(len(whole) - 1, 0)], length
        if length in ends:
            assert found.error is None
        else:
            assert found.error is not None
            assert found.error.offset == max(whole, default=0)
            assert found.error.path == str(path)


def test_an_empty_file_and_another_kind_of_file_are_no_captures(tmp_path: Path) -> None:
    path = tmp_path / "other"
    for data in (b"", b"\xd4", b"\xd4\xc3\xb2", b"PK\x03\x04 and more", bytes(100)):
        path.write_bytes(data)
        with pytest.raises(FormatError, match="not a capture file") as caught:
            open_capture(str(path))
        assert (caught.value.offset, caught.value.path) == (0, str(path))


def test_a_length_that_cannot_be_ends_the_file_there(tmp_path: Path) -> None:
    packets = some_packets(3)
    path = tmp_path / "broken.pcap"
    for length in ((1 << 24) + 1, 0x7FFFFFFF, 0xFFFFFFFF):
        broken = struct.pack("<IIII", 0, 0, length, length) + bytes(1000)
        path.write_bytes(pcap(packets) + broken + pcap_record(packets[0]))
        found = read(path)
        assert found.packets == packets
        assert found.error is not None
        assert found.error.offset == len(pcap(packets))
        assert f"{length:,} bytes" in str(found.error)


@pytest.mark.parametrize(("major", "minor"), [(1, 0), (2, 2), (3, 0), (0, 0)])
def test_an_unknown_version_is_refused(major: int, minor: int, tmp_path: Path) -> None:
    path = tmp_path / "version.pcap"
    path.write_bytes(struct.pack("<IHHiIII", MICROSECONDS, major, minor, 0, 0, 65535, 1) + bytes(16))
    found = read(path)
    assert found.packets == []
    assert f"version {major}.{minor}" in str(found.error)


def test_the_frame_check_sequence_is_no_part_of_the_linktype(tmp_path: Path) -> None:
    path = tmp_path / "fcs.pcap"
    path.write_bytes(pcap_header(linktype=0x24000001) + pcap_record(some_packets(1)[0]))
    assert read(path).packets[0].linktype == 1


def test_packets_larger_than_what_is_read_at_once(tmp_path: Path) -> None:
    sizes = [100, 5 << 20, 0, 1 << 24, 60]
    packets = [Packet(np.random.default_rng(size).bytes(size), 10**18 + size * 1000, size) for size in sizes]
    path = tmp_path / "large.pcap"
    path.write_bytes(pcap(packets))
    found = read(path)
    assert found.error is None
    assert found.packets == packets


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("largest", [1, 80, 1514, 9000])
def test_a_file_of_many_pieces(order: str, largest: int, tmp_path: Path) -> None:
    packets = some_packets(3000, largest=largest)
    packets *= 4_000_000 // len(pcap(packets)) + 1
    path = tmp_path / "many.pcap"
    path.write_bytes(pcap(packets, order))
    found = read(path)
    assert found.error is None
    assert len(found.batches) > 1
    assert found.packets == packets


@settings(max_examples=200)
@given(
    count=st.integers(1, 40),
    splits=st.lists(st.integers(0, 6000), max_size=8),
    order=st.sampled_from(ORDERS),
    magic=st.sampled_from(MAGICS),
)
def test_it_does_not_matter_how_the_bytes_come(count: int, splits: list[int], order: str, magic: int) -> None:
    packets = some_packets(count)
    data = pcap(packets, order, magic)
    ends = sorted({min(split, len(data)) for split in splits})
    decoder = PcapDecoder()
    found: list[Packet] = []
    for end in [*ends, len(data)]:
        piece = np.frombuffer(data[decoder.position : end], np.uint8)
        for batch in decoder.decode(piece, is_last=end == len(data)):
            found += packets_of(batch)
    assert found == packets
    assert decoder.position == len(data)


def test_payload_that_looks_like_records_is_taken_for_none(tmp_path: Path) -> None:
    """A capture of the transfer of another capture."""
    inner = pcap(some_packets(6000))
    time_ns = some_packets(1)[0].time_ns
    packets = [Packet(inner[at : at + 1448], time_ns + at * 1000, 1448) for at in range(0, len(inner) - 1448, 1448)] * 8
    path = tmp_path / "nested.pcap"
    path.write_bytes(pcap(packets))
    found = read(path)
    assert found.error is None
    assert found.packets == packets
