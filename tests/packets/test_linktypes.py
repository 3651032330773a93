from __future__ import annotations

import struct

import numpy as np
import pytest

from packets.capture_files import FILES, pack, read
from pktproc.packets.linktypes import MAX_ENCAPSULATIONS, Link, locate

IPV4 = b"\x45" + bytes(19)
IPV6 = b"\x60" + bytes(39)
MACS = bytes(12)


def link_of(packets: list[bytes], linktypes: int | list[int]) -> Link:
    batch = pack(packets, linktypes)
    link = locate(batch.data, batch.offset, batch.offset + batch.captured_bytes, batch.linktype)
    link.network_offset[:] = np.where(link.network_offset < 0, -1, link.network_offset - batch.offset)
    return link


def seen(packet: bytes, linktype: int) -> tuple[int, int, int, int]:
    link = link_of([packet], linktype)
    return int(link.ethertype[0]), int(link.network_offset[0]), int(link.vlan[0]), int(link.inner_vlan[0])


@pytest.mark.parametrize("linktype", [12, 14, 101])
def test_raw_packets_are_told_apart_by_their_version(linktype: int) -> None:
    assert seen(IPV4, linktype) == (0x0800, 0, -1, -1)
    assert seen(IPV6, linktype) == (0x86DD, 0, -1, -1)
    assert seen(b"\x50" + bytes(40), linktype) == (0, -1, -1, -1)
    assert seen(b"", linktype) == (0, -1, -1, -1)


@pytest.mark.parametrize("linktype", [0, 108])
@pytest.mark.parametrize("order", ["<", ">"])
def test_loopback_families_are_read_in_either_byte_order(linktype: int, order: str) -> None:
    ethertypes = {2: 0x0800, 24: 0x86DD, 28: 0x86DD, 30: 0x86DD}
    for family in range(256):
        wanted = ethertypes.get(family, 0)
        assert seen(struct.pack(order + "I", family) + IPV4, linktype) == (wanted, 4 if wanted else -1, -1, -1)
    assert seen(struct.pack(order + "I", 0x02000200) + IPV4, linktype) == (0, -1, -1, -1)
    assert seen(struct.pack(order + "I", 2)[:3], linktype) == (0, -1, -1, -1)


@pytest.mark.parametrize("linktype", [2, 105, 127, 147, 65535])
def test_an_unknown_link_type_has_no_network_layer(linktype: int) -> None:
    assert seen(MACS + b"\x08\x00" + IPV4, linktype) == (0, -1, -1, -1)


@pytest.mark.parametrize("tpid", [0x8100, 0x88A8, 0x9100])
def test_tags_are_followed_to_a_bound(tpid: int) -> None:
    for depth in range(1, MAX_ENCAPSULATIONS + 3):
        tags = b"".join(struct.pack("!HH", tpid, 0xF000 | number) for number in range(1, depth + 1))
        known = depth <= MAX_ENCAPSULATIONS
        inner = 2 if depth > 1 else -1
        ends_at = 14 + 4 * depth
        assert seen(MACS + tags + b"\x08\x00" + IPV4, 1) == (0x0800 if known else 0, ends_at if known else -1, 1, inner)


def test_a_cut_tag_says_nothing() -> None:
    frame = MACS + bytes.fromhex("8100004d 8100004e 0800") + IPV4
    assert seen(frame, 1) == (0x0800, 22, 77, 78)
    for length in range(18, 22):
        assert seen(frame[:length], 1) == (0, -1, 77, -1)
    for length in range(18):
        assert seen(frame[:length], 1) == (0, -1, -1, -1)


def test_only_snap_with_an_ethertype_is_followed() -> None:
    length = b"\x00\x20"
    assert seen(MACS + length + bytes.fromhex("aaaa03 000000 0800") + IPV4, 1) == (0x0800, 22, -1, -1)
    for header in ("aaaa03 0000f8 0800", "aaaa13 000000 0800", "aaab03 000000 0800", "424203 000000 0800"):
        assert seen(MACS + length + bytes.fromhex(header) + IPV4, 1)[0] == 0
    # A length in the place of SNAP's ethertype is no way to nest LLC in LLC.
    assert seen(MACS + length + bytes.fromhex("aaaa03 000000 0020 aaaa03 000000 0800") + IPV4, 1)[0] == 0
    assert seen(MACS + length + bytes.fromhex("aaaa03 000000 08"), 1)[0] == 0
    assert seen(MACS + b"\x00\x00" + bytes.fromhex("aaaa03 000000 0800") + IPV4, 1)[0] == 0
    assert seen(MACS + b"\x05\xff" + bytes.fromhex("aaaa03 000000 0800") + IPV4, 1)[0] == 0x0800
    assert seen(MACS + b"\x06\x00" + bytes.fromhex("aaaa03 000000 0800") + IPV4, 1)[0] == 0x0600


@pytest.mark.parametrize("arphrd", [1, 772, 778, 65534])
def test_cooked_headers_give_the_ethertype(arphrd: int) -> None:
    assert seen(struct.pack("!HHH8sH", 4, arphrd, 6, bytes(8), 0x0800) + IPV4, 113) == (0x0800, 16, -1, -1)
    assert seen(struct.pack("!HHIHBB8s", 0x86DD, 0, 2, arphrd, 4, 6, bytes(8)) + IPV6, 276) == (0x86DD, 20, -1, -1)


@pytest.mark.parametrize("arphrd", [770, 803, 824])
def test_cooked_headers_of_other_worlds_have_no_ethertype(arphrd: int) -> None:
    assert seen(struct.pack("!HHH8sH", 4, arphrd, 6, bytes(8), 0x0800) + IPV4, 113)[0] == 0
    assert seen(struct.pack("!HHIHBB8s", 0x0800, 0, 2, arphrd, 4, 6, bytes(8)) + IPV4, 276)[0] == 0


def test_cut_cooked_headers_say_nothing() -> None:
    for linktype, header in ((113, struct.pack("!HHH8sH", 4, 1, 6, bytes(8), 0x0800)), (276, b"\x08\x00" + bytes(18))):
        for length in range(len(header)):
            assert seen(header[:length], linktype)[:2] == (0, -1)
        # The header is whole, but nothing is left for a network layer.
        assert seen(header, linktype)[:2] == (0x0800, -1)


def test_a_mixture_of_link_types_is_located_as_each_alone() -> None:
    batches = [read(name) for name in FILES]
    packets = [(batch.packet(row), int(batch.linktype[row])) for batch in batches for row in range(len(batch))]
    interleaved = packets[::3] + packets[1::3] + packets[2::3]
    link = link_of([data for data, _ in interleaved], [linktype for _, linktype in interleaved])
    columns = (link.ethertype, link.network_offset, link.vlan, link.inner_vlan)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == [seen(*packet) for packet in interleaved]
