from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw

from packets.capture_files import ETH0, pack
from pktproc.model import Interface
from pktproc.packets.batch import PacketBatch
from pktproc.packets.columns import Columns
from pktproc.packets.decode import decode
from pktproc.packets.fragments import FragmentTable

RAW = 101
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
OTHER_NAMESPACE = Interface("eth0", 2, 4026532000)
MORE = 1


def first(sport: int, *, name: int = 1, **header: object) -> Packet:
    fields: dict[str, Any] = {"src": "10.77.0.1", "dst": "10.77.0.2", **header}
    return IP(id=name, flags=MORE, **fields) / UDP(sport=sport, dport=53, len=1000) / Raw(bytes(40))


def later(*, name: int = 1, at: int = 6, **header: object) -> Packet:
    fields: dict[str, Any] = {"src": "10.77.0.1", "dst": "10.77.0.2", "proto": 17, **header}
    return IP(id=name, frag=at, **fields) / Raw(bytes(range(48)))


def first6(sport: int, *, name: int = 1) -> Packet:
    fragment = IPv6ExtHdrFragment(nh=17, m=1, id=name)
    return IPv6(src="fd77::1", dst="fd77::2") / fragment / UDP(sport=sport, dport=53, len=1000) / Raw(bytes(40))


def later6(*, name: int = 1, next_header: int = 17) -> Packet:
    return IPv6(src="fd77::1", dst="fd77::2") / IPv6ExtHdrFragment(nh=next_header, offset=6, id=name) / Raw(bytes(48))


def batch_of(*packets: Packet, at: int = 0, interface: Interface = ETH0) -> PacketBatch:
    batch = pack([bytes(packet) for packet in packets], RAW, interface=interface)
    return replace(batch, time_ns=np.full(len(packets), START + at, np.int64))


def ports(columns: Columns) -> list[int | None]:
    """Source ports, None where they are not known."""
    known = zip(columns.source_port.tolist(), columns.ports_known.tolist(), strict=True)
    return [port if is_known else None for port, is_known in known]


@pytest.mark.parametrize(("opening", "rest"), [(first(4001), later()), (first6(4001), later6())])
def test_later_fragments_have_the_ports_of_the_first(opening: Packet, rest: Packet) -> None:
    columns = decode(batch_of(opening, rest, rest), FragmentTable())
    assert ports(columns) == [4001, 4001, 4001]
    assert columns.destination_port.tolist() == [53, 53, 53]
    assert columns.fragment.tolist() == [1, 2, 2]
    assert columns.transport_offset.tolist()[1:] == [-1, -1]
    assert columns.payload_bytes.tolist()[1:] == [48, 48]


@pytest.mark.parametrize(("opening", "rest"), [(first(4001), later()), (first6(4001), later6())])
def test_the_first_may_come_last(opening: Packet, rest: Packet) -> None:
    assert ports(decode(batch_of(rest, rest, opening), FragmentTable())) == [4001, 4001, 4001]


@pytest.mark.parametrize(("opening", "rest"), [(first(4001), later()), (first6(4001), later6())])
def test_the_first_may_come_blocks_before(opening: Packet, rest: Packet) -> None:
    table = FragmentTable()
    decode(batch_of(opening), table)
    decode(batch_of(IP(src="10.77.0.1", dst="10.77.0.2") / UDP()), table)
    assert ports(decode(batch_of(rest), table)) == [4001]


def test_without_a_first_the_ports_are_not_known() -> None:
    columns = decode(batch_of(later(), later6()), FragmentTable())
    assert ports(columns) == [None, None]
    assert columns.source_port.tolist() == [0, 0]
    assert columns.protocol.tolist() == [17, 17]


def test_every_part_of_the_name_counts() -> None:
    table = FragmentTable()
    decode(batch_of(first(4001)), table)
    strangers = [later(name=2), later(src="10.77.0.3"), later(dst="10.77.0.3"), later(proto=6), later6()]
    assert ports(decode(batch_of(*strangers), table)) == [None] * 5
    assert ports(decode(batch_of(later(), interface=OTHER_NAMESPACE), table)) == [None]
    assert ports(decode(batch_of(later(), interface=ETH0._replace(name="eth1", ifindex=3)), table)) == [4001]


def test_the_protocol_of_ipv6_is_that_of_the_first() -> None:
    columns = decode(batch_of(first6(4001), later6(next_header=60), later6(next_header=6)), FragmentTable())
    assert columns.protocol.tolist() == [17, 17, 17]
    assert ports(columns) == [4001] * 3


