"""Processes that end while they are looked for: what was seen of them in time is not lost."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP
from scapy.packet import Packet

from attribution.host import query
from attribution.traffic import OURS, THEIRS, Ends, Walk, ends_of
from pktproc.attribution.lookahead import LookAhead, Sighting
from pktproc.model import Flow, PacketType, Process, Protocol, Reason
from pktproc.packets.decode import decode
from pktproc.packets.flows import distinct_flows
from pktproc.packets.fragments import FragmentTable

CLIENT, SERVER = (OURS, 40000), (THEIRS, 80)
WAYS = [PacketType.OUTGOING, PacketType.HOST]


def sent(flags: str = "A") -> Packet:
    return IP(src=OURS, dst=THEIRS) / TCP(sport=40000, dport=80, flags=flags)


def received(flags: str = "A") -> Packet:
    return IP(src=THEIRS, dst=OURS) / TCP(sport=80, dport=40000, flags=flags)


def sighted(walk: Walk) -> list[Sighting]:
    """Look ahead at a SYN of now."""
    batch = walk.block([sent("S")])
    flows: list[Flow] = distinct_flows(batch, decode(batch, FragmentTable())).flows
    return LookAhead(walk.host, walk.clock).sightings((flow, walk.clock()) for flow in flows)


def owners(ends: list[Ends]) -> list[Process | None]:
    """Return who the end on this host is said to be, packet by packet."""
    return [answer.process for pair in ends for answer in pair if answer is not None]


def test_what_was_seen_ahead_corrects_answers_that_came_too_late_for_both_directions(walk: Walk) -> None:
    client = walk.host.start("client")
    walk.host.open(client, CLIENT, SERVER)
    sightings = sighted(walk)
    block = walk.block([sent("S"), received("SA")], WAYS)
    walk.host.end(client)
    attributed = walk.attributor.attribute(block)
    assert owners(ends_of(attributed)) == [None, None]
    walk.attributor.learn(sightings)
    assert owners(walk.see(sent(), received(), packet_type=WAYS)) == [client, client]
    assert owners(walk.later(attributed, 5)) == [client, client]


def test_a_socket_that_loses_its_holder_while_it_is_looked_at_stays_its_last_owners(walk: Walk) -> None:
    """The socket was still there when it was asked for, and its process gone when it was looked for."""
    client = walk.host.start("client")
    walk.host.open(client, CLIENT, SERVER)
    walk.attributor.learn(sighted(walk))
    walk.host.private.add(client.pid)
    walk.clock.advance(10)
    block = walk.block([sent(), received()], WAYS)
    attributed = walk.attributor.attribute(block)
    assert {answer.final for pair in ends_of(attributed) for answer in pair if answer is not None} == {False}
    walk.host.end(client)
    assert owners(walk.later(attributed, 5)) == [client, client]
    assert owners(walk.see(sent("FA"), received("A"), packet_type=WAYS)) == [client, client]


@pytest.mark.parametrize("ms", [60, 1000])
def test_a_socket_that_long_had_no_holder_that_could_be_seen_is_not_its_former_owners(walk: Walk, ms: int) -> None:
    """Whoever it was passed to may not be inspected: its last packets are not the first owner's either."""
    client = walk.host.start("client")
    connection = walk.host.open(client, CLIENT, SERVER)
    walk.attributor.learn(sighted(walk))
    receiver = walk.host.start("receiver")
    walk.host.private.add(receiver.pid)
    walk.host.give(connection, receiver)
    walk.host.end(client)
    for _ in range(ms // 5):
        walk.see(sent(), received(), packet_type=WAYS)
        walk.clock.advance(4)
    walk.host.end(receiver)
    for ends in walk.see(sent("FA"), received("A"), packet_type=WAYS):
        (answer,) = (answer for answer in ends if answer is not None)
        assert answer.process is None
        assert answer.reason is not Reason.KERNEL


def test_the_last_word_on_a_lingering_socket_is_not_said_before_it_was_asked_for_twice(walk: Walk) -> None:
    client = walk.host.start("client")
    connection = walk.host.open(client, CLIENT, SERVER)
    walk.host.linger(connection)
    answer = walk.attributor.index.resolve([query(CLIENT, SERVER, protocol=Protocol.TCP)])[0]
    assert (answer.attribution.reason, answer.attribution.final) == (Reason.CLOSED, False)
