"""`pktproc who`: what is asked for, and the answers as tables and JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attribution.host import HOME
from pktproc.attribution.engine import Addresses
from pktproc.cli.who import parse_wanted
from pktproc.errors import UsageError
from pktproc.model import Protocol, pack_address
from pktproc.snapshots.wanted import Wanted
from snapshots.bench import OURS, THEIRS, Bench, at

PKTPROC = [sys.executable, "-m", "pktproc", "who"]
OURS6 = "fd77::1"
NS_PER_S = 1_000_000_000


def run(*arguments: object, zone: str = "UTC") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TZ": zone}
    command = [*PKTPROC, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environment)


def ask(*arguments: object) -> list[dict[str, Any]]:
    told = run(*arguments, "--json")
    assert told.returncode == 0, told.stderr
    answer = json.loads(told.stdout)
    assert isinstance(answer, list)
    return answer


def names(answer: list[dict[str, Any]]) -> list[list[str]]:
    return [[holder["name"] for holder in connection["holders"]] for connection in answer]


def clock(seconds: float) -> str:
    """Return a time of the record as epoch seconds."""
    return f"{at(seconds) / NS_PER_S:.3f}"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Record half a minute: a server, curl from 2 s to 7 s on a port that dig has from 10 s on, one over IPv6."""
    bench = Bench(tmp_path_factory.mktemp("store") / "day.db")
    bench.host.spaces[HOME] = Addresses(frozenset({pack_address(OURS), pack_address(OURS6)}))
    server = bench.host.start("nginx", uid=33)
    bench.listen(server, port=443)
    bench.recorder.look()
    curl = bench.host.start("curl", pid=443)
    bench.look()
    connection = bench.connect(curl, port=40000)
    bench.look()
    for _ in range(5):
        bench.look()
    bench.host.close(connection)
    bench.look()
    for _ in range(2):
        bench.look()
    dig = bench.host.start("dig")
    bench.connect(dig, port=40000, remote_port=53, protocol=Protocol.UDP)
    bench.host.open(dig, (OURS6, 40000), ("fd77::2", 53), protocol=Protocol.UDP)
    for _ in range(20):
        bench.look()
    bench.end()
    return bench.path


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("10.0.0.5", Wanted(address=pack_address("10.0.0.5"))),
        ("10.0.0.5:443", Wanted(address=pack_address("10.0.0.5"), port=443)),
        ("fd00::1", Wanted(address=pack_address("fd00::1"))),
        ("[fd00::1]", Wanted(address=pack_address("fd00::1"))),
        ("[fd00::1]:443", Wanted(address=pack_address("fd00::1"), port=443)),
        ("::ffff:10.0.0.5", Wanted(address=pack_address("10.0.0.5"))),
        ("fe80::1%eth0", Wanted(address=pack_address("fe80::1"))),
        ("::1", Wanted(address=pack_address("::1"))),
        (":443", Wanted(port=443)),
        ("443", Wanted(port=443, pid=443)),
        ("70000", Wanted(pid=70000)),
        ("pid:443", Wanted(pid=443)),
    ],
)
def test_what_is_asked_for(text: str, wanted: Wanted) -> None:
    expected = wanted.address
    if expected is not None and text.startswith("::ffff:"):
        expected = bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 5])
    assert parse_wanted(text) == Wanted(expected, wanted.port, wanted.pid)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nginx",
        ":",
        ":x",
        ":70000",
        "10.0.0.5:70000",
        "10.0.0:80",
        "[fd00::1]:",
        "pid:",
        "pid:x",
        "-1",
        "٣",
        "1.2.3.4:٣",
        "0",
        ":0",
        "pid:0",
        "10.0.0.5:0",
    ],
)
def test_what_means_nothing_is_wrong_use(text: str) -> None:
    with pytest.raises(UsageError):
        parse_wanted(text)


def test_an_address_is_found_at_either_end(store: Path) -> None:
    assert names(ask("-s", store, OURS)) == [["curl"], ["dig"]]
    assert names(ask("-s", store, THEIRS)) == [["curl"], ["dig"]]
    assert names(ask("-s", store, OURS6)) == [["dig"]]
    assert ask("-s", store, "10.9.9.9") == []


