from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment
from scapy.layers.ipsec import AH
from scapy.packet import Packet, Raw

from packets.capture_files import pack
from pktproc.packets.columns import Columns
from pktproc.packets.decode import decode
from pktproc.packets.fragments import FragmentTable
from pktproc.packets.network import MAX_EXTENSION_HEADERS

RAW = 101
A4, B4, A6, B6 = "10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2"


def decoded(*packets: Packet | bytes) -> Columns:
    return decode(pack([bytes(packet) for packet in packets], RAW), FragmentTable())


def test_every_header_length_of_ipv4() -> None:
    packets = [IP(src=A4, dst=B4, ihl=5 + words, len=32 + 4 * words, proto=17) for words in range(11)]
    rest = struct.pack("!HHHH", 4001, 4002, 12, 0) + b"data"
    columns = decoded(*(bytes(packet) + bytes(4 * words) + rest for words, packet in enumerate(packets)))
    assert columns.source_port.tolist() == [4001] * 11
    assert columns.payload_bytes.tolist() == [4] * 11
    assert (columns.transport_offset - columns.network_offset).tolist() == [20 + 4 * words for words in range(11)]


@pytest.mark.parametrize("first_byte", [0x40, 0x44, 0x35, 0x55, 0x00, 0xF5])
def test_a_broken_ipv4_header_is_not_ip(first_byte: int) -> None:
    packet = bytes([first_byte]) + bytes(IP(src=A4, dst=B4) / UDP(sport=1, dport=2))[1:]
    batch = pack([packet], 228)
    columns = decode(batch, FragmentTable())
    assert (columns.ethertype[0], columns.network[0], columns.protocol[0]) == (0x0800, 0, -1)
    assert not columns.source_address.any()
    assert columns.ports_known[0]
    assert (columns.network_offset[0], columns.transport_offset[0], columns.payload_bytes[0]) == (0, -1, 0)


def test_a_total_length_below_the_header_length_is_broken() -> None:
    columns = decoded(*(IP(src=A4, dst=B4, len=length) / UDP(sport=1, dport=2) for length in (1, 19, 20, 28)))
    assert columns.network.tolist() == [0, 0, 4, 4]


def test_link_padding_is_never_read_as_a_header_nor_counted() -> None:
    transport = bytes(UDP(sport=4001, dport=4002) / Raw(b"abc"))
    for network in (bytes(IP(src=A4, dst=B4, proto=17, len=31)), bytes(IPv6(src=A6, dst=B6, nh=17, plen=11))):
        columns = decoded(network + transport + bytes(15))
        assert (columns.source_port[0], columns.payload_bytes[0]) == (4001, 3)
    for length in (1, 3):
        cut = [IP(src=A4, dst=B4, proto=17, len=20 + length), IPv6(src=A6, dst=B6, nh=17, plen=length)]
        columns = decoded(*(bytes(network) + transport for network in cut))
        assert columns.ports_known.tolist() == [False, False]
        assert columns.source_port.tolist() == [0, 0]
        assert columns.payload_bytes.tolist() == [0, 0]


def test_offloaded_datagrams_reach_to_the_end_of_the_frame() -> None:
    data = Raw(bytes(3000))
    packets = [
        IP(src=A4, dst=B4, len=0) / TCP(sport=1, dport=2) / data,
        IPv6(src=A6, dst=B6, plen=0) / TCP(sport=1, dport=2) / data,
    ]
    columns = decoded(*packets)
    assert columns.payload_bytes.tolist() == [3000, 3000]
    assert columns.source_port.tolist() == [1, 1]
    cut = pack([bytes(packet)[:80] for packet in packets], RAW, wire_bytes=[len(packet) for packet in packets])
    assert decode(cut, FragmentTable()).payload_bytes.tolist() == [3000, 3000]


def test_extension_headers_are_followed_to_a_bound() -> None:
    depths = [1, MAX_EXTENSION_HEADERS, MAX_EXTENSION_HEADERS + 1]
    packets = []
    for depth in depths:
        chain = bytes([60, 0, 1, 4, 0, 0, 0, 0]) * (depth - 1) + bytes([17, 0, 1, 4, 0, 0, 0, 0])
        packets.append(bytes(IPv6(src=A6, dst=B6, nh=60, plen=len(chain) + 8)) + chain + bytes(UDP(sport=1, dport=2)))
    columns = decoded(*packets)
    assert columns.protocol.tolist() == [17, 17, 60]
    assert columns.ports_known.tolist() == [True, True, False]
    assert columns.transport_offset[2] == -1


