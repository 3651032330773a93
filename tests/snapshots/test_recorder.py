"""What a recorder makes of the life of sockets, look by look."""

from __future__ import annotations

from dataclasses import replace

import pytest

from attribution.host import ESTABLISHED, HOME, SYN_RECV, TIME_WAIT
from pktproc.attribution.engine import Addresses
from pktproc.attribution.history import Coverage, RecordedAddress, Span
from pktproc.model import Protocol, pack_address
from snapshots.bench import NOTICE_S, OURS, THEIRS, Bench, at

NS_PER_S = 1_000_000_000


def test_a_socket_is_known_from_its_first_look_to_its_end(bench: Bench) -> None:
    bench.recorder.look()
    curl = bench.host.start("curl")
    bench.wait(0.4)
    socket = bench.connect(curl)
    bench.look(0.6)
    bench.look()
    bench.wait(0.3)
    bench.wait(0.2)
    bench.host.close(socket)
    bench.wait(0.1)
    bench.look(0.4)
    recorded = bench.only(socket)
    assert recorded.socket == socket
    assert recorded.span == Span(at(0), at(1), at(2.5 - NOTICE_S), at(2.6))
    ((process, span),) = recorded.holders
    assert (process.pid, process.name, process.id) == (curl.pid, "curl", curl.id)
    assert span == Span(at(0), at(1), at(2), at(2.6))


def test_what_was_there_before_the_first_look_has_no_known_beginning(bench: Bench) -> None:
    socket = bench.listen(bench.host.start("nginx"))
    bench.recorder.look()
    bench.look()
    assert bench.only(socket).span == Span(None, at(0), at(1), None)
    bench.end()
    assert bench.only(socket).span == Span(None, at(0), at(1), None)
    assert bench.only(socket).holders[0].span == Span(None, at(0), at(1), None)


def test_without_notices_a_socket_ends_when_two_looks_miss_it(deaf_bench: Bench) -> None:
    bench = deaf_bench
    bench.recorder.look()
    socket = bench.connect(bench.host.start("curl"))
    bench.look()
    bench.look()
    bench.host.close(socket)
    bench.look()
    assert bench.only(socket).span.before_ns is None
    bench.look()
    recorded = bench.only(socket)
    assert recorded.span == Span(at(0), at(1), at(2), at(3))
    assert recorded.holders[0].span == Span(at(0), at(1), at(2), at(3))


def test_one_look_that_misses_a_socket_does_not_end_it(bench: Bench) -> None:
    """A dump can pass a socket over while others come and go."""
    bench.recorder.look()
    socket = bench.connect(bench.host.start("curl"))
    bench.look()
    bench.host.passed_over.add(socket.cookie)
    bench.look()
    bench.host.passed_over.clear()
    bench.look()
    assert bench.only(socket).span == Span(at(0), at(1), at(3), None)


def test_a_socket_that_no_look_found_is_known_by_its_end(bench: Bench) -> None:
    bench.recorder.look()
    bench.wait(0.2)
    socket = bench.connect(bench.host.start("dig"))
    bench.host.close(socket)
    bench.wait(0.1)
    bench.look(0.7)
    recorded = bench.only(socket)
    assert recorded.span == Span(at(0), at(0.3), at(0.3), at(0.3))
    assert recorded.holders == ()


def test_an_end_that_is_told_after_a_look_has_missed_the_socket_was_before_or_after_it(bench: Bench) -> None:
    bench.recorder.look()
    socket = bench.bind(bench.host.start("dnsmasq"))
    bench.look()
    bench.wait(0.9)
    bench.host.passed_over.add(socket.cookie)
    bench.look(0.1)
    bench.wait(0.4)
    bench.host.close(socket)
    bench.look(0.6)
    assert bench.only(socket).span == Span(at(0), at(1), at(1), at(3))


def test_ends_of_sockets_that_never_had_a_port_are_nothing(bench: Bench) -> None:
    bench.recorder.look()
    bench.host.close(bench.bind(bench.host.start("probe"), port=0))
    bench.look()
    assert bench.rows("SELECT count(*) FROM socket") == [(0,)]


def test_ends_before_the_first_look_are_nothing(bench: Bench) -> None:
    bench.host.close(bench.bind(bench.host.start("early")))
    bench.look()
    bench.look()
    assert bench.rows("SELECT count(*) FROM socket") == [(0,)]


def test_a_lingering_connection_ended_with_its_socket(bench: Bench) -> None:
    bench.recorder.look()
    socket = bench.connect(bench.host.start("curl"))
    bench.look()
    bench.host.linger(socket, TIME_WAIT)
    bench.look(0.5)
    for _ in range(3):
        bench.look()
    recorded = bench.only(socket)
    assert recorded.span.before_ns == at(1.5)
    assert recorded.socket.state == ESTABLISHED


