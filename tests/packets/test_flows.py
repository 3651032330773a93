from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, GRE, Ether
from scapy.packet import Packet, Raw

from packets.capture_files import ETH0, FILES, pack, read
from pktproc.model import Direction, Flow, Interface, PacketType, pack_address
from pktproc.packets.batch import PacketBatch
from pktproc.packets.decode import decode
from pktproc.packets.flows import KEY_WORDS, FlowTable, Multipliers, distinct_flows, group, random_multipliers
from pktproc.packets.fragments import FragmentTable

LO = Interface("lo", 1, 4026531840, loopback=True)
LO_OTHER_NAMESPACE = Interface("lo", 1, 4026532000, loopback=True)
ETH0_OTHER_NAMESPACE = Interface("eth0", 2, 4026532000)
ETH0_AGAIN = Interface("eth0-renamed", 2, 4026531840)
INTERFACES = (ETH0, LO, LO_OTHER_NAMESPACE, ETH0_OTHER_NAMESPACE, ETH0_AGAIN)
COLLIDING: Multipliers = np.zeros(KEY_WORDS, np.uint64)
"""With these every key has the same hash."""

DIRECTIONS = {
    PacketType.HOST: Direction.INCOMING,
    PacketType.BROADCAST: Direction.INCOMING,
    PacketType.MULTICAST: Direction.INCOMING,
    PacketType.OTHERHOST: Direction.PASSING,
    PacketType.OUTGOING: Direction.OUTGOING,
    PacketType.UNKNOWN: Direction.UNKNOWN,
}
OPPOSITE = {Direction.INCOMING: Direction.OUTGOING, Direction.OUTGOING: Direction.INCOMING}


def flows_of(batch: PacketBatch, multipliers: Multipliers | None = None) -> FlowTable:
    columns = decode(batch, FragmentTable())
    return distinct_flows(batch, columns) if multipliers is None else distinct_flows(batch, columns, multipliers)


def traffic(rng: random.Random, count: int) -> tuple[PacketBatch, list[Flow], list[bool]]:
    """Random packets of few flows; what flow each is of, by what it was made from; whether it is a SYN."""
    packets, flows, syns, interfaces, packet_types = [], [], [], [], []
    for _ in range(count):
        interface = rng.randrange(len(INTERFACES))
        packet_type = rng.choice(list(PacketType))
        direction = Direction.LOOPBACK if INTERFACES[interface].loopback else DIRECTIONS[packet_type]
        where = (INTERFACES[interface].netns, INTERFACES[interface].ifindex)
        flags = rng.choice(["S", "SA", "A", "FA"])
        packet, flow = one_of_few_packets(rng, flags, where, direction)
        packets.append(bytes(Ether(dst="02:77:00:00:00:02", src="02:77:00:00:00:01") / packet))
        flows.append(flow)
        syns.append(TCP in packet and flags == "S")
        interfaces.append(interface)
        packet_types.append(packet_type)
    batch = replace(
        pack(packets, 1),
        interface=np.array(interfaces, np.int64),
        packet_type=np.array(packet_types, np.uint8),
        interfaces=INTERFACES,
    )
    return batch, flows, syns


def one_of_few_packets(
    rng: random.Random, flags: str, where: tuple[int, int], direction: Direction
) -> tuple[Packet, Flow]:
    ends = rng.sample([("10.77.0.1", "10.77.0.2"), ("fd77::1", "fd77::2")][rng.randrange(2)], 2)
    source, destination = map(pack_address, ends)
    v4 = "." in ends[0]
    network = IP(src=ends[0], dst=ends[1]) if v4 else IPv6(src=ends[0], dst=ends[1])
    one, other = rng.choice([4001, 4002]), rng.choice([53, 54])
    inside = IP(src=ends[1], dst=ends[0]) if v4 else IPv6(src=ends[1], dst=ends[0])
    unreachable = ICMP(type=3, code=other % 2) if v4 else ICMPv6DestUnreach(code=other % 2)
    quoted = Flow(*where, OPPOSITE.get(direction, direction), 17, destination, other, source, one)
    echo = ICMP(type=8, id=one, seq=other) if v4 else ICMPv6EchoRequest(id=one, seq=other)
    icmp = 1 if v4 else 58
    return rng.choice(
        [
            (network / UDP(sport=one, dport=other), Flow(*where, direction, 17, source, one, destination, other)),
            (
                network / TCP(sport=one, dport=other, flags=flags),
                Flow(*where, direction, 6, source, one, destination, other),
            ),
            (network / echo, Flow(*where, direction, icmp, source, one, destination, 0, 0, 8 if v4 else 128)),
            (
                network / unreachable / Raw(bytes(inside / UDP(sport=other, dport=one))),
                Flow(*where, direction, icmp, source, 0, destination, 0, 0, 3 if v4 else 1, quoted=quoted),
            ),
            (network / GRE(), Flow(*where, direction, 47, source, 0, destination, 0)),
            (ARP(), Flow(*where, direction, -1, bytes(16), 0, bytes(16), 0, ethertype=0x0806)),
        ]
    )


