"""A fact is true during an interval: ends of sockets, and addresses and pids that are used again."""

from __future__ import annotations

import pytest

from attribution.asking import ask, ask_block, ask_opening, named, reason, until_settled
from attribution.host import CLOSE, HOME, TIME_WAIT, Clock, End, Host, query
from pktproc.attribution.engine import Query
from pktproc.attribution.index import ConnectionIndex
from pktproc.model import Match, Protocol, Reason

SERVER = ("10.77.0.2", 80)
CLIENT = ("10.77.0.1", 40000)
UDP = Protocol.UDP
ASKED = query(CLIENT, SERVER, outgoing=True)
REPLY = query(CLIENT, SERVER)
LONG_MS = 100.0
DATAGRAM = query(CLIENT, SERVER, protocol=UDP, outgoing=True)
OUTGOING = pytest.mark.parametrize("asked", [ASKED, REPLY], ids=["outgoing", "incoming"])


@OUTGOING
def test_the_last_packets_of_a_connection_keep_their_name(
    host: Host, index: ConnectionIndex, clock: Clock, asked: Query
) -> None:
    curl = host.start("curl")
    connection = host.open(curl, CLIENT, SERVER)
    assert named(ask(index, asked)) == (curl, Match.EXACT)
    host.linger(connection)
    host.end(curl)
    for _ in range(60):
        clock.advance(1000)
        assert named(ask(index, asked)) == (curl, Match.EXACT)
    host.expire(connection)
    clock.advance(10)
    assert named(ask(index, asked)) == (curl, Match.EXACT)


def test_a_connection_known_from_the_start_is_named_after_its_end(
    host: Host, index: ConnectionIndex, clock: Clock
) -> None:
    """It was never asked for while somebody held it; its cookie tells."""
    curl = host.start("curl")
    connection = host.open(curl, CLIENT, SERVER)
    index.warm([HOME])
    clock.advance(1000)
    host.linger(connection)
    host.end(curl)
    assert named(ask(index, ASKED)) == (curl, Match.EXACT)


def test_a_connection_that_nobody_was_seen_to_hold_has_no_owner(host: Host, index: ConnectionIndex) -> None:
    curl = host.start("curl")
    connection = host.open(curl, CLIENT, SERVER)
    host.linger(connection)
    host.end(curl)
    assert reason(ask(index, ASKED))[0] is Reason.CLOSED


def test_without_cookies_the_last_packets_of_a_connection_keep_their_name(deaf: Host, clock: Clock) -> None:
    index = ConnectionIndex(deaf, clock, clock.wall_ns)
    curl = deaf.start("curl")
    connection = deaf.open(curl, CLIENT, SERVER)
    assert named(ask(index, ASKED)) == (curl, Match.EXACT)
    deaf.linger(connection)
    deaf.end(curl)
    clock.advance(50)
    assert named(ask(index, ASKED)) == (curl, Match.EXACT)
    deaf.expire(connection)
    clock.advance(50)
    assert named(ask(index, ASKED)) == (curl, Match.EXACT)


@pytest.mark.parametrize("hears_ends", [True, False])
@pytest.mark.parametrize("gap_ms", [0.1, 1, 10, 100])
@pytest.mark.parametrize("age_ms", [1, 100, 10_000])
def test_a_syn_voids_what_was_known_of_its_ports(clock: Clock, hears_ends: bool, age_ms: int, gap_ms: float) -> None:
    host = Host(clock, hears_ends=hears_ends)
    index = ConnectionIndex(host, clock, clock.wall_ns)
    first = host.start("first")
    connection = host.open(first, CLIENT, SERVER)
    for _ in range(20):
        assert named(ask(index, ASKED)) == (first, Match.EXACT)
        clock.advance(age_ms / 20)
    host.close(connection)
    host.end(first)
    index.drain()
    clock.advance(gap_ms)
    second = host.start("second")
    host.open(second, CLIENT, SERVER)
    answer = ask_opening(index, ASKED, clock)
    if gap_ms == LONG_MS or not hears_ends:
        assert named(answer) == (second, Match.EXACT)
    assert answer.process in {second, None}
    clock.advance(LONG_MS)
    assert named(ask(index, ASKED)) == (second, Match.EXACT)


def test_a_syn_that_was_looked_up_at_once_is_not_asked_for_again(
    host: Host, index: ConnectionIndex, clock: Clock
) -> None:
    """The block comes a millisecond later; the process may be gone by then."""
    syn_ns = clock()
    clock.advance(0.1)
    curl = host.start("curl")
    connection = host.open(curl, CLIENT, SERVER)
    assert named(ask_block(index, [ASKED], opened=[ASKED], at_ns=clock())[0]) == (curl, Match.EXACT)
    host.close(connection)
    host.end(curl)
    clock.advance(1)
    assert named(ask_block(index, [ASKED], opened=[ASKED], at_ns=syn_ns)[0]) == (curl, Match.EXACT)