def test_lingering_connections_of_before_are_not_recorded(bench: Bench) -> None:
    socket = bench.connect(bench.host.start("curl"))
    bench.host.linger(socket, TIME_WAIT)
    bench.recorder.look()
    bench.look()
    bench.host.expire(socket)
    bench.look()
    assert bench.recorded(socket) == []


def test_a_connection_that_waits_to_be_accepted_is_its_owner_s_from_the_beginning(bench: Bench) -> None:
    server = bench.host.start("nginx")
    bench.listen(server)
    bench.recorder.look()
    waiting = bench.host.open(server, (OURS, 80), (THEIRS, 5), accepted=False)
    bench.look()
    assert bench.recorded(waiting) == []
    accepted = bench.host.accept(waiting._replace(inode=waiting.cookie + 1_000_000), server)
    bench.look()
    recorded = bench.only(accepted)
    assert recorded.span == Span(at(0), at(1), at(2), None)
    assert recorded.holders[0].span == Span(at(0), at(2), at(2), None)


def test_half_open_connections_are_not_recorded(bench: Bench) -> None:
    bench.listen(bench.host.start("nginx"))
    bench.recorder.look()
    for port in range(100):
        bench.host.open(None, (OURS, 80), (THEIRS, 1 + port), state=SYN_RECV, accepted=False)
    bench.look()
    for half_open in bench.host.sockets(HOME):
        if half_open.state == SYN_RECV:
            bench.host.expire(half_open)
    for _ in range(3):
        bench.look()
    assert bench.rows("SELECT count(*) FROM socket") == [(1,)]


def test_a_port_that_another_process_uses_next_is_two_sockets(bench: Bench) -> None:
    bench.recorder.look()
    first, second = bench.host.start("first"), bench.host.start("second")
    socket = bench.bind(first)
    bench.look()
    bench.host.close(socket)
    bench.wait(0.2)
    bench.bind(second)
    bench.look(0.8)
    earlier, later = bench.recorded(socket)
    assert [one.holders[0].process.name for one in (earlier, later)] == ["first", "second"]
    assert earlier.span == Span(at(0), at(1), at(1), at(1.2))
    assert later.span == Span(at(1), at(2), at(2), None)


def test_a_socket_with_other_ends_is_another_row(bench: Bench) -> None:
    """A resolver connects one UDP socket to one server after the other."""
    bench.recorder.look()
    resolver = bench.host.start("resolver")
    socket = bench.bind(resolver)
    bench.look()
    moved = bench.host.reconnect(socket, (THEIRS, 53))
    bench.look()
    assert bench.only(socket).span == Span(at(0), at(1), at(1), at(2))
    assert bench.only(moved).span == Span(at(1), at(2), at(2), None)
    assert bench.only(moved).holders[0].process.name == "resolver"


