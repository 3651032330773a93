"""What a witness tells of a host whose every fact is known, kept by a recorder and asked afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from attribution.host import HOME, NS_PER_S
from pktproc.attribution import testified
from pktproc.attribution.engine import Ends, Query, Told, Use, Way, ends_of
from pktproc.model import Attribution, Match, Process, ProcessId, Protocol, Socket, pack_address
from pktproc.snapshots.recorder import Recorder
from snapshots.bench import OURS, THEIRS, Bench, at

PORT = 40000


class WitnessedBench(Bench):
    """A bench whose host has a witness, which tells what a test lets happen."""

    evidence, fallback = "ebpf", "netlink"

    def __init__(self, path: Path, *, max_age_s: float | None = None) -> None:
        self._uses: list[Use] = []
        self._exits: list[tuple[ProcessId, int]] = []
        self._lost = 0
        super().__init__(path, max_age_s=max_age_s)
        self.host.name = "ebpf"

    def new_recorder(self, interval_ns: int = NS_PER_S) -> Recorder:
        wall = self.clock.wall_ns
        return Recorder(
            self.host,
            self.store,
            self.clock,
            wall,
            interval_ns=interval_ns,
            retention=self.retention,
            witness=self,
        )

    def told(self) -> Told:
        told = Told(self._uses, self._exits, self._lost)
        self._uses, self._exits, self._lost = [], [], 0
        return told

    def loses(self) -> None:
        """Have no room for what happens."""
        self._lost += 1

    def happens(
        self, way: Way, ends: Ends | None, cookie: int, who: Process | None = None, *, previous_s: float = 0
    ) -> int:
        """Let something be done with a socket now, and return the time since the epoch."""
        nothing = Ends(0, 0, bytes(16), 0, bytes(16), 0)
        previous_ns = self.clock.now_ns - round(previous_s * NS_PER_S) if previous_s else 0
        self._uses.append(Use(self.clock.now_ns, way, cookie, ends or nothing, who, previous_ns))
        return self.clock.wall_ns()

    def exits(self, who: Process) -> int:
        self._exits.append((who.id, self.clock.now_ns))
        return self.clock.wall_ns()

    def asked(self, ends: Ends, time_ns: int, *, outgoing: bool = True) -> Attribution | None:
        """Return what the store has a witness tell of an end at a time."""
        with self.history() as history:
            (testimony,) = history.testimonies()
            return testified.Testified(Query(*ends, outgoing=outgoing), testimony).at(time_ns).value


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[WitnessedBench]:
    bench = WitnessedBench(tmp_path / "store.db")
    with closing(bench.store):
        yield bench


def ends(protocol: int = Protocol.TCP, local_port: int = PORT, remote_port: int = 80) -> Ends:
    return Ends(HOME, protocol, pack_address(OURS), local_port, pack_address(THEIRS), remote_port)


def socket_with(found: Ends, cookie: int = 77) -> Socket:
    return Socket(*found, state=1, inode=0, cookie=cookie, uid=None)


def test_a_socket_between_two_looks_has_exact_times_and_its_holder(bench: WitnessedBench) -> None:
    curl = bench.host.start("curl")
    bench.recorder.look()
    bench.wait(0.3)
    opened = bench.happens(Way.SENT, ends(), 77, curl)
    bench.wait(0.2)
    closed = bench.happens(Way.CLOSED, None, 77)
    ended = bench.exits(curl)
    bench.look()
    bench.end()
    recorded = bench.only(socket_with(ends()))
    assert recorded.span == (opened - 1, opened, closed, closed)
    assert [(holder.process.name, *holder.span) for holder in recorded.holders] == [
        ("curl", opened - 1, opened, closed, closed)
    ]
    assert bench.rows("SELECT closed FROM socket") == [(closed,)]
    assert bench.rows("SELECT name, ended FROM process") == [("curl", ended)]
    answer = bench.asked(ends(), opened)
    assert answer
    assert (answer.process, answer.match) == (curl, Match.EXACT)
    assert bench.asked(ends(), opened - NS_PER_S // 10) is None


def test_the_end_of_a_socket_that_only_a_notice_tells_is_that_of_the_socket_that_was_told_of(
    bench: WitnessedBench,
) -> None:
    """As of one that was bound and reached, and never read: the witness knows of nobody who used it."""
    server = bench.host.start("server")
    bench.recorder.look()
    bench.wait(0.3)
    bound = bench.bind(server)
    flow = ends(Protocol.UDP, bound.local_port, 9000)
    bench.happens(Way.BOUND, flow._replace(remote_port=0), bound.cookie, server)
    reached = bench.happens(Way.ARRIVES, flow, bound.cookie)
    bench.wait(0.2)
    bench.wait(0.1)
    bench.host.close(bound)
    heard = bench.clock.wall_ns()
    for _ in range(3):
        bench.look()
    bench.end()
    ((first, last, before),) = bench.rows("SELECT first, last, before FROM socket")
    assert first == reached <= last < before
    assert before >= heard
    ((name, freed),) = bench.rows("SELECT name, holder.before FROM holder JOIN process ON process.id = process")
    assert (name, freed) == ("server", before)


def test_a_look_describes_the_socket_that_was_told_of(bench: WitnessedBench) -> None:
    curl = bench.host.start("curl")
    bench.recorder.look()
    bench.wait(0.3)
    socket = bench.connect(curl)
    opened = bench.happens(Way.SENT, ends_of(socket), socket.cookie, curl)
    bench.look()
    bench.look()
    bench.wait(0.3)
    bench.host.close(socket)
    closed = bench.happens(Way.CLOSED, None, socket.cookie)
    bench.look()
    bench.look()
    bench.end()
    recorded = bench.only(socket)
    assert recorded.socket.inode == socket.inode
    assert recorded.span == (opened - 1, opened, closed, closed)
    assert [holder.span for holder in recorded.holders] == [(opened - 1, opened, closed, closed)]


def test_a_socket_that_a_look_found_before_it_was_used_is_one(bench: WitnessedBench) -> None:
    server = bench.host.start("server")
    socket = bench.bind(server)
    bench.recorder.look()
    bench.wait(0.5)
    flow = ends(Protocol.UDP, socket.local_port, 9000)
    bench.happens(Way.ARRIVES, flow, socket.cookie)
    bench.happens(Way.SENT, flow, socket.cookie, server)
    bench.look()
    bench.end()
    assert bench.rows("SELECT count(*) FROM socket") == [(1,)]
    assert bench.rows("SELECT count(*) FROM use") == [(0,)]  # as its one holder alone on the port it is the look's


@pytest.mark.parametrize("second", ["holder", "socket"])
def test_flows_of_a_bound_socket_are_kept_if_a_look_does_not_tell_whose_they_are(
    bench: WitnessedBench, second: str
) -> None:
    server, other = bench.host.start("server"), bench.host.start("other")
    socket = bench.bind(server)
    if second == "socket":
        bench.bind(other)
    bench.recorder.look()
    bench.wait(0.5)
    flow = ends(Protocol.UDP, socket.local_port, 9000)
    user = other if second == "holder" else server
    sent = bench.happens(Way.SENT, flow, socket.cookie, user)
    bench.look()
    bench.end()
    answer = bench.asked(flow, sent)
    assert answer
    assert (answer.process, answer.match) == (user, Match.EXACT)


def test_who_sends_is_told_from_who_receives(bench: WitnessedBench) -> None:
    reader, writer = bench.host.start("reader"), bench.host.start("writer")
    bench.recorder.look()
    bench.wait(0.1)
    bench.happens(Way.RECEIVED, ends(), 77, reader)
    bench.wait(0.1)
    bench.happens(Way.SENT, ends(), 77, writer)
    bench.wait(0.1)
    taken_over = bench.happens(Way.RECEIVED, ends(), 77, writer, previous_s=0.05)
    bench.look()
    bench.end()
    later = taken_over + NS_PER_S // 4
    sender, receiver = bench.asked(ends(), later), bench.asked(ends(), at(0.15), outgoing=False)
    assert sender
    assert receiver
    assert (sender.process, receiver.process) == (writer, reader)
    now = bench.asked(ends(), later, outgoing=False)
    assert now
    assert now.process == writer


def test_a_connection_that_came_in_began_with_its_syn(bench: WitnessedBench) -> None:
    server = bench.host.start("server")
    bench.recorder.look()
    bench.wait(0.2)
    begun = bench.happens(Way.COMES_IN, ends(local_port=80, remote_port=PORT), 0)
    bench.wait(0.3)
    bench.happens(Way.RECEIVED, ends(local_port=80, remote_port=PORT), 78, server)
    bench.look()
    bench.end()
    recorded = bench.only(socket_with(ends(local_port=80, remote_port=PORT)))
    assert recorded.span.first_ns == begun
    answer = bench.asked(ends(local_port=80, remote_port=PORT), begun, outgoing=False)
    assert answer
    assert answer.process == server


def test_what_was_told_does_not_reach_across_a_loss(bench: WitnessedBench) -> None:
    curl, wget = bench.host.start("curl"), bench.host.start("wget")
    bench.recorder.look()
    bench.wait(0.2)
    sent = bench.happens(Way.SENT, ends(), 77, curl)
    bench.look()
    bench.wait(0.1)
    bench.loses()
    bench.happens(Way.CLOSED, None, 77)
    bench.wait(0.4)
    bench.look()
    again = bench.happens(Way.SENT, ends(), 79, wget)
    bench.look()
    bench.end()
    assert len(bench.rows("SELECT first, last FROM unwitnessed")) == 1
    before, after = bench.asked(ends(), sent), bench.asked(ends(), again)
    assert before
    assert after
    assert (before.process, after.process) == (curl, wget)
    assert bench.asked(ends(), again - NS_PER_S // 4) is None
    (first, _) = bench.recorded(socket_with(ends()))
    assert first.span == (sent - 1, sent, sent, None)


def test_a_socket_that_looks_should_have_shown_may_have_ended(bench: WitnessedBench) -> None:
    curl = bench.host.start("curl")
    bench.recorder.look()
    bench.wait(0.2)
    sent = bench.happens(Way.SENT, ends(), 77, curl)
    for _ in range(4):
        bench.look()
    bench.end()
    assert bench.only(socket_with(ends())).span == (sent - 1, sent, sent, None)


def test_two_recordings_without_a_witness_have_no_testimony(bench: WitnessedBench) -> None:
    bench.host.name = "netlink"
    bench.recorder.look()
    bench.end()
    with bench.history() as history:
        assert history.testimonies() == []


def test_what_is_dropped_takes_its_uses_along(tmp_path: Path) -> None:
    bench = WitnessedBench(tmp_path / "aged.db", max_age_s=1)
    with closing(bench.store):
        curl = bench.host.start("curl")
        bench.recorder.look()
        bench.happens(Way.SENT, ends(), 77, curl)
        bench.wait(0.1)
        bench.happens(Way.CLOSED, None, 77)
        bench.look()
        for _ in range(4):
            bench.look()
        bench.end()
        assert bench.rows("SELECT count(*) FROM socket") == bench.rows("SELECT count(*) FROM use") == [(0,)]
