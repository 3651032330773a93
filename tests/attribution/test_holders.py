"""Who holds a socket: several, others than its creator, nobody, or somebody who may not be seen."""

from __future__ import annotations

import pytest

from attribution.asking import ask, ask_block, ask_opening, named, reason
from attribution.host import HOME, SYN_RECV, Clock, Host, query
from pktproc.attribution.index import ConnectionIndex
from pktproc.attribution.ownership import VERIFY_NS
from pktproc.model import Match, Protocol, Reason

SERVER = ("10.77.0.2", 80)
CLIENT = ("10.77.0.1", 40000)
UDP = Protocol.UDP
ASKED = query(CLIENT, SERVER, outgoing=True)
SERVED = query(SERVER, CLIENT)


def test_all_holders_of_a_shared_socket_are_reported_the_eldest_first(host: Host, index: ConnectionIndex) -> None:
    parent = host.start("prefork")
    host.open(parent, SERVER, protocol=UDP)
    children = tuple(host.fork(parent) for _ in range(3))
    answer = ask(index, query(SERVER, CLIENT, protocol=UDP))
    assert named(answer) == (parent, Match.SHARED)
    assert answer.holders == (parent, *children)


def test_two_sockets_of_different_owners_that_fit_equally_well_are_ambiguous(
    host: Host, index: ConnectionIndex
) -> None:
    owners = [host.start(name) for name in ("one", "other")]
    for owner in owners:
        host.open(owner, SERVER, protocol=UDP)
    answer = ask(index, query(SERVER, CLIENT, protocol=UDP))
    assert reason(answer) == (Reason.AMBIGUOUS, True)
    assert set(answer.holders) == set(owners)


def test_two_sockets_of_one_owner_are_its_own(host: Host, index: ConnectionIndex) -> None:
    owner = host.start("one")
    for _ in range(2):
        host.open(owner, SERVER, protocol=UDP)
    assert named(ask(index, query(SERVER, CLIENT, protocol=UDP))) == (owner, Match.BOUND)


def test_multicast_goes_to_all_of_its_receivers(host: Host, index: ConnectionIndex) -> None:
    receivers = tuple(host.start(name) for name in ("one", "other"))
    for receiver in receivers:
        host.open(receiver, ("0.0.0.0", 5353), protocol=UDP)
    answer = ask(index, query(("224.0.0.251", 5353), CLIENT, protocol=UDP, fan_out=True))
    assert named(answer) == (receivers[0], Match.SHARED)
    assert answer.holders == receivers


def test_a_passed_socket_is_its_receivers_once_the_creator_is_gone(
    host: Host, index: ConnectionIndex, clock: Clock
) -> None:
    creator, receiver = host.start("creator"), host.start("receiver")
    connection = host.open(creator, CLIENT, SERVER)
    assert named(ask(index, ASKED)) == (creator, Match.EXACT)
    host.give(connection, receiver)
    host.end(creator)
    clock.advance(6)
    assert named(ask(index, ASKED)) == (receiver, Match.EXACT)


def test_a_passed_socket_is_never_the_former_holders_while_looks_are_paused(clock: Clock) -> None:
    """The socket lives, so somebody holds it; who that is remains open until the next look at everyone."""
    host = Host(clock, scan_ms=200)
    index = ConnectionIndex(host, clock, clock.wall_ns)
    creator, receiver = host.start("creator"), host.start("receiver")
    connection = host.open(creator, CLIENT, SERVER)
    assert named(ask(index, ASKED)) == (creator, Match.EXACT)
    host.give(connection, receiver)
    host.end(creator)
    clock.advance(10)
    answer = ask(index, ASKED)
    assert answer.process != creator
    clock.advance(3000)
    assert named(ask(index, ASKED)) == (receiver, Match.EXACT)


def test_a_socket_that_an_old_process_was_given_is_found_to_be_shared_in_time(
    host: Host, index: ConnectionIndex, clock: Clock
) -> None:
    creator, receiver = host.start("creator"), host.start("receiver")
    connection = host.open(creator, CLIENT, SERVER)
    assert named(ask(index, ASKED)) == (creator, Match.EXACT)
    host.give(connection, receiver)
    clock.advance(VERIFY_NS / 1_000_000 + 1)
    ask(index, ASKED)
    clock.advance(3000)
    answer = ask(index, ASKED)
    assert named(answer) == (creator, Match.SHARED)
    assert answer.holders == (creator, receiver)


def test_a_connection_is_the_listeners_until_it_is_accepted(host: Host, index: ConnectionIndex, clock: Clock) -> None:
    server = host.start("server")
    host.open(server, ("0.0.0.0", 80))
    assert named(ask_opening(index, SERVED, clock)) == (server, Match.LISTENER)
    connection = host.open(None, SERVER, CLIENT, state=SYN_RECV, accepted=False)
    clock.advance(6)
    assert named(ask(index, SERVED)) == (server, Match.LISTENER)
    host.accept(connection, server)
    clock.advance(6)
    assert named(ask(index, SERVED)) == (server, Match.EXACT)