def test_an_extension_header_that_passes_the_end_hides_the_ports() -> None:
    udp = bytes(UDP(sport=1, dport=2))
    packet = bytes(IPv6(src=A6, dst=B6, nh=60, plen=16)) + bytes([17, 255, 1, 4, 0, 0, 0, 0]) + udp
    columns = decoded(packet, packet)
    assert columns.network.tolist() == [6, 6]
    assert columns.ports_known.tolist() == [False, False]
    assert columns.source_port.tolist() == [0, 0]
    assert columns.transport_offset.tolist() == [-1, -1]
    assert columns.payload_bytes.tolist() == [0, 0]


def test_extension_headers_mean_nothing_in_ipv4() -> None:
    columns = decoded(
        IP(src=A4, dst=B4, proto=51) / AH(nh=17, spi=1, seq=1, icv=bytes(12), payloadlen=4) / UDP(sport=1, dport=2),
        IP(src=A4, dst=B4, proto=60) / Raw(bytes([17, 0, 1, 4, 0, 0, 0, 0])) / UDP(sport=1, dport=2),
    )
    assert columns.protocol.tolist() == [51, 60]
    assert columns.ports_known.all()
    assert not columns.source_port.any()


@pytest.mark.parametrize("protocol", [50, 59])
def test_what_ends_an_ipv6_chain_has_no_ports(protocol: int) -> None:
    columns = decoded(IPv6(src=A6, dst=B6) / IPv6ExtHdrDestOpt(nh=protocol) / Raw(bytes(range(32))))
    assert (columns.protocol[0], columns.ports_known[0], columns.payload_bytes[0]) == (protocol, True, 32)


def test_fragments_of_ipv4() -> None:
    flags_and_offsets = [(0, 0), (2, 0), (1, 0), (1, 1), (0, 1), (3, 8191), (4, 0)]
    columns = decoded(
        *(IP(src=A4, dst=B4, proto=253, flags=f, frag=o) / Raw(b"12345678") for f, o in flags_and_offsets)
    )
    assert columns.fragment.tolist() == [0, 0, 1, 2, 2, 2, 0]
    assert columns.ports_known.all()
    assert columns.payload_bytes.tolist() == [8] * 7


def test_fragments_of_ipv6() -> None:
    more_and_offsets = [(0, 0), (1, 0), (1, 1), (0, 1)]
    packets = [
        IPv6(src=A6, dst=B6) / IPv6ExtHdrFragment(nh=253, m=m, offset=o) / Raw(b"12345678") for m, o in more_and_offsets
    ]
    columns = decoded(*packets)
    assert columns.fragment.tolist() == [0, 1, 2, 2]
    assert columns.protocol.tolist() == [253] * 4
    assert columns.payload_bytes.tolist() == [8] * 4


def test_a_fragment_header_has_eight_bytes_whatever_its_reserved_field_says() -> None:
    fragment = IPv6ExtHdrFragment(nh=17, res1=255, id=1)
    columns = decoded(IPv6(src=A6, dst=B6) / fragment / UDP(sport=4001, dport=4002) / Raw(b"abc"))
    assert (columns.protocol[0], columns.source_port[0], columns.payload_bytes[0]) == (17, 4001, 3)


def test_what_looks_like_headers_in_a_later_fragment_is_payload() -> None:
    looks_like = bytes([17, 0, 1, 4, 0, 0, 0, 0]) + bytes(UDP(sport=1, dport=2))
    columns = decoded(IPv6(src=A6, dst=B6) / IPv6ExtHdrFragment(nh=60, m=1, offset=1) / Raw(looks_like))
    assert (columns.protocol[0], columns.fragment[0], columns.ports_known[0]) == (60, 2, False)
    assert (columns.source_port[0], columns.transport_offset[0], columns.payload_bytes[0]) == (0, -1, 16)
