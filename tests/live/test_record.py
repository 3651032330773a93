"""`pktproc record`, `snapshot` and `who` on real programs; the truth is what the programs tell of themselves."""

from __future__ import annotations

import calendar
import json
import os
import signal
import sqlite3
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from attribution.host import HOME
from bed.evidence import Recorder, pktproc
from bed.namespaces import Namespace, NamespacePair
from bed.program import Command, Program
from bed.sniff import pktproc_command
from bed.waiting import until
from live.test_names import interpreter_called
from live.test_privileges import as_nobody
from pktproc.model import UNSPECIFIED_V4, Socket, pack_address
from pktproc.snapshots import layout
from pktproc.snapshots.store import Store

ENGINES = pytest.mark.parametrize("engine", ["netlink", "procfs"])
NS_PER_S = 1_000_000_000
Connection = dict[str, Any]


def who(store: Path, *arguments: object, netns: Namespace | None = None) -> list[Connection]:
    """Return what `pktproc who` tells, of one namespace if one is given."""
    done = pktproc("who", "-s", store, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    found: list[Connection] = json.loads(done.stdout)
    return [one for one in found if netns is None or one["netns"] == netns.inode]


def pids(connection: Connection) -> list[int]:
    return [holder["pid"] for holder in connection["holders"]]


def epoch(stamp: str) -> float:
    """Return the seconds since the epoch of a time in JSON."""
    whole, _, fraction = stamp.rstrip("Z").partition(".")
    return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{fraction}")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "day.db"


@ENGINES
def test_both_ends_are_recorded_with_their_own_pids(pair: NamespacePair, store: Path, engine: str) -> None:
    """Of TCP and UDP, over IPv4 and IPv6, each with a port of its own."""
    left, right = pair.left, pair.right
    kinds = [(transport, address) for transport in ("tcp", "udp") for address in (right.v4, right.v6)]
    with ExitStack() as opened:
        servers = {
            port: opened.enter_context(Program(f"{transport}_server", there, port, namespace=right)).ready()
            for port, (transport, there) in enumerate(kinds, 7970)
        }
        recorder = opened.enter_context(Recorder(store, "--engine", engine))
        clients = {
            port: opened.enter_context(Program(f"{transport}_client", there, port, namespace=left))
            for port, (transport, there) in enumerate(kinds, 7970)
        }
        locals_ = {port: client.expect("done")[0]["local"] for port, client in clients.items()}
        for port, server in servers.items():
            recorder.saw(clients[port].pid).saw(server.pid, port)
        recorder.stop()
    for port, (transport, there) in enumerate(kinds, 7970):
        (connection,) = who(store, f":{port}", netns=left)
        assert pids(connection) == [clients[port].pid]
        assert connection["network"]["transport"] == transport
        assert [connection["local"]["ip"], connection["local"]["port"]] == locals_[port]
        assert connection["remote"] == {"ip": there, "port": port}
        assert {pid for one in who(store, f":{port}", netns=right) for pid in pids(one)} == {servers[port].pid}


def test_a_connection_has_the_time_in_which_it_was(left: Namespace, right: Namespace, store: Path) -> None:
    with (
        Program("tcp_server", right.v4, 7991, namespace=right).ready(),
        Recorder(store) as recorder,
    ):
        before = time.time()
        with Program("tcp_client", right.v4, 7991, "--reset", namespace=left) as client:
            client.expect("done")
            begun = time.time()
            recorder.saw(client.pid).looked_again()
            ending = time.time()
        ended = time.time()
        recorder.looked_again()
        recorder.stop()
    (connection,) = who(store, ":7991", netns=left)
    assert before - 0.3 <= epoch(connection["not_before"]) <= begun
    assert epoch(connection["first_seen"]) <= begun + 0.3
    assert ending - 0.4 <= epoch(connection["last_seen"]) <= ended
    assert ending <= epoch(connection["not_after"]) <= ended + 0.3
    assert pids(connection) == [client.pid]


def test_a_connection_between_two_looks_is_known_by_its_end(left: Namespace, right: Namespace, store: Path) -> None:
    with (
        Program("tcp_server", right.v4, 7992, namespace=right).ready(),
        Recorder(store, "--engine", "netlink", interval_s=60) as recorder,
    ):
        begun = time.time()
        with Program("tcp_client", right.v4, 7992, "--reset", "--leave", namespace=left) as client:
            (done,) = client.expect("done")
            client.finish()
        ended = time.time()
        recorder.stop()
    (connection,) = who(store, f"{left.v4}:{done['local'][1]}", netns=left)
    assert connection["holders"] == []
    assert begun <= epoch(connection["not_after"]) <= ended + 0.3
    assert connection["first_seen"] == connection["last_seen"] == connection["not_after"]


def test_a_port_that_is_used_by_one_process_and_then_by_another(left: Namespace, right: Namespace, store: Path) -> None:
    users = []
    with Program("udp_server", right.v4, 7993, namespace=right).ready(), Recorder(store) as recorder:
        for _ in range(2):
            with Program("udp_client", right.v4, 7993, "--source-port", 40993, namespace=left) as client:
                client.expect("done")
                recorder.saw(client.pid, 40993)
                users.append((client.pid, time.time()))
                recorder.looked_again().looked_again()
        recorder.stop()
    assert [pids(one) for one in who(store, ":40993", netns=left)] == [[pid] for pid, _ in users]
    for pid, when in users:
        assert [pids(one) for one in who(store, ":40993", "--at", f"{when:.3f}", netns=left)] == [[pid]]


@ENGINES
def test_workers_are_recorded_for_what_they_accepted(
    left: Namespace, right: Namespace, store: Path, engine: str
) -> None:
    with (
        Program("tcp_prefork", right.v4, 7994, "--workers", 3, namespace=right).ready() as server,
        Recorder(store, "--engine", engine) as recorder,
        Program("parallel_clients", right.v4, 7994, "--clients", 3, namespace=left) as clients,
    ):
        told = clients.expect("client", 3)
        served = {event["remote"][1]: event["pid"] for event in server.expect("accepted", 3)}
        (ready,) = server.events("ready")
        for event in told:
            recorder.saw(event["pid"])
        recorder.looked_again().looked_again()
        recorder.stop()
    for port, pid in served.items():
        assert [pids(one) for one in who(store, f":{port}", netns=right)] == [[pid]]
    assert {event["local"][1]: [event["pid"]] for event in told} == {
        one["local"]["port"]: pids(one) for one in who(store, ":7994", netns=left)
    }
    (listener,) = [one for one in who(store, ":7994", netns=right) if one.get("listening")]
    assert set(pids(listener)) == {server.pid, *ready["workers"]}


def test_a_socket_that_is_passed_on_has_first_one_holder_then_the_other(
    left: Namespace, right: Namespace, store: Path
) -> None:
    with (
        Program("tcp_server", right.v4, 7995, namespace=right).ready(),
        Recorder(store) as recorder,
        Program("fd_passing", right.v4, 7995, namespace=left) as program,
    ):
        program.say()
        (created,) = program.expect("created")
        recorder.saw(created["creator"])
        program.say()
        program.expect("passed")
        recorder.saw(program.pid)
        recorder.stop()
    (connection,) = who(store, ":7995", netns=left)
    first, second = connection["holders"]
    assert (first["pid"], second["pid"]) == (created["creator"], program.pid)
    assert epoch(first["last_seen"]) <= epoch(second["first_seen"])


def test_a_process_that_runs_another_program_has_two_names(left: Namespace, store: Path, tmp_path: Path) -> None:
    body = (
        "import os, socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 7996)); s.set_inheritable(True)"
    )
    second = interpreter_called("second", tmp_path)
    again = f"os.execv({str(second)!r}, ['second', '-S', '-c', 'input()'])"
    command = [str(interpreter_called("first", tmp_path)), "-S", "-c", f"{body}; input(); {again}"]
    with Recorder(store) as recorder, Command(command, left) as program:
        recorder.saw(program.pid, 7996)
        program.say()
        until(lambda: recorder.ask("SELECT count(*) FROM process WHERE name = 'second'") == [(1,)])
        recorder.stop()
    (connection,) = who(store, ":7996", netns=left)
    assert [(holder["pid"], holder["name"]) for holder in connection["holders"]] == [
        (program.pid, "first"),
        (program.pid, "second"),
    ]


def test_a_namespace_that_is_made_meanwhile_is_recorded(store: Path) -> None:
    with Recorder(store) as recorder:
        with (
            NamespacePair() as pair,
            Program("udp_server", pair.right.v4, 7997, namespace=pair.right).ready() as server,
        ):
            recorder.saw(server.pid, 7997)
            netns, address = pair.right.inode, pair.right.v4
        recorder.looked_again()
        recorder.stop()
    (connection,) = who(store, f"{address}:7997")
    assert (connection["netns"], pids(connection)) == (netns, [server.pid])
    with closing(sqlite3.connect(store)) as reader:
        query = "SELECT count(*) FROM address WHERE netns = ? AND hex(address) = '00000000000000000000FFFF0A4D0002'"
        assert reader.execute(query, (netns,)).fetchone() == (1,)


def test_a_hostile_name_is_kept_as_it_is(left: Namespace, right: Namespace, store: Path, tmp_path: Path) -> None:
    names = ["two words", "new\nline", "\x1b[31mred", 'quo"te', "größe", os.fsdecode(b"caf\xe9")]
    with Recorder(store, "--duration", 60) as recorder, ExitStack() as opened:
        interpreters = {name: interpreter_called(name, tmp_path) for name in names}
        words = (right.v4, 7998, "--no-echo")
        clients = {
            name: opened.enter_context(Program("udp_client", *words, namespace=left, interpreter=interpreter))
            for name, interpreter in interpreters.items()
        }
        for client in clients.values():
            client.expect("done")
            recorder.saw(client.pid)
        recorder.stop()
    for name, client in clients.items():
        with closing(sqlite3.connect(store)) as reader:
            ((kept, exe),) = reader.execute("SELECT name, exe FROM process WHERE pid = ?", (client.pid,))
        assert os.fsencode(kept) == os.fsencode(name)
        assert str(Path(sys.executable).resolve()) == exe
        shown = pktproc("who", "-s", store, f"pid:{client.pid}")
        assert all(line.isprintable() for line in shown.stdout.splitlines()), shown.stdout


@pytest.mark.parametrize("command", ["record", "snapshot"])
def test_no_command_line_is_kept_if_that_is_not_wanted(left: Namespace, store: Path, command: str) -> None:
    with Program("udp_server", left.v4, 7989, "--reuseport", namespace=left).ready() as server:
        for options in (["--no-cmdline"], []):
            path = store.with_name(f"{command}{len(options)}.db")
            more = ["--duration", "0.1"] if command == "record" else []
            done = pktproc(command, "-o", path, *more, *options)
            assert done.returncode == 0, done.stderr
            with closing(sqlite3.connect(path)) as reader:
                kept = [row[0] for row in reader.execute("SELECT cmdline FROM process")]
                ((own,),) = reader.execute("SELECT cmdline FROM process WHERE pid = ?", (server.pid,))
            if options:
                assert set(kept) == {None}
                assert b"--reuseport" not in path.read_bytes()
            else:
                assert json.loads(own)[-1] == "--reuseport"


def test_snapshots_add_up(left: Namespace, store: Path) -> None:
    with Program("udp_server", left.v4, 7988, namespace=left).ready() as server:
        for _ in range(2):
            done = pktproc("snapshot", "-o", store)
            assert done.returncode == 0, done.stderr
            assert f"kept in {store}" in done.stderr
        once = pktproc("who", "-s", store, ":7988", "--at", "now-1h")
    assert [pids(one) for one in who(store, ":7988", netns=left)] == [[server.pid]] * 2
    assert "recording did not run then" in once.stderr
    assert [path.name for path in store.parent.iterdir()] == [store.name]
    assert store.stat().st_mode & 0o777 == 0o600


class TestEnds:
    """However a recording ends, the store is readable."""

    def test_sigterm_is_a_normal_end_with_a_summary(self, store: Path) -> None:
        with Recorder(store) as recorder:
            recorder.child.send_signal(signal.SIGTERM)
            assert recorder.finish() == 0, recorder.describe()
            talk = recorder.stderr.so_far()
        assert any("looks in" in line for line in talk)
        assert f"{store.stat().st_size} bytes in the store" in talk
        assert not any("Traceback" in line for line in talk)
        assert [path.name for path in store.parent.iterdir()] == [store.name]

    def test_ctrl_c_ends_at_once_between_two_looks(self, store: Path) -> None:
        with Recorder(store, interval_s=600) as recorder:
            begun = time.monotonic()
            recorder.stop()
            assert time.monotonic() - begun < 5

    @ENGINES
    def test_a_duration_ends_it(self, store: Path, engine: str) -> None:
        begun = time.time()
        done = pktproc("record", "-o", store, "--duration", "1.5", "--interval", "0.5", "--engine", engine)
        assert done.returncode == 0, done.stderr
        with closing(sqlite3.connect(store)) as reader:
            ((first, last),) = reader.execute("SELECT first, last FROM coverage")
        assert begun <= first / NS_PER_S
        assert 1.5 <= (last - first) / NS_PER_S < 5
        assert "4 looks in" in done.stderr

    def test_a_kill_loses_no_more_than_the_last_interval(self, left: Namespace, store: Path) -> None:
        with (
            Program("udp_server", left.v4, 7987, namespace=left).ready() as server,
            Recorder(store) as recorder,
        ):
            recorder.saw(server.pid, 7987).looked_again()
            recorder.child.kill()
            killed_ns = time.time_ns()
            recorder.child.wait()
        with closing(sqlite3.connect(store)) as reader:
            assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            ((last,),) = reader.execute("SELECT last FROM coverage")
        assert killed_ns - last < 2 * NS_PER_S
        (connection,) = who(store, ":7987", netns=left)
        assert pids(connection) == [server.pid]
        assert "not_after" not in connection
        assert pktproc("record", "-o", store, "--duration", "0.1").returncode == 0
        assert len(who(store, ":7987", netns=left)) == 1

    def test_a_full_disk_is_one_clear_error(self, tmp_path: Path) -> None:
        mount = f'mount -t tmpfs -o size=64k tmpfs {tmp_path} && exec "$@"'
        command = pktproc_command("record", "-o", tmp_path / "day.db")
        with Command(["unshare", "--mount", "sh", "-c", mount, "sh", *command]) as recorder:
            assert recorder.finish() == 1, recorder.describe()
            errors = [line for line in recorder.stderr.so_far() if "space" in line]
            assert len(errors) == 1, recorder.describe()
            assert not any("Traceback" in line for line in recorder.stderr.so_far()), recorder.describe()

    def test_a_store_that_is_removed_ends_it_with_one_line(self, store: Path) -> None:
        with Recorder(store) as recorder:
            store.unlink()
            assert recorder.finish() == 1, recorder.describe()
            assert f"pktproc: {store} was removed while pktproc recorded into it" in recorder.stderr.so_far()


def test_a_second_recorder_is_refused(store: Path) -> None:
    with Recorder(store) as recorder:
        for arguments in (("record", "-o", store), ("snapshot", "-o", store)):
            done = pktproc(*arguments)
            assert done.returncode == 1
            assert done.stderr == f"pktproc: {store}: another pktproc is recording into it\n"
        recorder.looked_again()
        recorder.stop()
    assert pktproc("snapshot", "-o", store).returncode == 0


@pytest.mark.parametrize("arguments", [("record", "-o"), ("snapshot", "-o"), ("who", ":80", "-s")])
def test_a_newer_format_is_refused_in_one_line(store: Path, arguments: tuple[str, ...]) -> None:
    Store(store).close()
    with closing(sqlite3.connect(store)) as writer:
        writer.execute(f"PRAGMA user_version = {len(layout.MIGRATIONS) + 1}")
    done = pktproc(*arguments, store)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "use a newer pktproc" in line


def test_evidence_that_is_too_old_is_dropped(left: Namespace, right: Namespace, store: Path) -> None:
    with (
        Program("udp_server", right.v4, 7986, namespace=right).ready() as server,
        Recorder(store, "--max-age", "1") as recorder,
    ):
        with Program("udp_client", right.v4, 7986, namespace=left) as client:
            client.expect("done")
            recorder.saw(client.pid)
        gone = "SELECT count(*) FROM process WHERE pid = ?"
        until(lambda: recorder.ask(gone, client.pid) == [(0,)])
        recorder.stop()
    assert who(store, f"pid:{client.pid}") == []
    assert pids(who(store, f"pid:{server.pid}")[0]) == [server.pid]


def test_a_store_that_is_too_large_loses_its_oldest_evidence(store: Path) -> None:
    begin_ns = time.time_ns() - 3600 * NS_PER_S
    local = pack_address("10.77.0.1")
    with closing(Store(store)) as filled, filled.transaction():
        coverage = filled.begin_coverage(begin_ns, "netlink", hears_ends=True, interval_ns=NS_PER_S)
        for number in range(59_000):
            at_ns = begin_ns + number * 1_000_000
            socket = Socket(HOME, 17, local, number % 60_000, UNSPECIFIED_V4, 0, 7, number, number, 0)
            filled.add_socket(socket, None, at_ns, at_ns, at_ns)
        filled.extend_coverage(coverage, at_ns, at_ns)
    assert store.stat().st_size > 8 << 20
    with Recorder(store, "--max-size", "8M") as recorder:
        until(lambda: store.stat().st_size < 8 << 20)
        recorder.stop()
    with closing(sqlite3.connect(store)) as reader:
        ((count, oldest),) = reader.execute("SELECT count(*), min(last) FROM socket")
        ((first,),) = reader.execute("SELECT min(first) FROM coverage")
    assert 5_000 < count < 59_000
    assert begin_ns < first <= oldest + 1


def test_a_recording_can_be_read_by_other_programs_meanwhile(left: Namespace, store: Path) -> None:
    with (
        Program("udp_server", left.v4, 7985, namespace=left).ready() as server,
        Recorder(store) as recorder,
    ):
        recorder.saw(server.pid, 7985)
        assert [pids(one) for one in who(store, ":7985", netns=left)] == [[server.pid]]
        with closing(sqlite3.connect(store)) as reader:
            query = "SELECT pid FROM socket JOIN holder ON socket = socket.id JOIN process ON process = process.id"
            assert (server.pid,) in reader.execute(f"{query} WHERE local_port = 7985").fetchall()
        recorder.stop()


def test_without_privileges_own_processes_are_recorded_and_the_lack_is_said(left: Namespace, tmp_path: Path) -> None:
    folder = tmp_path / "nobody"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    for above in folder.parents:
        if above.owner() == "root" and above != above.parent and str(above).startswith("/tmp/"):
            above.chmod(above.stat().st_mode | 0o055)
    path = folder / "day.db"
    command = pktproc_command("record", "-o", path, "--duration", "1")
    with (
        Program("udp_server", left.v4, 7984, namespace=left, prefix=as_nobody()).ready() as own,
        Program("udp_server", left.v4, 7983, namespace=left).ready(),
        Command([*as_nobody(), *command], left) as recorder,
    ):
        assert recorder.finish() == 0, recorder.describe()
        talk = "\n".join(recorder.stderr.so_far())
    assert "may not be inspected" in talk
    assert [pids(one) for one in who(path, ":7984", netns=left)] == [[own.pid]]
    assert [pids(one) for one in who(path, ":7983", netns=left)] == [[]]
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("SELECT hears_ends FROM coverage").fetchall() == [(0,)]