def test_a_connection_in_the_backlog_of_a_prefork_server_is_all_workers(
    host: Host, index: ConnectionIndex, clock: Clock
) -> None:
    parent = host.start("prefork")
    host.open(parent, SERVER)
    workers = [host.fork(parent) for _ in range(2)]
    answer = ask_opening(index, SERVED, clock)
    assert named(answer) == (parent, Match.SHARED)
    assert answer.holders == (parent, *workers)
    assert not answer.final
    connection = host.open(None, SERVER, CLIENT, state=SYN_RECV, accepted=False)
    host.accept(connection, workers[1])
    clock.advance(6)
    assert named(ask(index, SERVED)) == (workers[1], Match.EXACT)


def test_a_connection_handed_to_a_child_is_the_childs(host: Host, index: ConnectionIndex, clock: Clock) -> None:
    parent = host.start("forking")
    listener = host.open(parent, SERVER)
    index.warm([HOME])
    connection = host.open(parent, SERVER, CLIENT)
    assert named(ask(index, SERVED)) == (parent, Match.EXACT)
    child = host.fork(parent, "child")
    host.drop(listener, child)
    clock.advance(6)
    assert named(ask(index, SERVED)) == (parent, Match.SHARED)
    host.drop(connection, parent)
    clock.advance(20)
    assert named(ask(index, SERVED)) == (child, Match.EXACT)


def test_a_missed_connection_of_a_forking_server_is_not_given_to_the_parent(
    host: Host, index: ConnectionIndex, clock: Clock
) -> None:
    """Children were seen to serve the port; the connection was over before it could be asked for."""
    parent = host.start("forking")
    listener = host.open(parent, SERVER)
    for number in range(3):
        end = (CLIENT[0], 50000 + number)
        child = host.fork(parent, "child")
        host.drop(listener, child)
        connection = host.open(child, SERVER, end)
        assert named(ask(index, query(SERVER, end))) == (child, Match.EXACT)
        host.linger(connection)
        host.end(child)
        clock.advance(10)
    assert reason(ask(index, SERVED))[0] is Reason.CLOSED


def test_a_missed_connection_of_a_server_that_is_alone_is_its_own(
    host: Host, index: ConnectionIndex, clock: Clock
) -> None:
    server = host.start("server")
    host.open(server, SERVER)
    other = (CLIENT[0], 50000)
    host.open(server, SERVER, other)
    assert named(ask(index, query(SERVER, other))) == (server, Match.EXACT)
    clock.advance(10)
    assert named(ask(index, SERVED)) == (server, Match.LISTENER)


def test_a_socket_that_two_looks_find_with_nobody_is_the_kernels(
    host: Host, index: ConnectionIndex, clock: Clock
) -> None:
    host.open(None, SERVER, protocol=UDP)
    host.start("bystander")
    asked = query(SERVER, CLIENT, protocol=UDP)
    assert reason(ask(index, asked)) == (Reason.CLOSED, False)
    clock.advance(300)
    assert reason(ask(index, asked)) == (Reason.KERNEL, True)


def test_what_may_not_be_inspected_is_said_so(host: Host, index: ConnectionIndex) -> None:
    secret, mine = host.start("secret"), host.start("mine")
    host.private.add(secret.pid)
    host.open(secret, CLIENT, SERVER)
    other = (CLIENT[0], 40001)
    host.open(mine, other, SERVER)
    hidden, seen = ask_block(index, [ASKED, query(other, SERVER, outgoing=True)])
    assert reason(hidden) == (Reason.PERMISSION, True)
    assert named(seen) == (mine, Match.EXACT)


@pytest.mark.parametrize("protocol", [Protocol.TCP, UDP])
def test_protocols_and_namespaces_never_mix(host: Host, index: ConnectionIndex, protocol: int) -> None:
    """The same loopback tuple in two namespaces, and TCP and UDP on one port."""
    ends = ("127.0.0.1", 40000), ("127.0.0.1", 80)
    owners = {
        (netns, kind): host.start(f"{netns}-{kind}") for netns in (HOME, HOME + 1) for kind in (Protocol.TCP, UDP)
    }
    for (netns, kind), owner in owners.items():
        host.open(owner, *ends, protocol=kind, netns=netns)
    for netns in (HOME, HOME + 1):
        asked = query(*ends, protocol=protocol, netns=netns, outgoing=True)
        assert named(ask(index, asked)) == (owners[netns, Protocol(protocol)], Match.EXACT)
