"""Packets of two processes that use the same addresses and ports, one after the other: never the wrong one."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet

from attribution.host import NS_PER_MS, Clock, Host
from attribution.traffic import OURS, THEIRS, Ends, Walk, ends_of
from pktproc.attribution.endings import Exit
from pktproc.attribution.lookahead import LookAhead, still_theirs
from pktproc.model import PacketType, Process, Protocol
from pktproc.packets.decode import decode
from pktproc.packets.flows import distinct_flows
from pktproc.packets.fragments import FragmentTable

CLIENT, SERVER = (OURS, 5000), (THEIRS, 80)
INCOMING, OUTGOING = PacketType.HOST, PacketType.OUTGOING
LONG_MS = 100.0


def sent(flags: str = "A", sequence: int = 0) -> Packet:
    return IP(src=OURS, dst=THEIRS) / TCP(sport=5000, dport=80, flags=flags, seq=sequence)


def received(flags: str = "A") -> Packet:
    return IP(src=THEIRS, dst=OURS) / TCP(sport=80, dport=5000, flags=flags)


def datagram() -> Packet:
    return IP(src=OURS, dst=THEIRS) / UDP(sport=5000, dport=80)


def local(ends: Ends) -> Process | None:
    """Return who the end on this host is said to be."""
    answer = ends[0] or ends[1]
    assert answer is not None
    return answer.process


def succeed(walk: Walk, first: Process, protocol: int = Protocol.TCP) -> Process:
    """End a process and let another one use its addresses and ports."""
    walk.host.end(first)
    second = walk.host.start("second")
    walk.host.open(second, CLIENT, SERVER, protocol=protocol)
    return second


@pytest.mark.parametrize("hears_ends", [True, False])
@pytest.mark.parametrize("gap_ms", [1, 100])
@pytest.mark.parametrize("age_ms", [10, 1000, 60_000])
def test_packets_both_ways_are_the_new_connections(clock: Clock, hears_ends: bool, gap_ms: float, age_ms: int) -> None:
    walk = Walk(clock, Host(clock, hears_ends=hears_ends))
    first = walk.host.start("first")
    walk.host.open(first, CLIENT, SERVER)
    for _ in range(20):
        ends = walk.see(sent(), received(), packet_type=[OUTGOING, INCOMING])
        assert [local(pair) for pair in ends] == [first, first]
        walk.clock.advance(age_ms / 20)
    second = succeed(walk, first)
    walk.clock.advance(gap_ms)
    for flags in ("S", "A", "A"):
        seen = [local(pair) for pair in walk.see(sent(flags), received(), packet_type=[OUTGOING, INCOMING])]
        assert set(seen) <= {second, None}
        walk.clock.advance(1)
    walk.clock.advance(LONG_MS)
    ends = walk.see(sent(), received(), packet_type=[OUTGOING, INCOMING])
    assert [local(pair) for pair in ends] == [second, second]


@pytest.mark.parametrize("hears_ends", [True, False])
def test_the_answer_to_the_syn_in_a_block_of_its_own_is_the_new_connections(clock: Clock, hears_ends: bool) -> None:
    walk = Walk(clock, Host(clock, hears_ends=hears_ends))
    first = walk.host.start("first")
    walk.host.open(first, CLIENT, SERVER)
    for _ in range(20):
        walk.see(sent(), received(), packet_type=[OUTGOING, INCOMING])
        walk.clock.advance(100)
    second = succeed(walk, first)
    walk.see(sent("S"))
    (answer,) = walk.see(received("SA"), packet_type=INCOMING)
    assert local(answer) in {second, None}


@pytest.mark.parametrize("hears_ends", [True, False])
@pytest.mark.parametrize("gap_ms", [0, 1])
def test_a_block_with_packets_of_both_names_neither_for_the_others(
    clock: Clock, hears_ends: bool, gap_ms: float
) -> None:
    """The last packets of the first connection and the SYN of the second come in one block: one flow, two owners.

    Without a gap the block's first packet was captured before the first connection was last asked for.
    """
    walk = Walk(clock, Host(clock, hears_ends=hears_ends))
    first = walk.host.start("first")
    walk.host.open(first, CLIENT, SERVER)
    walk.see(sent())
    walk.clock.advance(gap_ms)
    second = succeed(walk, first)
    old_data, reset, syn, new_data = walk.see(sent(), sent("R"), sent("S"), sent())
    assert {local(old_data), local(reset)} <= {first, None}
    assert {local(syn), local(new_data)} <= {second, None}


@pytest.mark.parametrize("hears_ends", [True, False])
def test_what_comes_and_goes_after_a_reset_is_not_the_answer_for_what_was_reset(clock: Clock, hears_ends: bool) -> None:
    """The second connection is open at the look for one way of the first, and over at the later look for the other."""
    walk = Walk(clock, Host(clock, hears_ends=hears_ends))
    first = walk.host.start("first")
    walk.host.open(first, CLIENT, SERVER)
    before, reset = walk.block([received()], INCOMING), walk.block([sent("R")])
    walk.clock.advance(1)
    second = succeed(walk, first)
    (of_reset,) = ends_of(walk.attributor.attribute(reset))
    walk.host.end(second)
    (of_before,) = ends_of(walk.attributor.attribute(before))
    assert {local(of_reset), local(of_before)} <= {first, None}


def test_the_answers_to_both_connections_in_one_block_name_neither_for_the_others(walk: Walk) -> None:
    """Two whole connections in one block: their other directions hold no SYN."""
    first = walk.host.start("first")
    walk.host.open(first, CLIENT, SERVER)
    opened, taken = walk.block([sent("S")]), walk.clock()
    flows = distinct_flows(opened, decode(opened, FragmentTable())).flows
    sightings = LookAhead(walk.host, walk.clock).sightings((flow, taken) for flow in flows)
    ways = [OUTGOING, INCOMING] * 4
    packets = [sent("S", 1), received("SA"), sent(), received(), sent("S", 2), received("SA"), sent(), received()]
    second = succeed(walk, first)
    walk.attributor.learn(sightings)
    seen = [local(ends) for ends in walk.see(*packets, packet_type=ways)]
    assert set(seen[:4]) <= {first, None}
    assert set(seen[4:]) <= {second, None}


def test_packets_after_a_syn_that_came_before_the_last_answer_was_learnt_are_not_the_former_owners(walk: Walk) -> None:
    """What was looked up for the first connection enters the index after the second one began, and is older."""
    first = walk.host.start("first")
    walk.host.open(first, CLIENT, SERVER)
    opened, taken = walk.block([sent("S", 1)]), walk.clock()
    flows = distinct_flows(opened, decode(opened, FragmentTable())).flows
    sightings = LookAhead(walk.host, walk.clock).sightings((flow, taken) for flow in flows)
    walk.host.end(first)
    walk.clock.advance(1)
    again = walk.block([sent("S", 2)])
    walk.clock.advance(1)
    walk.attributor.learn(sightings)
    walk.attributor.attribute(again)
    for ends in walk.see(received("SA"), sent(), packet_type=[INCOMING, OUTGOING]):
        assert local(ends) is None


def test_a_syn_that_is_sent_again_begins_nothing_new(walk: Walk) -> None:
    first = walk.host.start("first")
    walk.host.open(first, CLIENT, SERVER)
    seen = walk.see(sent("S", 1), sent("S", 1), received("SA"), packet_type=[OUTGOING, OUTGOING, INCOMING])
    assert [local(ends) for ends in seen] == [first] * 3


def test_a_syn_that_was_looked_up_ahead_does_not_take_older_packets(walk: Walk) -> None:
    """The look-up at the SYN overtakes the block with the last packets before it."""
    first = walk.host.start("first")
    walk.host.open(first, CLIENT, SERVER)
    walk.see(sent())
    late = walk.block([sent("R")])
    second = succeed(walk, first)
    syn, syn_ns = walk.block([sent("S")]), walk.clock()
    opened = distinct_flows(syn, decode(syn, FragmentTable())).flows
    walk.attributor.learn(LookAhead(walk.host, walk.clock).sightings((flow, syn_ns) for flow in opened))
    (of_late,) = ends_of(walk.attributor.attribute(late))
    assert local(of_late) in {first, None}
    walk.clock.advance(1)
    (of_syn,) = ends_of(walk.attributor.attribute(syn))
    assert local(of_syn) in {second, None}


def test_an_open_question_is_not_answered_with_who_came_later(walk: Walk) -> None:
    """A datagram whose sender was gone before it could be found; within the grace time its port is used again."""
    first = walk.host.start("first")
    walk.host.open(first, CLIENT, SERVER, protocol=Protocol.UDP)
    block = walk.block([datagram()])
    walk.host.end(first)
    attributed = walk.attributor.attribute(block)
    second = walk.host.start("second")
    walk.host.open(second, CLIENT, SERVER, protocol=Protocol.UDP)
    for _ in range(9):
        (ends,) = walk.later(attributed, 5)
        assert local(ends) is None
    walk.clock.advance(LONG_MS)
    assert local(walk.see(datagram())[0]) == second


def test_a_datagram_of_who_came_and_went_is_not_the_former_owners_before_the_notices_are_in(walk: Walk) -> None:
    """The kernel tells of the end of sockets from a work queue, so after the packets of the next one."""
    walk.host.notice_ms = 20
    first = walk.host.start("first")
    walk.host.open(first, CLIENT, SERVER, protocol=Protocol.UDP)
    assert local(walk.see(datagram())[0]) == first
    walk.clock.advance(10)
    second = succeed(walk, first, Protocol.UDP)
    block = walk.block([datagram()])
    walk.host.end(second)
    walk.clock.advance(1)
    attributed = walk.attributor.attribute(block)
    while attributed.pending:
        walk.attributor.index.drain()
        walk.later(attributed, 5)
    assert local(ends_of(attributed)[0]) in {second, None}


@pytest.mark.parametrize("notice_ms", [0, 15])
@pytest.mark.parametrize(("exits", "names"), [(True, True), (False, False)])
def test_the_last_datagrams_of_a_process_are_its_own_however_long_ago_it_was_looked_at(
    walk: Walk, exits: bool, names: bool, notice_ms: float
) -> None:
    """A socket that ends with its process was held by it all the time; else it may have been handed on since."""
    first = walk.host.start("first")
    socket = walk.host.open(first, CLIENT, SERVER, protocol=Protocol.UDP)
    for _ in range(30):
        assert local(walk.see(datagram())[0]) == first
        walk.clock.advance(200)
    walk.clock.advance(1500)
    block = walk.block([datagram()])
    walk.host.notice_ms = notice_ms
    if exits:
        walk.host.end(first)
        walk.attributor.learn((), [Exit(first.id, walk.clock() + NS_PER_MS)])
    else:
        walk.host.close(socket)
    walk.clock.advance(2)
    attributed = walk.attributor.attribute(block)
    for _ in range(10):
        walk.attributor.index.drain()
        walk.later(attributed, 5)
    assert (local(ends_of(attributed)[0]) == first) is names


@pytest.mark.parametrize("block_first", [True, False])
def test_what_was_looked_up_too_late_for_a_connection_is_not_its_answer(walk: Walk, block_first: bool) -> None:
    """The look for the first connection finds the socket of the second; the SYN of that one is heard right after."""
    opened, first_ns = walk.block([sent("S", 1)]), walk.clock()
    walk.clock.advance(1)
    second = walk.host.start("second")
    walk.host.open(second, CLIENT, SERVER)
    again, second_ns = walk.block([sent("S", 2)]), walk.clock()
    flows = distinct_flows(opened, decode(opened, FragmentTable())).flows
    look_ahead = LookAhead(walk.host, walk.clock)
    late = look_ahead.sightings((flow, first_ns) for flow in flows)
    heard = [(flow, second_ns) for flow in flows]
    sightings = [*still_theirs(late, heard), *look_ahead.sightings(heard)]
    if block_first:
        attributed = walk.attributor.attribute(opened)
        walk.attributor.revise(attributed, sightings)
    else:
        walk.attributor.learn(sightings)
        attributed = walk.attributor.attribute(opened)
    assert local(ends_of(attributed)[0]) is None
    assert local(ends_of(walk.attributor.attribute(again))[0]) in {second, None}


@pytest.mark.parametrize(("port", "names"), [(5000, False), (40000, True)])
def test_a_client_that_may_be_younger_than_its_packets_is_not_named_on_a_port_of_its_choice(
    walk: Walk, port: int, names: bool
) -> None:
    """The first user of the port was gone before it could be asked for; the second sends its SYN in the next block."""
    flow = IP(src=OURS, dst=THEIRS) / TCP(sport=port, dport=80)
    opened = walk.block([flow])
    walk.clock.advance(1)
    newborn = walk.host.start("newborn", age_ms=0)
    walk.host.open(newborn, (OURS, port), SERVER)
    ((source, _),) = ends_of(walk.attributor.attribute(opened))
    assert source is not None
    assert (source.process == newborn) is names


def test_what_was_seen_ahead_of_a_newborn_is_not_the_answer_for_older_packets(walk: Walk) -> None:
    """Two users of a port that they chose themselves: the look-up for the second overtakes the block of the first."""
    late = walk.block([datagram()])
    walk.clock.advance(20)
    newborn = walk.host.start("newborn", age_ms=0)
    walk.host.open(newborn, CLIENT, SERVER, protocol=Protocol.UDP)
    block, taken = walk.block([datagram()]), walk.clock()
    flows = distinct_flows(block, decode(block, FragmentTable())).flows
    walk.attributor.learn(LookAhead(walk.host, walk.clock).sightings((flow, taken) for flow in flows))
    (of_late,) = ends_of(walk.attributor.attribute(late))
    assert local(of_late) is None
