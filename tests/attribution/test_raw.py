"""Raw sockets, which nothing ties to a packet but its protocol: an echo id that is a pid, or patience."""

from __future__ import annotations

from dataclasses import replace

import pytest

from attribution.asking import ask, named, reason, until_settled
from attribution.host import NS_PER_MS, Clock, Host, query
from pktproc.attribution.index import ConnectionIndex
from pktproc.model import Match, Protocol, Reason

OURS, THEIRS = "10.77.0.1", "10.77.0.2"
ICMP, OSPF = Protocol.ICMP, 89


def test_an_echo_is_the_pings_whose_pid_is_its_id(host: Host, index: ConnectionIndex) -> None:
    pings = [host.start("ping", pid=pid) for pid in (4711, 70_000)]
    for ping in pings:
        host.open(ping, ("0.0.0.0", ICMP), protocol=ICMP, raw=True)
    for ping in pings:
        asked = query((OURS, ping.pid & 0xFFFF), (THEIRS, 0), protocol=ICMP, outgoing=True)
        assert named(ask(index, asked)) == (ping, Match.BOUND)


def test_the_echo_of_an_unknown_id_is_not_given_to_a_bystander_at_once(
    host: Host, index: ConnectionIndex, clock: Clock
) -> None:
    tracer = host.start("tracer", pid=4711)
    host.open(tracer, ("0.0.0.0", ICMP), protocol=ICMP, raw=True)
    asked = query((OURS, 99), (THEIRS, 0), protocol=ICMP, outgoing=True)
    assert reason(ask(index, asked)) == (Reason.AMBIGUOUS, False)
    for _ in range(8):
        clock.advance(100)
        answer = ask(index, asked)
    assert named(answer) == (tracer, Match.BOUND)


def test_the_echo_of_an_unknown_id_stays_ambiguous_among_several(
    host: Host, index: ConnectionIndex, clock: Clock
) -> None:
    for pid in (4711, 4712):
        host.open(host.start("tracer", pid=pid), ("0.0.0.0", ICMP), protocol=ICMP, raw=True)
    asked = query((OURS, 99), (THEIRS, 0), protocol=ICMP, outgoing=True)
    assert reason(until_settled(index, asked, clock))[0] is Reason.AMBIGUOUS


def test_a_ping_that_ended_leaves_its_echo_to_nobody_else(host: Host, index: ConnectionIndex, clock: Clock) -> None:
    """A monitor keeps a raw socket; pings come and go."""
    monitor, ping = host.start("monitor", pid=4711), host.start("ping", pid=99)
    host.open(monitor, ("0.0.0.0", ICMP), protocol=ICMP, raw=True)
    host.open(ping, ("0.0.0.0", ICMP), protocol=ICMP, raw=True)
    asked = query((OURS, 99), (THEIRS, 0), protocol=ICMP, outgoing=True)
    began_ns = clock()
    while host.asked < 8:
        clock.advance(1)
        assert named(ask(index, asked)) == (ping, Match.BOUND)
    age_ms = (clock() - began_ns) / NS_PER_MS
    clock.advance(age_ms - 1)  # the answer is kept until its age has doubled
    host.end(ping)
    clock.advance(2)
    assert ask(index, asked).process != monitor
    assert host.asked == 9


def test_the_only_user_of_another_protocol_is_its_sender(host: Host, index: ConnectionIndex) -> None:
    router = host.start("ospfd")
    host.open(router, ("0.0.0.0", OSPF), protocol=OSPF, raw=True)
    host.open(host.start("other"), ("0.0.0.0", 112), protocol=112, raw=True)
    asked = query((OURS, 0), (THEIRS, 0), protocol=OSPF, outgoing=True)
    assert named(ask(index, asked)) == (router, Match.BOUND)


def test_several_users_of_another_protocol_are_candidates(host: Host, index: ConnectionIndex) -> None:
    routers = [host.start("ospfd"), host.start("bird")]
    for router in routers:
        host.open(router, ("0.0.0.0", OSPF), protocol=OSPF, raw=True)
    answer = ask(index, query((OURS, 0), (THEIRS, 0), protocol=OSPF, outgoing=True))
    assert reason(answer)[0] is Reason.AMBIGUOUS
    assert set(answer.holders) == set(routers)


def test_a_ping_socket_beats_raw_ones(host: Host, index: ConnectionIndex) -> None:
    """A ping socket has the id as its port; a raw listener merely hears everything."""
    listener, ping = host.start("listener"), host.start("ping")
    host.open(listener, ("0.0.0.0", ICMP), protocol=ICMP, raw=True)
    host.open(ping, (OURS, 77), protocol=ICMP)
    asked = query((OURS, 77), (THEIRS, 0), protocol=ICMP, outgoing=True)
    assert named(ask(index, asked)) == (ping, Match.BOUND)


def test_who_could_have_made_a_packet_up_is_a_candidate_and_no_more(host: Host, index: ConnectionIndex) -> None:
    injector, bystander = host.start("injector"), host.start("bystander")
    host.open(injector, ("::", 3), protocol=-1, raw=True)
    host.open(bystander, (OURS, 40000), (THEIRS, 80))
    sender, receiver = (query((OURS, 9), (THEIRS, 9), protocol=Protocol.UDP, outgoing=way) for way in (True, False))
    assert reason(ask(index, sender))[0] is reason(ask(index, receiver))[0] is Reason.NO_SOCKET
    assert ask(index, sender).holders == (injector,)
    assert ask(index, receiver).holders == ()


@pytest.mark.parametrize("name", ["pktproc", "python3"])
def test_another_pktproc_which_only_reads_is_no_candidate(host: Host, index: ConnectionIndex, name: str) -> None:
    injector, other = host.start("injector"), host.start(name)
    called = replace(other, cmdline=("/usr/bin/python3", "-m", "pktproc", "sniff"))
    for holder in (injector, other if name == "pktproc" else host.become(called)):
        host.open(holder, ("::", 3), protocol=-1, raw=True)
    sender = query((OURS, 9), (THEIRS, 9), protocol=Protocol.UDP, outgoing=True)
    assert ask(index, sender).holders == (injector,)