def test_a_look_at_a_host_without_change_writes_no_row(bench: Bench) -> None:
    bench.host.spaces[HOME] = Addresses(frozenset({pack_address(OURS)}))
    for number in range(50):
        bench.connect(bench.host.start(f"p{number}"), port=40000 + number)
    bench.recorder.look()
    bench.look()
    tables = ("address", "process", "socket", "holder", "coverage")
    before = [bench.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]
    for _ in range(30):
        bench.look()
    after = [bench.rows(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]
    assert before[:-1] == after[:-1]
    assert bench.rows("SELECT first, last, verified FROM coverage") == [(at(0), at(31), at(30))]


def test_missed_notices_are_a_time_of_deafness(bench: Bench) -> None:
    bench.recorder.look()
    socket = bench.connect(bench.host.start("curl"))
    bench.look()
    bench.wait(0.25)
    bench.host.close(socket)
    bench.host.lost = True
    bench.wait(0.25)
    for _ in range(3):
        bench.look()
    with bench.history() as history:
        covered = history.coverage()
    assert [(c.first_ns, c.last_ns, c.hears_ends) for c in covered] == [
        (at(0), at(1.25) - 1, True),
        (at(1.25), at(1.5), False),
        (at(1.5) + 1, at(4.5), True),
    ]
    assert bench.only(socket).span == Span(at(0), at(1), at(1), at(2.5))


def test_coverage_says_how_it_was_recorded(bench: Bench) -> None:
    bench.recorder.look()
    bench.look()
    with bench.history() as history:
        assert list(history.coverage()) == [Coverage(at(0), at(1), "double", hears_ends=True, interval_ns=NS_PER_S)]


class TestNamespaces:
    OTHER = HOME + 7

    def test_a_new_one_was_not_looked_at_before(self, bench: Bench) -> None:
        bench.recorder.look()
        bench.host.spaces[self.OTHER] = Addresses()
        socket = bench.connect(bench.host.start("pod"), netns=self.OTHER)
        bench.look()
        assert bench.only(socket).span == Span(None, at(1), at(1), None)

    def test_what_became_of_the_sockets_of_one_that_is_gone_is_not_known(self, bench: Bench) -> None:
        bench.host.spaces[self.OTHER] = Addresses(frozenset({pack_address(OURS)}))
        socket = bench.connect(bench.host.start("pod"), netns=self.OTHER)
        bench.recorder.look()
        bench.look()
        del bench.host.spaces[self.OTHER]
        bench.look()
        assert bench.only(socket).span == Span(None, at(0), at(1), None)
        with bench.history() as history:
            assert history.addresses(pack_address(OURS)) == [
                RecordedAddress(self.OTHER, Span(None, at(0), at(1), None))
            ]
            assert history.namespaces() == {self.OTHER}

    def test_one_that_cannot_be_read_is_passed_over(self, bench: Bench) -> None:
        bench.host.spaces[self.OTHER] = Addresses()
        socket = bench.connect(bench.host.start("pod"), netns=self.OTHER)
        bench.host.unreadable.add(self.OTHER)
        bench.recorder.look()
        assert bench.recorded(socket) == []

    def test_the_same_ends_in_two_are_two_sockets(self, bench: Bench) -> None:
        bench.host.spaces[self.OTHER] = Addresses()
        here = bench.connect(bench.host.start("here"))
        there = bench.connect(bench.host.start("there"), netns=self.OTHER)
        bench.recorder.look()
        assert [bench.only(socket).holders[0].process.name for socket in (here, there)] == ["here", "there"]


def test_addresses_come_and_go_with_their_times(bench: Bench) -> None:
    ours, everybody = pack_address(OURS), pack_address("10.77.255.255")
    bench.recorder.look()
    bench.host.spaces[HOME] = Addresses(frozenset({ours}), frozenset({everybody}))
    bench.look()
    bench.look()
    bench.host.spaces[HOME] = Addresses(frozenset({ours}))
    bench.look()
    with bench.history() as history:
        assert history.addresses(ours) == [RecordedAddress(HOME, Span(at(0), at(1), at(3), None))]
        there = Span(at(0), at(1), at(2), at(3))
        assert history.addresses(everybody) == [RecordedAddress(HOME, there, broadcast=True)]
        assert history.addresses(pack_address(THEIRS)) == []


def test_a_clock_that_is_set_back_begins_a_new_interval(bench: Bench) -> None:
    socket = bench.listen(bench.host.start("nginx"))
    bench.recorder.look()
    for _ in range(9):
        bench.look()
    bench.set_back_ns = 6 * NS_PER_S
    bench.recorder.look()
    bench.look()
    with bench.history() as history:
        covered = history.coverage()
    assert [(c.first_ns, c.last_ns) for c in covered] == [(at(0), at(3) - 1), (at(3), at(4))]
    assert [one.span for one in bench.recorded(socket)] == [
        Span(None, at(0), at(9), None),
        Span(None, at(3), at(4), None),
    ]


def test_a_killed_recorder_leaves_what_it_wrote(bench: Bench) -> None:
    socket = bench.listen(bench.host.start("nginx"))
    bench.recorder.look()
    bench.look()
    bench.kill()
    assert bench.only(socket).span == Span(None, at(0), at(1), None)
    again = Bench(bench.path)
    again.clock.advance(20_000)
    other = again.listen(again.host.start("other"))
    again.recorder.look()
    again.look()
    assert [one.span for one in again.recorded(other)] == [
        Span(None, at(0), at(1), None),
        Span(None, at(20), at(21), None),
    ]
    with again.history() as history:
        assert [(c.first_ns, c.last_ns) for c in history.coverage()] == [(at(0), at(1)), (at(20), at(21))]
    assert socket.local_port == other.local_port
    again.store.close()


@pytest.mark.parametrize("protocol", [Protocol.ICMP, Protocol.TCP])
def test_raw_sockets_are_recorded_with_their_protocol(bench: Bench, protocol: Protocol) -> None:
    socket = bench.host.open(bench.host.start("ping"), ("0.0.0.0", protocol), protocol=protocol, raw=True)
    bench.recorder.look()
    with bench.history() as history:
        (recorded,) = history.sockets(HOME, protocol, 4711, pack_address(THEIRS), 0)
    assert recorded.socket == socket
    assert recorded.holders[0].process.name == "ping"


def test_a_process_that_moves_to_another_unit_is_described_anew(bench: Bench) -> None:
    worker = bench.host.become(replace(bench.host.start("worker"), unit="web.service"))
    bench.connect(worker)
    bench.recorder.look()
    moved = bench.host.become(replace(worker, unit="batch.scope"))
    bench.connect(moved, port=40001)
    bench.look()
    assert bench.rows("SELECT name, unit FROM process ORDER BY id") == [
        ("worker", "web.service"),
        ("worker", "batch.scope"),
    ]
