"""ICMP: echoes belong to pings, errors to whom they are about, and what the kernel says by itself to nobody."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, ICMPv6ND_NS, IPv6
from scapy.packet import Packet

from attribution.asking import named, reason
from attribution.traffic import OURS, OURS6, THEIRS, THEIRS6, Walk
from pktproc.model import Match, PacketType, Protocol, Reason

INCOMING, OUTGOING = PacketType.HOST, PacketType.OUTGOING
ECHO_ID = 4711


def echo(version: int, *, reply: bool, outgoing: bool) -> Packet:
    ours, theirs = (OURS, THEIRS) if version == 4 else (OURS6, THEIRS6)
    source, destination = (ours, theirs) if outgoing else (theirs, ours)
    if version == 4:
        return IP(src=source, dst=destination) / ICMP(type=0 if reply else 8, id=ECHO_ID)
    message = ICMPv6EchoReply if reply else ICMPv6EchoRequest
    return IPv6(src=source, dst=destination) / message(id=ECHO_ID)


def ping(walk: Walk, version: int, *, raw: bool) -> object:
    protocol = Protocol.ICMP if version == 4 else Protocol.ICMPV6
    process = walk.host.start("ping", pid=ECHO_ID if raw else None)
    local = ("0.0.0.0" if version == 4 else "::", protocol if raw else ECHO_ID)
    walk.host.open(process, local, protocol=protocol, raw=raw)
    return process


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("raw", [True, False])
def test_a_ping_sends_requests_and_takes_replies(walk: Walk, version: int, raw: bool) -> None:
    process = ping(walk, version, raw=raw)
    request, answer = walk.see(
        echo(version, reply=False, outgoing=True),
        echo(version, reply=True, outgoing=False),
        packet_type=[OUTGOING, INCOMING],
    )
    assert (named(request[0]), request[1]) == ((process, Match.BOUND), None)
    assert (answer[0], named(answer[1])) == (None, (process, Match.BOUND))


@pytest.mark.parametrize("version", [4, 6])
def test_the_kernel_answers_echoes_whoever_pings_with_the_same_id(walk: Walk, version: int) -> None:
    ping(walk, version, raw=True)
    request, answer = walk.see(
        echo(version, reply=False, outgoing=False),
        echo(version, reply=True, outgoing=True),
        packet_type=[INCOMING, OUTGOING],
    )
    assert (request[0], reason(request[1])) == (None, (Reason.KERNEL, True))
    assert (reason(answer[0]), answer[1]) == ((Reason.KERNEL, True), None)


def test_an_echo_of_which_no_socket_is_left_may_have_had_one(walk: Walk) -> None:
    """The kernel does not tell of the ends of raw and ping sockets."""
    ((source, _),) = walk.see(echo(4, reply=False, outgoing=True))
    assert reason(source)[0] is Reason.CLOSED


def about(version: int, sender: Packet) -> Packet:
    """Return the error that THEIRS sends about a packet."""
    if version == 4:
        return IP(src=THEIRS, dst=OURS) / ICMP(type=3, code=3) / sender
    return IPv6(src=THEIRS6, dst=OURS6) / ICMPv6DestUnreach(code=4) / sender


@pytest.mark.parametrize("version", [4, 6])
def test_an_error_is_for_the_process_whose_packet_it_quotes(walk: Walk, version: int) -> None:
    ours, theirs = (OURS, THEIRS) if version == 4 else (OURS6, THEIRS6)
    network = IP if version == 4 else IPv6
    client, bystander = walk.host.start("client"), walk.host.start("bystander")
    walk.host.open(client, (ours, 5000), (theirs, 53), protocol=Protocol.UDP)
    walk.host.open(bystander, (ours, 53), protocol=Protocol.UDP)
    quoted = network(src=ours, dst=theirs) / UDP(sport=5000, dport=53)
    ((source, destination),) = walk.see(about(version, quoted), packet_type=INCOMING)
    assert source is None
    assert named(destination) == (client, Match.EXACT)


def test_two_errors_are_for_two_processes(walk: Walk) -> None:
    clients = []
    errors = []
    for port in (5000, 5001):
        clients.append(walk.host.start("client"))
        walk.host.open(clients[-1], (OURS, port), (THEIRS, 80))
        errors.append(about(4, IP(src=OURS, dst=THEIRS) / TCP(sport=port, dport=80)))
    ends = walk.see(*errors, packet_type=INCOMING)
    assert [named(destination)[0] for _, destination in ends] == clients


def test_an_error_about_a_ping_is_for_the_ping(walk: Walk) -> None:
    process = ping(walk, 4, raw=True)
    error = about(4, echo(4, reply=False, outgoing=True))
    ((_, destination),) = walk.see(error, packet_type=INCOMING)
    assert named(destination) == (process, Match.BOUND)


@pytest.mark.parametrize("listener", [True, False])
def test_an_error_that_we_send_is_the_kernels(walk: Walk, listener: bool) -> None:
    """A raw socket that hears ICMP sends none of it."""
    if listener:
        walk.host.open(walk.host.start("listener"), ("0.0.0.0", 1), protocol=Protocol.ICMP, raw=True)
    quoted = IP(src=THEIRS, dst=OURS) / UDP(sport=53, dport=5000)
    ((source, destination),) = walk.see(IP(src=OURS, dst=THEIRS) / ICMP(type=3, code=3) / quoted)
    assert reason(source) == (Reason.KERNEL, True)
    assert destination is None


@pytest.mark.parametrize(
    "packet",
    [
        IP(src=OURS, dst="224.0.0.22", proto=2) / b"\x22\0\0\0\0\0\0\0",
        IPv6(src="fe80::1", dst="ff02::1:ff00:2") / ICMPv6ND_NS(tgt=THEIRS6),
        IP(src=OURS, dst=THEIRS, proto=47) / b"\0\0\x08\0",
    ],
    ids=["IGMP", "neighbour solicitation", "GRE"],
)
def test_what_the_kernel_sends_on_its_own_account_is_its_own(walk: Walk, packet: Packet) -> None:
    ((source, _),) = walk.see(packet)
    assert reason(source)[0] is Reason.KERNEL
