"""How often the engine is asked: on a miss, when an answer is too old, and no more than that."""

from __future__ import annotations

import itertools

import pytest

from attribution.asking import ask, ask_block, named, reason
from attribution.host import HOME, NS_PER_MS, NS_PER_S, Clock, Host, query
from pktproc.attribution import lifetimes, ownership
from pktproc.attribution.index import ConnectionIndex
from pktproc.model import Match, Protocol, Reason

SERVER = ("10.77.0.2", 80)
CLIENT = ("10.77.0.1", 40000)
UDP = Protocol.UDP


def test_an_answer_is_kept_for_the_packets_that_follow_at_once(host: Host, index: ConnectionIndex) -> None:
    curl = host.start("curl")
    host.open(curl, CLIENT, SERVER)
    asked = query(CLIENT, SERVER, outgoing=True)
    for _ in range(10):
        assert named(ask(index, asked)) == (curl, Match.EXACT)
    assert host.asked == 1
    assert (index.counts["misses"], index.counts["hits"]) == (1, 9)


def test_a_query_that_is_twice_in_a_block_is_asked_once(host: Host, index: ConnectionIndex) -> None:
    curl = host.start("curl")
    host.open(curl, CLIENT, SERVER)
    asked = query(CLIENT, SERVER, outgoing=True)
    assert [named(answer) for answer in ask_block(index, [asked, asked])] == [(curl, Match.EXACT)] * 2
    assert host.asked == 1


def test_a_young_answer_is_soon_asked_again_and_an_old_one_seldom(
    host: Host, index: ConnectionIndex, clock: Clock
) -> None:
    host.open(host.start("curl"), CLIENT, SERVER)
    asked = query(CLIENT, SERVER, outgoing=True)
    began_ns = clock()
    looks = []
    for _ in range(10_000):
        before = host.asked
        ask(index, asked)
        if host.asked > before:
            looks.append(clock() - began_ns)
        clock.advance(1)
    gaps = [later - earlier for earlier, later in itertools.pairwise(looks)]
    assert gaps[0] == lifetimes.MIN_TTL_NS
    assert max(gaps) == lifetimes.MAX_TTL_NS
    assert gaps == sorted(gaps)
    assert 6 < len(looks) < 20


def test_a_changed_holder_is_seen_once_the_answer_is_too_old(host: Host, index: ConnectionIndex, clock: Clock) -> None:
    server = host.start("server")
    connection = host.open(server, SERVER, CLIENT)
    asked = query(SERVER, CLIENT)
    assert named(ask(index, asked)) == (server, Match.EXACT)
    worker = host.fork(server, "worker")
    host.drop(connection, server)
    clock.advance(4)
    assert named(ask(index, asked)) == (server, Match.EXACT)
    clock.advance(2)
    assert named(ask(index, asked)) == (worker, Match.EXACT)


def test_what_was_not_there_is_found_as_soon_as_it_is(host: Host, index: ConnectionIndex, clock: Clock) -> None:
    asked = query(CLIENT, SERVER, outgoing=True)
    assert reason(ask(index, asked)) == (Reason.NO_SOCKET, False)
    curl = host.start("curl")
    host.open(curl, CLIENT, SERVER)
    clock.advance(6)
    assert named(ask(index, asked)) == (curl, Match.EXACT)


def test_what_is_never_there_is_not_asked_for_at_each_block(host: Host, index: ConnectionIndex, clock: Clock) -> None:
    asked = query(CLIENT, SERVER, outgoing=True)
    for _ in range(10_000):
        ask(index, asked)
        clock.advance(1)
    longest_pauses = 10 * NS_PER_S // lifetimes.MAX_NEGATIVE_TTL_NS
    assert longest_pauses <= host.asked < longest_pauses + 10