def test_an_address_with_a_port_is_one_end_and_the_listener_there(store: Path) -> None:
    assert names(ask("-s", store, f"{OURS}:40000")) == [["curl"], ["dig"]]
    assert names(ask("-s", store, f"{THEIRS}:80")) == [["curl"]]
    assert names(ask("-s", store, f"[{OURS6}]:40000")) == [["dig"]]
    assert names(ask("-s", store, f"{OURS}:443")) == [["nginx"]]
    assert names(ask("-s", store, f"{THEIRS}:443")) == []


def test_a_port_a_pid_and_a_number_that_is_both(store: Path) -> None:
    assert names(ask("-s", store, ":443")) == [["nginx"]]
    assert names(ask("-s", store, "pid:443")) == [["curl"]]
    assert names(ask("-s", store, "443")) == [["nginx"], ["curl"]]
    assert names(ask("-s", store, ":53")) == [["dig"], ["dig"]]


def test_a_time_chooses_among_those_that_used_a_port(store: Path) -> None:
    assert names(ask("-s", store, ":40000", "--at", clock(4))) == [["curl"]]
    assert names(ask("-s", store, ":40000", "--at", clock(15))) == [["dig"], ["dig"]]
    assert names(ask("-s", store, ":40000", "--from", clock(5))) == [["curl"], ["dig"], ["dig"]]
    assert names(ask("-s", store, ":40000", "--to", clock(5))) == [["curl"]]
    assert names(ask("-s", store, "pid:443", "--from", clock(9), "--to", clock(20))) == []


def test_the_json_has_the_ends_the_times_and_the_holders(store: Path) -> None:
    (connection,) = ask("-s", store, "pid:443")
    assert connection["local"] == {"ip": OURS, "port": 40000}
    assert connection["remote"] == {"ip": THEIRS, "port": 80}
    assert connection["network"] == {"transport": "tcp", "iana_number": "6"}
    assert connection["netns"] == HOME
    assert connection["store"] == str(store)
    assert connection["first_seen"] == "2023-11-14T23:36:42.000000000Z"
    assert connection["not_before"] == "2023-11-14T23:36:41.000000000Z"
    assert connection["not_after"] == "2023-11-14T23:36:48.000000000Z"
    (holder,) = connection["holders"]
    assert (holder["pid"], holder["name"], holder["user"]) == (443, "curl", {"id": "1000"})
    (listening,) = ask("-s", store, ":443")
    assert listening["listening"] is True
    assert "remote" not in listening
    assert "not_before" not in listening


def test_the_tables_show_connections_and_processes_in_local_time(store: Path) -> None:
    told = run("-s", store, ":40000", "--at", "2023-11-15 00:36:45", zone="CET-1")
    assert told.returncode == 0
    connections, _, processes = told.stdout.partition("\n\n")
    heading, line = connections.splitlines()
    assert heading.split() == ["FROM", "TO", "PROTO", "LOCAL", "REMOTE", "PROCESS"]
    assert line.split() == [
        "2023-11-15", "00:36:42.000", "2023-11-15", "00:36:47.000", "tcp", f"{OURS}:40000", f"{THEIRS}:80", "curl[443]"
    ]  # fmt: skip
    heading, line = processes.splitlines()
    assert heading.split()[:2] == ["PID", "NAME"]
    assert line.split()[:2] == ["443", "curl"]
    assert told.stderr == ""


def test_unknown_beginnings_and_ends_are_marked(store: Path) -> None:
    line = run("-s", store, ":443").stdout.splitlines()[1]
    assert line.startswith("<2023-11-14 23:36:40.000  >2023-11-14 23:37:")
    assert "0.0.0.0:443" in line
    assert "listening" in line


def test_nothing_found_is_said_with_the_reason(store: Path) -> None:
    nothing = run("-s", store, ":9")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert nothing.stderr == "pktproc: nothing recorded of :9 then\n"
    uncovered = run("-s", store, ":443", "--at", "1999-01-01")
    assert uncovered.returncode == 0
    assert uncovered.stderr.startswith("pktproc: recording did not run then: it began at 2023-11-14 23:36:40")
    assert run("-s", store, ":9", "--json").stdout == "[]\n"