def test_a_name_used_again_means_the_newest_first() -> None:
    table = FragmentTable()
    columns = decode(batch_of(first(4001), later(), first(4002), later()), table)
    assert ports(columns) == [4001, 4001, 4002, 4002]
    assert ports(decode(batch_of(later()), table)) == [4002]
    assert len(table) == 1


def test_a_first_that_is_cut_before_its_ports_hides_an_older_one() -> None:
    table = FragmentTable()
    decode(batch_of(first(4001)), table)
    cut = IP(src="10.77.0.1", dst="10.77.0.2", id=1, flags=MORE, proto=17)
    assert ports(decode(batch_of(cut, later()), table)) == [None, None]


def test_firsts_are_forgotten_after_their_lifetime_of_packet_time() -> None:
    table = FragmentTable(lifetime_ns=30 * SECOND)
    decode(batch_of(first(4001)), table)
    assert ports(decode(batch_of(later(), at=30 * SECOND), table)) == [4001]
    assert ports(decode(batch_of(later(), at=30 * SECOND + 1), table)) == [None]
    # The clock was set back.
    assert ports(decode(batch_of(later(), at=-30 * SECOND), table)) == [4001]
    assert ports(decode(batch_of(later(), at=-30 * SECOND - 1), table)) == [None]


def test_the_table_is_bounded_and_counts_what_it_gave_up() -> None:
    table = FragmentTable(maxsize=3, lifetime_ns=30 * SECOND)
    decode(batch_of(*(first(4000 + name, name=name) for name in range(5))), table)
    assert (len(table), table.evictions) == (3, 2)
    columns = decode(batch_of(*(later(name=name) for name in range(5))), table)
    assert ports(columns) == [None, None, 4002, 4003, 4004]
    # What was dead already is no loss.
    decode(batch_of(*(first(4000 + name, name=name) for name in range(10, 13)), at=31 * SECOND), table)
    assert (len(table), table.evictions) == (3, 2)


def test_a_first_seen_again_is_kept_longest() -> None:
    table = FragmentTable(maxsize=2)
    decode(batch_of(first(4001, name=1), first(4002, name=2), first(4001, name=1), first(4003, name=3)), table)
    assert ports(decode(batch_of(later(name=1), later(name=2), later(name=3)), table)) == [4001, None, 4003]


def test_echo_requests_keep_their_type_and_id() -> None:
    echo = IP(src="10.77.0.1", dst="10.77.0.2", id=9, flags=MORE) / ICMP(type=8, id=0x1234) / Raw(bytes(40))
    echo6 = IPv6(src="fd77::1", dst="fd77::2") / IPv6ExtHdrFragment(nh=58, m=1, id=9) / ICMPv6EchoRequest(id=0x1234)
    columns = decode(batch_of(echo, later(name=9, proto=1), echo6, later6(name=9, next_header=58)), FragmentTable())
    assert ports(columns) == [0x1234] * 4
    assert columns.icmp_type.tolist() == [8, 8, 128, 128]
    assert columns.icmp_code.tolist() == [0] * 4


def test_later_fragments_of_an_error_are_no_errors() -> None:
    quoted = bytes(IP(src="10.77.0.2", dst="10.77.0.1") / UDP(sport=1, dport=2) / Raw(bytes(12)))
    error = IP(src="10.77.0.1", dst="10.77.0.2", id=9, flags=MORE) / ICMP(type=3) / Raw(quoted)
    columns = decode(batch_of(error, later(name=9, proto=1)), FragmentTable())
    assert columns.icmp_type.tolist() == [3, -1]
    assert columns.quoted_row.tolist() == [0, -1]
    assert columns.ports_known.tolist() == [True, True]


def test_fragments_of_a_protocol_without_ports_need_nothing() -> None:
    columns = decode(batch_of(later(proto=89), later6(next_header=89)), FragmentTable())
    assert columns.ports_known.tolist() == [True, True]


def test_an_atomic_fragment_is_a_whole_datagram() -> None:
    table = FragmentTable()
    atomic = IPv6(src="fd77::1", dst="fd77::2") / IPv6ExtHdrFragment(nh=17, m=0, offset=0, id=1) / UDP(sport=4001)
    columns = decode(batch_of(atomic, later6()), table)
    assert columns.fragment.tolist() == [0, 2]
    assert ports(columns) == [4001, None]
    assert len(table) == 0