def by_dictionary(flows: list[Flow]) -> tuple[list[int], list[Flow], list[int]]:
    numbers: dict[Flow, int] = {}
    flow_of = [numbers.setdefault(flow, len(numbers)) for flow in flows]
    return flow_of, list(numbers), [flows.index(flow) for flow in numbers]


@pytest.mark.parametrize("multipliers", [None, COLLIDING, random_multipliers()])
def test_flows_are_those_the_packets_were_made_for(multipliers: Multipliers | None) -> None:
    for seed in range(3):
        batch, flows, syns = traffic(random.Random(seed), 400)
        table = flows_of(batch, multipliers)
        flow_of, distinct, first = by_dictionary(flows)
        assert table.flows == distinct
        assert table.flow_of.tolist() == flow_of
        assert table.first.tolist() == first
        assert len(table) == len(distinct) > 50
        assert table.syn.tolist() == [
            any(s for s, f in zip(syns, flow_of, strict=True) if f == n) for n in range(len(table))
        ]


def test_flows_are_plain_python_values() -> None:
    batch, _, _ = traffic(random.Random(1), 100)
    for flow in flows_of(batch).flows:
        for part in (flow, flow.quoted or flow):
            assert type(part) is Flow
            assert [type(value) for value in part[:11]] == [int, int, int, int, bytes, int, bytes, int, int, int, bool]
            assert len(part.source_address) == len(part.destination_address) == 16


@pytest.mark.parametrize("name", FILES)
def test_packets_of_a_file_have_the_flow_of_their_columns(name: str) -> None:
    batch = read(name)
    columns = decode(batch, FragmentTable())
    table = distinct_flows(batch, columns)
    for row in range(len(batch)):
        flow = table.flows[table.flow_of[row]]
        assert flow.source_address == columns.source_address[row].tobytes()
        assert flow.destination_address == columns.destination_address[row].tobytes()
        ports = (columns.source_port[row], columns.destination_port[row], columns.ports_known[row])
        assert (flow.source_port, flow.destination_port, flow.ports_known) == ports
        assert (flow.protocol, flow.icmp_type) == (columns.protocol[row], columns.icmp_type[row])
        assert flow.ethertype == (columns.ethertype[row] if columns.protocol[row] < 0 else 0)
        assert (flow.quoted is not None) == (columns.quoted_row[row] >= 0)
        if flow.quoted is not None:
            assert columns.quoted is not None
            quoted_row = columns.quoted_row[row]
            assert flow.quoted.source_address == columns.quoted.source_address[quoted_row].tobytes()
            assert flow.quoted.source_port == columns.quoted.source_port[quoted_row]
            assert flow.quoted.protocol == columns.quoted.protocol[quoted_row]
    assert len(set(table.flows)) == len(table.flows)


def test_the_keys_of_flows_are_alike_in_all_blocks_just_where_the_flows_are() -> None:
    rng = random.Random(3)
    tables = [flows_of(traffic(rng, 300)[0]) for _ in range(5)]
    keys = {flow: key for table in tables for flow, key in zip(table.flows, table.keys, strict=True)}
    for table in tables:
        for flow, key in zip(table.flows, table.keys, strict=True):
            assert key == keys[flow]
            assert (key == b"") == (flow.quoted is not None)
    plain = [key for flow, key in keys.items() if flow.quoted is None]
    assert len(set(plain)) == len(plain) > 20


