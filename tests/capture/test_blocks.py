"""Blocks of a TPACKET_V3 ring, written by hand from the layouts of linux/if_packet.h."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pktproc.capture import blocks
from pktproc.model import PacketType
from pktproc.packets.batch import Bytes

# struct tpacket3_hdr (next, sec, nsec, snaplen, len, status, mac, net, rxhash, vlan_tci, vlan_tpid, 2 + 8 of padding),
# then struct sockaddr_ll (family, protocol in network order, ifindex, hatype, pkttype, halen, addr).
HEADER = struct.Struct("=IIIIIIHHIIH10x")
ADDRESS = struct.Struct("=H2siHBB8s")
MAC = 96
VLAN_VALID, TPID_VALID = 1 << 4, 1 << 6
ETHERNET, LOOPBACK, TUN, SIT = 1, 772, 65534, 776
LINKTYPE_ETHERNET, LINKTYPE_RAW, UNKNOWN = 1, 101, 0xFFFF
FRAME = bytes(range(14)) + b"payload of a frame"


def ring_frame(
    data: bytes,
    *,
    status: int = 1,
    tci: int = 0,
    tpid: int = 0,
    hatype: int = ETHERNET,
    packet_type: int = PacketType.HOST,
    ethertype: int = 0x0800,
    ifindex: int = 7,
    wire_bytes: int | None = None,
    link_header: int = 14,
    size: int | None = None,
    following: int | None = None,
    time: tuple[int, int] = (1_700_000_000, 999_999_999),
) -> bytes:
    """Return a frame of a ring; `following` is the distance to the next one, right behind it by default."""
    length = (MAC + len(data) + 15) & ~15 if size is None else size
    wire = len(data) if wire_bytes is None else wire_bytes
    head = HEADER.pack(
        length if following is None else following,
        *time,
        len(data),
        wire,
        status,
        MAC,
        MAC + link_header,
        0,
        tci,
        tpid,
    )
    address = ADDRESS.pack(17, ethertype.to_bytes(2), ifindex, hatype, packet_type, 6, b"")
    body = head + address
    return body + bytes(MAC - len(body)) + data + bytes(length - MAC - len(data))


def as_array(*frames: bytes) -> Bytes:
    return np.frombuffer(bytearray(b"".join(frames)), np.uint8)


def starts_of(frames: Sequence[bytes]) -> list[int]:
    return [sum(map(len, frames[:number])) for number in range(len(frames))]


def parse(*frames: bytes) -> list[bytes]:
    found = blocks.parse(as_array(*frames), np.array(starts_of(frames), np.int64))
    return [
        found.data[start : start + size].tobytes()
        for start, size in zip(found.offset.tolist(), found.captured_bytes.tolist(), strict=True)
    ]


def test_the_header_has_the_size_of_the_kernels() -> None:
    assert (HEADER.size, ADDRESS.size) == (48, 20)
    assert HEADER.size + ADDRESS.size == blocks.FRAME.itemsize


@pytest.mark.parametrize(
    "sizes",
    [
        [60],
        [60] * 2,
        [60] * 1000,
        [60, 1500] * 200,
        [60] * 100 + [1500] * 100,
        list(range(60, 600, 3)),
        [60] * 9 + [61],
    ],
)
@pytest.mark.parametrize("first", [0, 48])
def test_frames_are_found_however_their_sizes_run(sizes: list[int], first: int) -> None:
    frames = [ring_frame(bytes(size)) for size in sizes]
    block = as_array(bytes(first), *frames)
    expected = [first + start for start in starts_of(frames)]
    assert blocks.frame_offsets(block, first, len(frames)).tolist() == expected


@given(st.lists(st.integers(0, 400), min_size=1, max_size=300), st.integers(1, 5))
def test_frames_are_found_for_any_sizes(sizes: list[int], repeated: int) -> None:
    frames = [ring_frame(bytes(size)) for size in sizes for _ in range(repeated)]
    assert blocks.frame_offsets(as_array(*frames), 0, len(frames)).tolist() == starts_of(frames)


def test_the_last_frame_may_point_nowhere() -> None:
    """The kernel leaves the distance of a block's last frame as it is: zero or stale."""
    for following in (0, 8, 1 << 31):
        frames = [ring_frame(FRAME), ring_frame(FRAME, following=following)]
        assert blocks.frame_offsets(as_array(*frames), 0, 2).tolist() == starts_of(frames)


