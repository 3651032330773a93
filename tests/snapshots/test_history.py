"""What the join is told about a recorded host."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribution.host import HOME, NS_PER_S
from pktproc.attribution.history import Coverage, RecordedSocket, Span
from pktproc.errors import StoreError
from pktproc.model import Process, ProcessId, Protocol, Socket, pack_address
from pktproc.snapshots import layout
from pktproc.snapshots.history import StoreHistory
from pktproc.snapshots.reader import StoreReader
from pktproc.snapshots.store import Store
from snapshots.bench import OURS, THEIRS, Bench, at

REMOTE = (pack_address(THEIRS), 80)
texts = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]) | st.sampled_from("\udc80\udcff'\"\n\x1b")
)


def found(history: StoreHistory, protocol: int, port: int, remote: tuple[bytes, int] = REMOTE) -> set[Socket]:
    return {recorded.socket for recorded in history.sockets(HOME, protocol, port, *remote)}


def test_sockets_are_found_by_their_ends(bench: Bench) -> None:
    one = bench.host.start("one")
    connected = bench.connect(one, port=40000)
    bench.connect(one, port=40000, remote_port=81)
    bench.connect(one, port=40001)
    datagram = bench.connect(one, port=40000, protocol=Protocol.UDP)
    bound = bench.bind(one, port=40000)
    listener = bench.listen(one, port=40000)
    bench.recorder.look()
    with bench.history() as history:
        assert found(history, Protocol.TCP, 40000) == {connected, listener}
        assert found(history, Protocol.UDP, 40000) == {datagram, bound}
        assert found(history, Protocol.TCP, 40000, (pack_address(THEIRS), 82)) == {listener}
        assert found(history, Protocol.TCP, 40000, (pack_address(OURS), 80)) == {listener}
        assert found(history, Protocol.TCP, 5) == set()
        assert history.sockets(HOME + 1, Protocol.TCP, 40000, *REMOTE) == []


def test_raw_and_ping_sockets_are_found_for_every_echo(bench: Bench) -> None:
    ping = bench.host.start("ping")
    raw = bench.host.open(ping, ("0.0.0.0", 1), protocol=Protocol.ICMP, raw=True)
    mine = bench.host.open(ping, ("0.0.0.0", 4711), protocol=Protocol.ICMP)
    tcp = bench.host.open(ping, ("0.0.0.0", 6), protocol=Protocol.TCP, raw=True)
    bench.recorder.look()
    with bench.history() as history:
        assert found(history, Protocol.ICMP, 4711, (pack_address(THEIRS), 0)) == {raw, mine}
        assert found(history, Protocol.ICMP, 1, (pack_address(THEIRS), 0)) == {raw}
        assert found(history, Protocol.TCP, 80) == {tcp}


def test_users_of_a_port_are_those_that_held_its_connections(bench: Bench) -> None:
    master, worker = bench.host.start("master"), bench.host.start("worker")
    bench.listen(master)
    bench.recorder.look()
    bench.host.close(bench.host.open(worker, (OURS, 80), (THEIRS, 5)))
    bench.host.open(worker, (OURS, 80), (THEIRS, 6))
    bench.look()
    with bench.history() as history:
        assert history.users(HOME, Protocol.TCP, 80, at(0), at(9)) == {worker.id}
        assert history.users(HOME, Protocol.UDP, 80, at(0), at(9)) == frozenset()
        assert history.users(HOME, Protocol.TCP, 80, at(2), at(9)) == frozenset()
        assert history.users(HOME, Protocol.TCP, 80, at(0), at(0.5)) == frozenset()


def test_a_process_is_one_object_for_all_its_sockets(bench: Bench) -> None:
    client = bench.host.start("client")
    for port in (40000, 40001):
        bench.connect(client, port=port)
    bench.recorder.look()
    with bench.history() as history:
        one, other = (history.sockets(HOME, Protocol.TCP, port, *REMOTE)[0] for port in (40000, 40001))
    assert one.holders[0].process is other.holders[0].process


@given(
    st.builds(
        Process,
        pid=st.integers(1, 1 << 22),
        start_ticks=st.integers(0, 1 << 62),
        start_ns=st.integers(0, 1 << 62),
        name=texts,
        exe=st.none() | texts,
        cmdline=st.none() | st.lists(texts).map(tuple),
        uid=st.none() | st.integers(0, (1 << 32) - 1),
        ppid=st.none() | st.integers(0, 1 << 22),
        parent_name=st.none() | texts,
        container_id=st.none() | st.text("0123456789abcdef", min_size=64, max_size=64),
        ancestors=st.lists(st.builds(ProcessId, st.integers(1, 1 << 22), st.integers(0, 1 << 62))).map(tuple),
        unit=st.none() | texts,
    )
)
def test_a_process_comes_back_as_it_was(process: Process) -> None:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(";".join(layout.MIGRATIONS))
        row = connection.execute(layout.ADD_PROCESS, (*layout.process_values(process), 1)).lastrowid
        assert layout.process_of(connection.execute(layout.find_process(), (row,)).fetchone()) == process


@given(st.integers(0, (1 << 64) - 1))
def test_a_cookie_of_64_bits_comes_back_as_it_was(cookie: int) -> None:
    assert -(1 << 63) <= layout.signed(cookie) < 1 << 63
    assert layout.unsigned(layout.signed(cookie)) == cookie


def test_a_name_that_is_not_utf_8_is_its_bytes_to_others(bench: Bench) -> None:
    bench.connect(bench.host.start("caf\udce9 \x1b[31m"))
    bench.recorder.look()
    assert bench.rows("SELECT typeof(name), name FROM process") == [("blob", b"caf\xe9 \x1b[31m")]


def covered(*spans: tuple[int, int], deaf: tuple[tuple[int, int], ...] = ()) -> list[tuple[int, int, bool]]:
    """Return the coverage that is read back, of recordings in this order."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "store.db")
        with closing(Store(path)) as store, store.transaction():
            for first, last in spans:
                number = store.begin_coverage(first, "netlink", hears_ends=True, interval_ns=NS_PER_S)
                store.extend_coverage(number, last, last)
            for first, last in deaf:
                store.add_deafness(first, last)
        with closing(StoreReader(path)) as reader:
            return [(one.first_ns, one.last_ns, one.hears_ends) for one in reader.coverage]