def test_a_datagram_socket_is_asked_often_where_its_end_is_not_told(deaf: Host, clock: Clock) -> None:
    index = ConnectionIndex(deaf, clock, clock.wall_ns)
    first = deaf.start("first")
    socket = deaf.open(first, CLIENT, protocol=UDP)
    asked = query(CLIENT, SERVER, protocol=UDP, outgoing=True)
    for _ in range(5000):
        assert named(ask(index, asked)) == (first, Match.BOUND)
        clock.advance(1)
    deaf.close(socket)
    second = deaf.start("second")
    deaf.open(second, CLIENT, protocol=UDP)
    clock.advance(lifetimes.MAX_TTL_UNHEARD_UDP_NS / NS_PER_MS)
    assert named(ask(index, asked)) == (second, Match.BOUND)


def test_a_block_of_misses_takes_one_look_at_everyone(host: Host, index: ConnectionIndex) -> None:
    clients = {("10.77.0.1", 40000 + number): host.start(f"client-{number}") for number in range(100)}
    host.everyone({})  # they are no newcomers
    host.calls.clear()
    for end, process in clients.items():
        host.open(process, end, SERVER)
    answers = ask_block(index, [query(end, SERVER, outgoing=True) for end in clients])
    assert [named(answer) for answer in answers] == [(process, Match.EXACT) for process in clients.values()]
    assert host.calls["everyone"] == 1
    assert host.calls["candidates"] == 1


def test_newcomers_are_found_without_a_look_at_everyone(clock: Clock) -> None:
    host = Host(clock, scan_ms=200)
    index = ConnectionIndex(host, clock, clock.wall_ns)
    index.warm([HOME])
    host.calls.clear()
    for number in range(10):
        clock.advance(1)
        curl = host.start("curl")
        end = (CLIENT[0], 40000 + number)
        host.open(curl, end, SERVER)
        assert named(ask(index, query(end, SERVER, outgoing=True))) == (curl, Match.EXACT)
    assert host.calls["everyone"] == 0


@pytest.mark.parametrize("scan_ms", [10, 100, 1000])
def test_looks_at_everyone_take_a_bounded_share_of_the_time(clock: Clock, scan_ms: float) -> None:
    """Each millisecond brings a flow that nobody holds: as bad as it gets."""
    host = Host(clock, scan_ms=scan_ms)
    index = ConnectionIndex(host, clock, clock.wall_ns)
    began_ns = clock()
    for number in range(20_000):
        end = ("10.77.0.1", 10_000 + number)
        host.open(None, end, SERVER)
        ask(index, query(end, SERVER, outgoing=True))
        clock.advance(1)
        if clock() - began_ns > 20 * NS_PER_S:
            break
    looked_ns = host.calls["everyone"] * scan_ms * NS_PER_MS
    share = looked_ns / (clock() - began_ns)
    assert ownership.SCAN_SHARE / 2 < share < ownership.SCAN_SHARE * 1.1 + scan_ms / 20_000


def test_a_flow_that_missed_the_look_is_named_by_the_next(clock: Clock) -> None:
    host = Host(clock, scan_ms=200)
    index = ConnectionIndex(host, clock, clock.wall_ns)
    old = host.start("old")
    host.open(old, CLIENT, SERVER)
    assert named(ask(index, query(CLIENT, SERVER))) == (old, Match.EXACT)
    clock.advance(1)
    late = ("10.77.0.1", 40001)
    host.open(old, late, SERVER)
    asked = query(late, SERVER)
    assert reason(ask(index, asked)) == (Reason.NOT_COVERED, False)
    clock.advance(2000)
    assert named(ask(index, asked)) == (old, Match.EXACT)


def test_lost_notices_void_everything(host: Host, index: ConnectionIndex) -> None:
    first = host.start("first")
    socket = host.open(first, CLIENT, protocol=UDP)
    asked = query(CLIENT, SERVER, protocol=UDP, outgoing=True)
    assert named(ask(index, asked)) == (first, Match.BOUND)
    host.close(socket)
    host.lost = True
    second = host.start("second")
    host.open(second, CLIENT, protocol=UDP)
    assert named(ask(index, asked)) == (second, Match.BOUND)
    assert index.counts["overruns"] == 1
