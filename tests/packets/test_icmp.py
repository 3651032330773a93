from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, IPv6
from scapy.packet import Packet, Raw

from packets.capture_files import pack
from pktproc.packets.columns import Columns
from pktproc.packets.decode import decode
from pktproc.packets.fragments import FragmentTable

RAW = 101
A4, B4, A6, B6 = "10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2"
QUOTED = IP(src=B4, dst=A4) / UDP(sport=4001, dport=4002)


def decoded(*packets: Packet | bytes) -> Columns:
    return decode(pack([bytes(packet) for packet in packets], RAW), FragmentTable())


@pytest.mark.parametrize(
    ("network", "protocol", "requests", "replies", "errors"),
    [
        (IP(src=A4, dst=B4), 1, {8, 13}, {0, 14}, {3, 4, 5, 11, 12}),
        (IPv6(src=A6, dst=B6), 58, {128}, {129}, {1, 2, 3, 4}),
    ],
)
def test_what_each_type_carries(
    network: Packet, protocol: int, requests: set[int], replies: set[int], errors: set[int]
) -> None:
    field = "proto" if protocol == 1 else "nh"
    setattr(network, field, protocol)
    quoted = QUOTED if protocol == 1 else IPv6(src=B6, dst=A6) / UDP(sport=4001, dport=4002)
    packets = [network / Raw(struct.pack("!BBHHH", kind, 7, 0, 0x1234, 0x5678) + bytes(quoted)) for kind in range(256)]
    columns = decoded(*packets)
    assert columns.icmp_type.tolist() == list(range(256))
    assert set(columns.icmp_code.tolist()) == {7}
    assert columns.source_port.tolist() == [0x1234 if kind in requests else 0 for kind in range(256)]
    assert columns.destination_port.tolist() == [0x1234 if kind in replies else 0 for kind in range(256)]
    assert (columns.quoted_row >= 0).tolist() == [kind in errors for kind in range(256)]
    assert columns.ports_known.all()
    assert columns.payload_bytes.tolist() == [len(quoted)] * 256


def test_an_echo_without_its_id_has_no_known_ports() -> None:
    echo = bytes(ICMP(type=8, id=0x1234))
    columns = decoded(*(IP(src=A4, dst=B4, proto=1) / Raw(echo[:length]) for length in range(9)))
    assert columns.icmp_type.tolist() == [-1, -1] + [8] * 7
    assert columns.ports_known.tolist() == [False] * 6 + [True] * 3
    assert columns.source_port.tolist() == [0] * 6 + [0x1234] * 3


@pytest.mark.parametrize("protocol", [6, 17, 33, 132, 136])
def test_eight_quoted_bytes_are_enough(protocol: int) -> None:
    quoted = IP(src=B4, dst=A4, proto=protocol, len=200) / Raw(struct.pack("!HHI", 4001, 4002, 0))
    columns = decoded(IP(src=A4, dst=B4) / ICMP(type=3, code=3) / Raw(bytes(quoted)))
    assert columns.quoted is not None
    assert columns.quoted.protocol.tolist() == [protocol]
    assert columns.quoted.source_port.tolist() == [4001]
    assert columns.quoted.destination_port.tolist() == [4002]
    assert columns.quoted.ports_known.tolist() == [True]


def test_an_error_too_short_to_quote_a_header_quotes_nothing() -> None:
    error = IP(src=A4, dst=B4) / ICMP(type=3, code=1)
    whole = bytes(QUOTED)
    columns = decoded(*(error / Raw(whole[:length]) for length in (0, 1, 19, 20, 24, 28)))
    assert (columns.quoted_row >= 0).tolist() == [False, False, False, True, True, True]
    assert columns.quoted is not None
    known = columns.quoted.ports_known[columns.quoted_row[3:]]
    assert known.tolist() == [False, True, True]


def test_a_quoted_packet_of_the_other_ip_version_is_none() -> None:
    columns = decoded(
        IP(src=A4, dst=B4) / ICMP(type=3) / Raw(bytes(IPv6(src=A6, dst=B6) / UDP())),
        IPv6(src=A6, dst=B6) / ICMPv6DestUnreach() / Raw(bytes(QUOTED)),
    )
    assert columns.quoted_row.tolist() == [-1, -1]


def test_errors_quoted_by_errors_are_not_followed() -> None:
    inner = IP(src=B4, dst=A4) / ICMP(type=3, code=1) / Raw(bytes(QUOTED))
    columns = decoded(IP(src=A4, dst=B4) / ICMP(type=11) / Raw(bytes(inner)))
    quoted = columns.quoted
    assert quoted is not None
    assert (quoted.protocol[0], quoted.icmp_type[0], quoted.icmp_code[0]) == (1, 3, 1)
    assert (quoted.quoted, quoted.quoted_row[0]) == (None, -1)


def test_rows_of_quoted_packets_among_others() -> None:
    others = [IP(src=A4, dst=B4) / TCP(), IPv6(src=A6, dst=B6) / ICMPv6EchoRequest(id=5)]
    errors = [
        IP(src=A4, dst=B4) / ICMP(type=3) / Raw(bytes(IP(src=B4, dst=A4) / UDP(sport=sport, dport=1)))
        for sport in (11, 12, 13)
    ]
    columns = decoded(errors[0], others[0], errors[1], others[1], errors[2])
    assert columns.quoted is not None
    assert columns.quoted_row[[1, 3]].tolist() == [-1, -1]
    assert columns.quoted.source_port[columns.quoted_row[[0, 2, 4]]].tolist() == [11, 12, 13]


def test_a_block_without_errors_has_no_quoted_packets() -> None:
    assert decoded(IP(src=A4, dst=B4) / ICMP(type=8, id=1)).quoted is None