def test_an_empty_block_has_no_flows() -> None:
    table = flows_of(pack([], 1))
    assert (table.flows, table.flow_of.tolist(), table.first.tolist(), table.syn.tolist()) == ([], [], [], [])


@pytest.mark.parametrize("size", [1, 2, 7, 5000])
def test_blocks_of_any_size(size: int) -> None:
    packets = [bytes(IP(src="10.77.0.1", dst="10.77.0.2") / UDP(sport=sport, dport=53)) for sport in range(1, 98)]
    table = flows_of(pack([packets[row * row % 97] for row in range(size)], 101))
    assert [table.flows[number].source_port for number in table.flow_of] == [row * row % 97 + 1 for row in range(size)]


@given(
    values=st.lists(st.integers(0, 40), max_size=200),
    seed=st.binary(min_size=8 * KEY_WORDS, max_size=8 * KEY_WORDS),
    position=st.integers(0, 4 * KEY_WORDS - 1),
)
def test_equal_keys_and_only_those_have_one_number(values: list[int], seed: bytes, position: int) -> None:
    keys = np.zeros((len(values), 4 * KEY_WORDS), np.uint8)
    keys[:, position] = values
    column = keys.view(np.dtype((np.void, 4 * KEY_WORDS))).reshape(len(values))
    for multipliers in (np.frombuffer(seed, np.uint64), COLLIDING, np.full(KEY_WORDS, 1 << 63, np.uint64)):
        numbers, first = group(column, multipliers)
        order = list(dict.fromkeys(values))
        assert numbers.tolist() == [order.index(value) for value in values]
        assert first.tolist() == [values.index(value) for value in order]


def test_flows_made_to_collide_stay_apart() -> None:
    # With these multipliers the hash sees the ports alone, so all flows between the same ports collide.
    blind: Multipliers = np.zeros(KEY_WORDS, np.uint64)
    blind[8] = 0x9E3779B97F4A7C15
    packets = [
        bytes(IP(src=f"10.77.{a}.{b}", dst="10.77.0.2") / UDP(sport=sport, dport=53))
        for a in range(8)
        for b in range(8)
        for sport in (4001, 4002)
    ]
    random.Random(2).shuffle(packets)
    batch = pack(packets * 3, 101)
    table, usual = flows_of(batch, blind), flows_of(batch)
    assert len(table) == 128
    assert table.flows == usual.flows
    assert table.flow_of.tolist() == usual.flow_of.tolist()


def test_multipliers_differ_from_process_to_process() -> None:
    assert random_multipliers().shape == (KEY_WORDS,)
    assert random_multipliers().tolist() != random_multipliers().tolist()


def test_whether_ports_are_known_tells_flows_apart() -> None:
    whole = bytes(IP(src="10.77.0.1", dst="10.77.0.2", len=28) / UDP(sport=0, dport=0))
    table = flows_of(pack([whole, whole[:22]], 101))
    assert [flow.ports_known for flow in table.flows] == [True, False]


def test_what_the_errors_quote_tells_them_apart_to_the_last_field() -> None:
    base: dict[str, Any] = {"src": "10.77.0.2", "dst": "10.77.0.1"}
    quoted = [
        IP(**base) / UDP(sport=1, dport=2),
        IP(**base) / UDP(sport=1, dport=3),
        IP(**base) / TCP(sport=1, dport=2),
        IP(**base) / ICMP(type=8, id=1),
        IP(**base) / ICMP(type=0, id=1),
        IP(src="10.77.0.2", dst="10.77.0.3") / UDP(sport=1, dport=2),
    ]
    errors = [bytes(IP(src="10.77.0.9", dst="10.77.0.2") / ICMP(type=3, code=1) / Raw(bytes(q))) for q in quoted]
    table = flows_of(pack(errors * 2, 101))
    assert table.flow_of.tolist() == [0, 1, 2, 3, 4, 5] * 2
    ends = [(flow.quoted.source_port, flow.quoted.destination_port) for flow in table.flows if flow.quoted]
    assert ends == [(1, 2), (1, 3), (1, 2), (1, 0), (0, 1), (1, 2)]