def test_a_time_between_two_recordings_is_told_with_both(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "store.db")
    bench.listen(bench.host.start("nginx"))
    bench.recorder.look()
    bench.recorder.close()
    bench.clock.advance(3_600_000)
    bench.recorder = bench.new_recorder()
    bench.recorder.look()
    bench.end()
    told = run("-s", bench.path, ":80", "--at", clock(1800)).stderr
    assert told == (
        "pktproc: recording did not run then: it ended at 2023-11-14 23:36:40.000 and began again at 2023-11-15"
        " 00:36:40.000\n"
    )
    assert "it ended at 2023-11-15 00:36:40.000\n" in run("-s", bench.path, ":80", "--from", clock(9999)).stderr


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """Record a web server on the wildcard with one connection that a look found and one that none did."""
    bench = Bench(tmp_path / "server.db")
    bench.host.spaces[HOME] = Addresses(frozenset({pack_address(OURS)}))
    nginx = bench.host.start("nginx")
    bench.listen(nginx)
    bench.listen(bench.host.start("sshd"), port=22)
    bench.recorder.look()
    worker = bench.host.start("worker")
    bench.host.open(worker, (OURS, 80), (THEIRS, 40001))
    bench.look()
    bench.host.close(bench.host.open(worker, (OURS, 80), (THEIRS, 40002)))
    bench.look()
    bench.look()
    bench.end()
    return bench.path


def test_a_connection_that_no_look_found_is_marked_and_its_listener_shown(server: Path) -> None:
    listener, connection = ask("-s", server, ":40002")
    assert listener["listening"] is True
    assert [holder["name"] for holder in listener["holders"]] == ["nginx"]
    assert (connection["holders"], connection["only_end_heard"]) == ([], True)
    lines = run("-s", server, ":40002").stdout.splitlines()
    assert lines[1].split()[-1].startswith("nginx[")
    assert lines[2].startswith("? ")
    assert names(ask("-s", server, ":40001")) == [["worker"]]
    assert "only_end_heard" not in ask("-s", server, ":40001")[0]


def test_an_address_is_shown_with_the_wildcard_listeners_that_served_it(server: Path) -> None:
    assert sorted(names(ask("-s", server, OURS))) == [[], ["nginx"], ["worker"]]
    assert sorted(names(ask("-s", server, THEIRS))) == [[], ["nginx"], ["worker"]]


def test_several_stores_are_told_apart(store: Path, tmp_path: Path) -> None:
    other = Bench(tmp_path / "other.db")
    other.listen(other.host.start("apache"), port=443)
    other.recorder.look()
    other.end()
    told = run("-s", store, "-s", other.path, ":443").stdout
    assert told.splitlines()[0].split()[-1] == "STORE"
    assert {line.split()[-1] for line in told.splitlines()[1:3]} == {str(store), str(other.path)}
    assert names(ask("-s", store, "-s", other.path, ":443")) == [["nginx"], ["apache"]]


def test_hostile_names_are_spelled_out(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "store.db")
    bench.listen(bench.host.start("evil\x1b[31m\n\u202e\udcff name"))
    bench.recorder.look()
    bench.end()
    told = run("-s", bench.path, ":80")
    assert told.returncode == 0
    assert told.stdout.isprintable() or all(line.isprintable() for line in told.stdout.splitlines())
    assert "\\x1b[31m\\x0a" in told.stdout
    (connection,) = ask("-s", bench.path, ":80")
    assert connection["holders"][0]["name"] == "evil\x1b[31m\n\u202e\\xff name"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nginx"], "nginx"),
        ([":443", "--at", "yesterdayish"], "yesterdayish"),
        ([":443", "--at", "now", "--from", "now"], "--at"),
        ([":443", "--from", "now", "--to", "now-1h"], "--from"),
        ([], "WHAT"),
    ],
)
def test_wrong_use_is_one_line(store: Path, arguments: list[str], named: str) -> None:
    told = run("-s", store, *arguments)
    assert (told.returncode, told.stdout) == (2, "")
    (line,) = told.stderr.splitlines()
    assert named in line


def test_a_missing_store_is_one_line(tmp_path: Path) -> None:
    told = run("-s", tmp_path / "none.db", ":443")
    assert (told.returncode, told.stdout) == (1, "")
    (line,) = told.stderr.splitlines()
    assert "none.db: No such file or directory" in line


def test_help_needs_no_database() -> None:
    for command in ("who", "record", "snapshot"):
        told = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "pktproc", command, "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "STORE" in told.stdout
        imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in told.stderr.splitlines()}
        assert not imported & {"numpy", "scapy", "rich", "sqlite3", "cachetools"}, command