@pytest.mark.parametrize("remote", [None, SERVER], ids=["bound", "connected"])
@pytest.mark.parametrize("gap_ms", [0, 1, 10, 100])
def test_a_datagram_is_never_given_to_the_former_user_of_its_port(
    host: Host, index: ConnectionIndex, clock: Clock, gap_ms: float, remote: End | None
) -> None:
    """Right after the end, datagrams of both may be in the block: then it is nobody's. Later they are the second's."""
    first = host.start("first")
    socket = host.open(first, CLIENT, remote, protocol=UDP)
    for _ in range(3000):
        assert named(ask(index, DATAGRAM))[0] == first
        clock.advance(1)
    host.close(socket)
    index.drain()
    clock.advance(gap_ms)
    second = host.start("second")
    host.open(second, CLIENT, remote, protocol=UDP)
    answer = ask(index, DATAGRAM)
    if gap_ms == LONG_MS:
        assert named(answer)[0] == second
    else:
        assert reason(answer)[0] is Reason.AMBIGUOUS
    clock.advance(LONG_MS)
    assert named(ask(index, DATAGRAM))[0] == second


def test_the_end_of_a_datagram_socket_leaves_nobody(host: Host, index: ConnectionIndex, clock: Clock) -> None:
    socket = host.open(host.start("first"), CLIENT, protocol=UDP)
    ask(index, DATAGRAM)
    host.close(socket)
    index.drain()
    clock.advance(LONG_MS)
    assert reason(ask(index, DATAGRAM)) == (Reason.CLOSED, False)


def test_the_last_datagrams_come_right_after_the_end_is_heard(host: Host, index: ConnectionIndex, clock: Clock) -> None:
    resolver = host.start("resolver")
    socket = host.open(resolver, CLIENT, SERVER, protocol=UDP)
    assert named(ask(index, DATAGRAM)) == (resolver, Match.EXACT)
    clock.advance(1)
    host.close(socket)
    assert named(ask(index, DATAGRAM)) == (resolver, Match.EXACT)


def test_the_last_datagrams_of_two_that_used_a_port_one_after_the_other_are_nobodys(
    host: Host, index: ConnectionIndex, clock: Clock
) -> None:
    """Both are gone, only the first was ever asked for: the packets may be either's."""
    for name in ("first", "second"):
        process = host.start(name)
        socket = host.open(process, CLIENT, SERVER, protocol=UDP)
        if name == "first":
            assert named(ask(index, DATAGRAM)) == (process, Match.EXACT)
        clock.advance(1)
        host.close(socket)
    assert ask(index, DATAGRAM).process is None


def test_a_process_that_opens_its_port_anew_is_not_ambiguous(host: Host, index: ConnectionIndex) -> None:
    resolver = host.start("resolver")
    socket = host.open(resolver, CLIENT, protocol=UDP)
    ask(index, DATAGRAM)
    host.close(socket)
    host.open(resolver, CLIENT, protocol=UDP)
    assert named(ask(index, DATAGRAM)) == (resolver, Match.BOUND)


def test_a_pid_that_is_used_again_is_another_process(host: Host, index: ConnectionIndex, clock: Clock) -> None:
    first = host.start("first", pid=77)
    connection = host.open(first, CLIENT, SERVER)
    assert named(ask(index, ASKED)) == (first, Match.EXACT)
    host.linger(connection)
    host.end(first)
    other_end = ("10.77.0.1", 40001)
    second = host.start("second", pid=77)
    host.open(second, other_end, SERVER)
    clock.advance(10)
    assert named(ask(index, ASKED)) == (first, Match.EXACT)
    assert named(ask(index, query(other_end, SERVER))) == (second, Match.EXACT)


@pytest.mark.parametrize("state", [TIME_WAIT, CLOSE])
def test_a_lingering_tuple_is_not_given_to_whoever_listens_on_the_port(
    host: Host, index: ConnectionIndex, clock: Clock, state: int
) -> None:
    """A worker served the connection and is gone; the parent listens and never had it."""
    parent = host.start("parent")
    host.open(parent, SERVER)
    worker = host.start("worker")
    connection = host.open(worker, SERVER, CLIENT)
    asked = query(SERVER, CLIENT)
    assert named(ask(index, asked)) == (worker, Match.EXACT)
    host.linger(connection, state)
    host.end(worker)
    clock.advance(10)
    assert named(until_settled(index, asked, clock)) == (worker, Match.EXACT)