def test_coverage_is_in_order_and_without_overlap() -> None:
    assert covered((10, 20), (30, 40)) == [(10, 20, True), (30, 40, True)]
    assert covered((10, 20), (15, 40)) == [(10, 14, True), (15, 40, True)]
    assert covered((10, 20), (10, 40)) == [(10, 40, True)]
    assert covered((10, 20), (30, 40), (5, 35)) == [(5, 35, True)]
    assert covered() == []


def test_times_of_deafness_are_cut_out_of_hearing() -> None:
    assert covered((10, 20), deaf=((12, 14),)) == [(10, 11, True), (12, 14, False), (15, 20, True)]
    assert covered((10, 20), deaf=((5, 10), (20, 30))) == [(10, 10, False), (11, 19, True), (20, 20, False)]
    assert covered((10, 20), (30, 40), deaf=((15, 35),)) == [
        (10, 14, True),
        (15, 20, False),
        (30, 35, False),
        (36, 40, True),
    ]
    assert covered((10, 20), deaf=((10, 20), (12, 13), (50, 60))) == [(10, 20, False)]


def test_a_single_look_has_no_interval(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "store.db")
    bench.connect(bench.host.start("curl"))
    bench.recorder = bench.new_recorder(interval_ns=0)
    bench.recorder.look()
    bench.end()
    with bench.history() as history:
        assert list(history.coverage()) == [Coverage(at(0), at(0), "double", hears_ends=True, interval_ns=0)]
        (recorded,) = history.sockets(HOME, Protocol.TCP, 40000, *REMOTE)
    assert recorded.span == Span(None, at(0), at(0), None)
    assert recorded.holders[0].span == Span(None, at(0), at(0), None)


def test_a_store_can_be_read_while_another_thread_records(bench: Bench) -> None:
    client = bench.host.start("client")
    bench.recorder.look()
    seen: list[int] = []

    def read() -> None:
        while len(seen) < 5 or seen[-1] < 20:
            with closing(StoreHistory(bench.path)) as history:
                seen.append(
                    sum(len(history.sockets(HOME, Protocol.TCP, port, *REMOTE)) for port in range(40000, 40020))
                )

    reader = threading.Thread(target=read)
    reader.start()
    for port in range(40000, 40020):
        bench.connect(client, port=port)
        bench.look()
    reader.join(30)
    assert not reader.is_alive()
    assert seen == sorted(seen)
    assert seen[-1] == 20


@pytest.mark.parametrize(
    ("column", "nonsense"),
    [
        ("socket.local_address", "x'00'"),
        ("socket.local_address", "'text'"),
        ("socket.cookie", "'text'"),
        ("socket.last", "'text'"),
        ("process.pid", "'text'"),
        ("process.cmdline", "'{'"),
        ("process.cmdline", "'7'"),
        ("process.ancestors", "'[[1]]'"),
        ("process.ancestors", "'" + "[" * 100_000 + "'"),
    ],
)
def test_nonsense_in_a_store_is_damage(bench: Bench, column: str, nonsense: str) -> None:
    bench.connect(bench.host.start("curl"))
    bench.recorder.look()
    bench.end()
    table, _, name = column.partition(".")
    with closing(sqlite3.connect(bench.path)) as connection:
        connection.execute(f"UPDATE {table} SET {name} = {nonsense}")
        connection.commit()
    with bench.history() as history, pytest.raises(StoreError, match="is damaged"):
        history.sockets(HOME, Protocol.TCP, 40000, *REMOTE)


def test_a_holder_whose_process_is_missing_is_damage(bench: Bench) -> None:
    bench.connect(bench.host.start("curl"))
    bench.recorder.look()
    bench.end()
    with closing(sqlite3.connect(bench.path)) as connection:
        connection.execute("DELETE FROM process")
        connection.commit()
    with bench.history() as history, pytest.raises(StoreError, match="is damaged"):
        history.sockets(HOME, Protocol.TCP, 40000, *REMOTE)


def test_an_unused_store_knows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    Store(path).close()
    with closing(StoreHistory(path)) as history:
        nothing: list[RecordedSocket] = []
        assert history.coverage() == []
        assert history.namespaces() == frozenset()
        assert history.sockets(HOME, Protocol.TCP, 80, *REMOTE) == nothing