@given(st.binary(min_size=4, max_size=2000), st.integers(0, 200), st.integers(1, 5000))
def test_hostile_distances_come_to_an_end(data: bytes, first: int, count: int) -> None:
    offsets = blocks.frame_offsets(np.frombuffer(data, np.uint8), first & ~3, count)
    assert len(offsets) == count


def test_everything_the_kernel_says_is_told() -> None:
    block = as_array(ring_frame(FRAME, wire_bytes=9000, packet_type=PacketType.OUTGOING, time=(1_800_000_000, 5)))
    found = blocks.parse(block, np.zeros(1, np.int64))
    assert found.time_ns.tolist() == [1_800_000_000_000_000_005]
    assert (found.captured_bytes.tolist(), found.wire_bytes.tolist()) == ([len(FRAME)], [9000])
    assert (found.ifindex.tolist(), found.packet_type.tolist()) == ([7], [PacketType.OUTGOING])
    assert found.linktype.tolist() == [LINKTYPE_ETHERNET]
    assert parse(ring_frame(FRAME)) == [FRAME]


@pytest.mark.parametrize(
    ("status", "tpid", "expected"),
    [
        (VLAN_VALID, 0, b"\x81\x00"),
        (VLAN_VALID, 0x88A8, b"\x81\x00"),
        (VLAN_VALID | TPID_VALID, 0x8100, b"\x81\x00"),
        (VLAN_VALID | TPID_VALID, 0x88A8, b"\x88\xa8"),
    ],
)
def test_a_vlan_tag_is_put_back(status: int, tpid: int, expected: bytes) -> None:
    tagged = FRAME[:12] + expected + b"\x20\x64" + FRAME[12:]
    assert parse(ring_frame(FRAME, status=status, tci=0x2064, tpid=tpid), ring_frame(FRAME)) == [tagged, FRAME]


def test_a_tag_counts_as_bytes_of_the_wire() -> None:
    block = as_array(ring_frame(FRAME, status=VLAN_VALID, tci=100))
    found = blocks.parse(block, np.zeros(1, np.int64))
    assert found.wire_bytes.tolist() == [len(FRAME) + 4]


def test_no_tag_is_put_where_the_addresses_are_cut() -> None:
    short = FRAME[:11]
    assert parse(ring_frame(short, status=VLAN_VALID, tci=100)) == [short]


def test_a_frame_of_another_link_begins_at_its_network_header() -> None:
    ip = b"\x45" + bytes(30)
    frames = [
        ring_frame(ip, hatype=TUN, link_header=0),
        ring_frame(b"\0\0\0\0" + ip, hatype=SIT, link_header=4, ethertype=0x86DD),
        ring_frame(FRAME, hatype=LOOPBACK),
        ring_frame(b"\0\0" + ip, hatype=TUN, link_header=2, ethertype=0x1234),
    ]
    assert parse(*frames) == [ip, ip, FRAME, ip]
    found = blocks.parse(as_array(*frames), np.array(starts_of(frames), np.int64))
    assert found.linktype.tolist() == [LINKTYPE_RAW, LINKTYPE_RAW, LINKTYPE_ETHERNET, UNKNOWN]
    assert found.wire_bytes.tolist() == [31, 31, len(FRAME), 31]


def test_a_frame_cut_before_its_network_header_is_empty() -> None:
    assert parse(ring_frame(b"\0\0", hatype=SIT, link_header=4)) == [b""]
