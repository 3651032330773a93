"""Who holds a socket, found at little cost and kept with its times."""

from __future__ import annotations

import pytest

from attribution.host import HOME
from pktproc.attribution.history import Span
from pktproc.snapshots.holders import VERIFY_LOOKS
from snapshots.bench import OURS, THEIRS, Bench, at


def names(bench: Bench, socket: object) -> list[tuple[str, Span]]:
    return [(holder.process.name, holder.span) for holder in bench.only(socket).holders]  # type: ignore[arg-type]


def test_a_connection_that_a_server_passes_on_is_its_child_s(bench: Bench) -> None:
    server = bench.host.start("master")
    bench.listen(server)
    bench.recorder.look()
    socket = bench.host.open(server, (OURS, 80), (THEIRS, 5))
    bench.look()
    worker = bench.host.start("worker", parent=server)
    bench.host.give(socket, worker)
    bench.host.drop(socket, server)
    bench.look()
    bench.look()
    bench.end()
    assert names(bench, socket) == [
        ("master", Span(at(0), at(1), at(1), at(2))),
        ("worker", Span(at(0), at(2), at(3), None)),
    ]


def test_all_holders_of_a_shared_socket_are_kept(bench: Bench) -> None:
    server = bench.host.start("server")
    socket = bench.listen(server)
    for number in range(3):
        bench.host.fork(server, f"worker{number}")
    bench.recorder.look()
    assert {name for name, _ in names(bench, socket)} == {"server", "worker0", "worker1", "worker2"}


def test_a_process_that_runs_another_program_is_described_anew(bench: Bench) -> None:
    shell = bench.host.start("sh")
    bench.recorder.look()
    socket = bench.connect(shell)
    bench.look()
    bench.host.execute(shell, "curl")
    bench.look()
    bench.look()
    assert bench.rows("SELECT name, first, last FROM process ORDER BY id") == [
        ("sh", at(1), at(1)),
        ("curl", at(2), None),
    ]
    bench.end()
    assert names(bench, socket) == [("sh", Span(at(0), at(1), at(1), at(2))), ("curl", Span(at(1), at(2), at(3), None))]
    assert [holder.process.id for holder in bench.only(socket).holders] == [shell.id, shell.id]


def test_an_old_socket_s_new_program_is_noticed_in_time(bench: Bench) -> None:
    shell = bench.host.start("sh")
    socket = bench.connect(shell)
    bench.recorder.look()
    bench.look()
    bench.host.execute(shell, "curl")
    for _ in range(VERIFY_LOOKS):
        bench.look()
    assert [name for name, _ in names(bench, socket)] == ["sh", "curl"]


def test_a_process_that_opens_sockets_now_and_then_has_one_row(bench: Bench) -> None:
    agent = bench.host.start("agent")
    bench.recorder.look()
    for port in range(40000, 40005):
        socket = bench.connect(agent, port=port)
        bench.look()
        bench.host.close(socket)
        bench.look()
    assert bench.rows("SELECT name, first, last FROM process") == [("agent", at(1), at(9))]


def test_a_pid_used_again_is_another_process(bench: Bench) -> None:
    bench.recorder.look()
    first = bench.host.start("first")
    one = bench.connect(first, port=40000)
    bench.look()
    bench.host.end(first)
    bench.clock.advance(100)
    second = bench.host.start("second", pid=first.pid)
    other = bench.connect(second, port=40001)
    bench.look()
    assert [name for socket in (one, other) for name, _ in names(bench, socket)] == ["first", "second"]
    assert first.pid == second.pid
    assert bench.only(one).holders[0].process.start_ticks == first.start_ticks


def test_a_socket_that_no_process_holds_is_kept_without(bench: Bench) -> None:
    bench.recorder.look()
    socket = bench.bind(None)
    for _ in range(2 * VERIFY_LOOKS):
        bench.look()
    assert bench.only(socket).holders == ()
    assert bench.host.calls["everyone"] < 6


def test_an_idle_host_is_looked_through_only_now_and_then(bench: Bench) -> None:
    for number in range(20):
        bench.connect(bench.host.start(f"p{number}"), port=40000 + number)
    bench.recorder.look()
    bench.host.calls.clear()
    for _ in range(5 * VERIFY_LOOKS):
        bench.look()
    assert bench.host.calls["everyone"] == 5
    assert bench.host.calls["newcomers"] == 0
    assert bench.host.calls["recheck"] == 0


def test_known_clients_and_servers_need_no_look_at_everyone(bench: Bench) -> None:
    """An old process that opens connections again and again is likely to be the one that opened the next."""
    server, client = bench.host.start("server"), bench.host.start("client")
    bench.listen(server)
    bench.recorder.look()
    sockets = []
    for port in range(40000, 40000 + 5 * VERIFY_LOOKS):
        sockets.append(bench.connect(client, port=port))
        sockets.append(bench.host.open(server, (OURS, 80), (THEIRS, port)))
        bench.look()
    assert [name for socket in sockets for name, _ in names(bench, socket)] == ["client", "server"] * 5 * VERIFY_LOOKS
    assert bench.host.calls["everyone"] <= 1 + 5 + 1


@pytest.mark.parametrize("scan_ms", [50, 2000])
def test_looks_at_everyone_take_a_small_share_of_the_time(
    tmp_path_factory: pytest.TempPathFactory, scan_ms: float
) -> None:
    bench = Bench(tmp_path_factory.mktemp("store") / "store.db", scan_ms=scan_ms)
    bench.recorder.look()
    begin_ns = bench.clock()
    bench.host.calls.clear()
    for number in range(600):
        bench.bind(None, port=5000 + number)
        bench.look()
    share = bench.host.calls["everyone"] * scan_ms * 1e6 / (bench.clock() - begin_ns)
    bench.store.close()
    assert bench.host.calls["everyone"] >= 1
    assert share < 0.02


def test_a_process_that_may_not_be_inspected_is_counted(bench: Bench) -> None:
    secret = bench.host.start("secret")
    bench.host.private.add(secret.pid)
    socket = bench.bind(secret)
    bench.recorder.look()
    assert bench.only(socket).holders == ()
    assert bench.recorder.holders.denied == 1


def test_holders_of_one_namespace_s_socket_may_be_in_another(bench: Bench) -> None:
    bench.recorder.look()
    mover = bench.host.start("mover")
    socket = bench.bind(mover, netns=HOME)
    bench.look()
    assert [name for name, _ in names(bench, socket)] == ["mover"]
