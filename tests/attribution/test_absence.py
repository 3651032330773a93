"""That there was no socket is said only where none can have come and gone before it was asked for."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet

from attribution.asking import reason
from attribution.host import Clock, Host
from attribution.traffic import OURS, THEIRS, Walk, ends_of
from pktproc.model import Protocol, Reason

DATAGRAM = IP(src=OURS, dst=THEIRS) / UDP(sport=5001, dport=53)
SEGMENT = IP(src=OURS, dst=THEIRS) / TCP(sport=5001, dport=80, flags="A")
CONNECTED = ((OURS, 5001), (THEIRS, 53))
UNCONNECTED = (("0.0.0.0", 5001), None)


def late(walk: Walk, packet: Packet, ms: float) -> Reason | None:
    """Return why the sender of a packet is not named that is looked at late."""
    block = walk.block([packet])
    walk.clock.advance(ms)
    ((source, _),) = ends_of(walk.attributor.attribute(block))
    return reason(source)[0]


@pytest.mark.parametrize("packet", [DATAGRAM, SEGMENT], ids=["udp", "tcp"])
@pytest.mark.parametrize("ms", [1, 300])
def test_where_ends_are_heard_and_none_came_there_was_no_socket(walk: Walk, packet: Packet, ms: float) -> None:
    assert late(walk, packet, ms) is Reason.NO_SOCKET


@pytest.mark.parametrize("ends", [CONNECTED, UNCONNECTED], ids=["connected", "unconnected"])
@pytest.mark.parametrize("ms", [1, 300])
def test_a_socket_that_came_and_went_unseen_is_closed_however_late_the_look(
    walk: Walk, ends: tuple[tuple[str, int], tuple[str, int] | None], ms: float
) -> None:
    block = walk.block([DATAGRAM])
    walk.clock.advance(1)
    walk.host.close(walk.host.open(walk.host.start("dig"), *ends, protocol=Protocol.UDP))
    walk.attributor.index.drain()
    walk.clock.advance(ms)
    ((source, _),) = ends_of(walk.attributor.attribute(block))
    assert reason(source)[0] is Reason.CLOSED


def test_what_was_said_before_a_socket_came_and_went_is_not_said_again(walk: Walk) -> None:
    assert late(walk, DATAGRAM, 1) is Reason.NO_SOCKET
    walk.host.close(walk.host.open(walk.host.start("dig"), ("0.0.0.0", 5001), protocol=Protocol.UDP))
    assert late(walk, DATAGRAM, 0.1) is Reason.CLOSED


def test_a_socket_that_ended_before_the_packet_was_not_its(walk: Walk) -> None:
    walk.host.close(walk.host.open(walk.host.start("dig"), *CONNECTED, protocol=Protocol.UDP))
    walk.attributor.index.drain()
    walk.clock.advance(200)
    assert late(walk, DATAGRAM, 5) is Reason.NO_SOCKET


def test_where_notices_were_lost_nothing_is_sure(walk: Walk) -> None:
    block = walk.block([DATAGRAM])
    walk.clock.advance(1)
    walk.host.lost = True
    walk.attributor.index.drain()
    ((source, _),) = ends_of(walk.attributor.attribute(block))
    assert reason(source)[0] is Reason.CLOSED


def test_an_engine_without_notices_cannot_tell(deaf: Host, clock: Clock) -> None:
    assert late(Walk(clock, deaf), DATAGRAM, 1) is Reason.CLOSED


@pytest.mark.parametrize("ms", [30, 300])
def test_an_answer_after_a_while_to_a_resolver_that_ends_with_it_is_the_resolvers(walk: Walk, ms: float) -> None:
    dig = walk.host.start("dig")
    socket = walk.host.open(dig, *CONNECTED, protocol=Protocol.UDP)
    ((source, _),) = walk.see(DATAGRAM)
    assert source is not None
    assert source.process == dig
    walk.clock.advance(ms)
    block = walk.block([DATAGRAM])
    walk.host.close(socket)
    walk.clock.advance(20)
    ((source, _),) = ends_of(walk.attributor.attribute(block))
    assert source is not None
    assert source.process == dig


def test_an_end_of_which_the_notice_comes_late_is_waited_for(walk: Walk) -> None:
    dig = walk.host.start("dig")
    socket = walk.host.open(dig, *CONNECTED, protocol=Protocol.UDP)
    walk.see(DATAGRAM)
    walk.clock.advance(100)
    block = walk.block([DATAGRAM])
    walk.host.close(socket)
    late_notice = walk.host.ended()
    attributed = walk.attributor.attribute(block)
    ((source, _),) = ends_of(attributed)
    assert reason(source) == (Reason.CLOSED, False)
    walk.attributor.index.endings.note(late_notice.sockets)
    ((source, _),) = walk.later(attributed, 10)
    assert source is not None
    assert source.process == dig
