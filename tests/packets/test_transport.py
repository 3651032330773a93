from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

from packets.capture_files import pack
from pktproc.packets.columns import Columns
from pktproc.packets.decode import decode
from pktproc.packets.fragments import FragmentTable

RAW = 101
A4, B4, A6, B6 = "10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2"
PORTED = {6: 20, 17: 8, 33: 12, 132: 12, 136: 8}


def decoded(*packets: Packet | bytes) -> Columns:
    return decode(pack([bytes(packet) for packet in packets], RAW), FragmentTable())


def test_of_all_protocols_only_those_with_ports_show_some() -> None:
    rest = struct.pack("!HH", 4001, 4002) + bytes(60)
    for network in (IP(src=A4, dst=B4), IPv6(src=A6, dst=B6)):
        field = "proto" if isinstance(network, IP) else "nh"
        protocols = [p for p in range(256) if p not in {0, 1, 43, 44, 51, 58, 60, 135, 139, 140}]
        packets = []
        for protocol in protocols:
            header = network.copy()
            setattr(header, field, protocol)
            packets.append(header / Raw(rest))
        columns = decoded(*packets)
        assert columns.protocol.tolist() == protocols
        assert columns.source_port.tolist() == [4001 if p in PORTED else 0 for p in protocols]
        assert columns.destination_port.tolist() == [4002 if p in PORTED else 0 for p in protocols]
        assert columns.payload_bytes.tolist() == [64 - PORTED.get(p, 0) for p in protocols]
        assert columns.ports_known.all()


@pytest.mark.parametrize("protocol", PORTED)
def test_four_bytes_are_enough_for_ports(protocol: int) -> None:
    rest = struct.pack("!HH", 4001, 4002)
    columns = decoded(*(IP(src=A4, dst=B4, proto=protocol) / Raw(rest[:length]) for length in range(5)))
    assert columns.ports_known.tolist() == [False] * 4 + [True]
    assert columns.source_port.tolist() == [0] * 4 + [4001]
    assert (columns.transport_offset >= 0).tolist() == [False] + [True] * 4
    assert columns.payload_bytes.tolist() == [0] * 5
    assert not columns.tcp_flags.any()


def test_every_combination_of_tcp_flags() -> None:
    columns = decoded(*(IP(src=A4, dst=B4) / TCP(flags=flags) for flags in range(256)))
    assert columns.tcp_flags.tolist() == list(range(256))


def test_payload_starts_behind_tcp_options() -> None:
    data = Raw(bytes(60))
    columns = decoded(*(IP(src=A4, dst=B4) / TCP(dataofs=words) / data for words in range(16)))
    assert columns.payload_bytes.tolist() == [80 - 4 * max(words, 5) for words in range(16)]


def test_payload_starts_behind_dccp_options() -> None:
    packets = []
    for words in (3, 6, 255):
        header = struct.pack("!HHBBHBBHI", 1, 2, words, 0, 0, 5, 0, 0, 7)[: words * 4].ljust(words * 4, b"\0")
        packets.append(IP(src=A4, dst=B4, proto=33) / Raw(header + b"data"))
    cut = IP(src=A4, dst=B4, proto=33) / Raw(struct.pack("!HH", 1, 2))
    assert decoded(*packets, cut).payload_bytes.tolist() == [4, 4, 4, 0]
