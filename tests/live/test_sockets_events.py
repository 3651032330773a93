"""`pktproc sockets --events` and `--watch`: what opens and closes, with its owner, however short it lives."""

from __future__ import annotations

import json
import re
import signal
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bed.namespaces import Namespace
from bed.program import Command, Program
from bed.socket_tools import pktproc_sockets, run
from kernel.ebpf.exact_bed import ExactProgram

WAIT_S = 10.0
COUNT = 200
PORT = 7610


@contextmanager
def listening(inside: Namespace, *words: object) -> Iterator[Command]:
    """Run `pktproc sockets --events` in a namespace, from when it has begun to listen."""
    with Command(pktproc_sockets("-n", "--events", *words), inside) as events:
        assert events.stderr.find(lambda line: "watching" in line, 1, WAIT_S), events.describe()
        yield events


def interrupted(events: Command) -> list[str]:
    """End it as Ctrl-C does and return its lines."""
    events.child.send_signal(signal.SIGINT)
    assert events.finish() == 0, events.describe()
    return events.stdout.so_far()


def of_ports(lines: list[str], address: str) -> dict[int, list[tuple[str, tuple[str, ...]]]]:
    """Return, for each port of an address, what its socket did and whose pids were told."""
    found = defaultdict(list)
    for line in lines:
        _, action, _, _, local, _, *who = line.split()
        host, _, port = local.rpartition(":")
        if host == address:
            found[int(port)].append((action, tuple(re.findall(r"\[(\d+)\]", " ".join(who)))))
    return found


@pytest.mark.parametrize("version", ["v4", "v6"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("parallel", [1, 32])
def test_each_of_200_processes_that_live_a_millisecond_is_told(
    left: Namespace, right: Namespace, transport: str, version: str, parallel: int
) -> None:
    """The truth is what each process says of itself: its pid, and the port that getsockname(2) told it."""
    ours, theirs = getattr(left, version), getattr(right, version)
    kind = ["--udp"] if transport == "udp" else []
    crowd = ("crowd", theirs, PORT, "--count", COUNT, "--parallel", parallel, "--port", 20000, *kind)
    with (
        Program(f"{transport}_server", theirs, PORT, namespace=right).ready() as server,
        listening(left, "--engine", "ebpf", f"--{transport}") as near,
        listening(right, "--engine", "ebpf", f"--{transport}") as far,
        ExactProgram(*crowd, namespace=left).ready() as program,
    ):
        program.say()
        program.expect("done", timeout=60)
        truth = {child["port"]: child["child"] for child in program.events("child")}
        assert near.stdout.find(lambda line: " closed " in line, COUNT, WAIT_S)
        if transport == "tcp":
            assert far.stdout.find(lambda line: " closed " in line, COUNT, WAIT_S)
        near_lines, far_lines = interrupted(near), interrupted(far)
    address = f"[{ours}]" if version == "v6" else ours
    expected = {port: [("opened", (str(pid),)), ("closed", (str(pid),))] for port, pid in truth.items()}
    assert of_ports(near_lines, address) == expected
    accepted = [line for line in far_lines if any(f":{port} " in line for port in truth)]
    assert len(accepted) == (2 * COUNT if transport == "tcp" else 0)
    assert all(line.endswith(f"[{server.pid}]") or f"[{server.pid}] fd" in line for line in accepted)


@pytest.mark.parametrize("version", ["v4", "v6"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_each_of_200_sockets_that_only_listen_for_a_millisecond_is_told_with_its_owner(
    left: Namespace, transport: str, version: str
) -> None:
    """Of UDP each receives one datagram, of another socket than its own, which is told as well."""
    address = getattr(left, version)
    kind = ["--udp"] if transport == "udp" else []
    crowd = ("crowd", address, 0, "--listen", "--count", COUNT, "--port", 20000, *kind)
    with (
        listening(left, "--engine", "ebpf", f"--{transport}") as events,
        ExactProgram(*crowd, namespace=left).ready() as program,
    ):
        program.say()
        program.expect("done", timeout=60)
        truth = {child["port"]: str(child["child"]) for child in program.events("child")}
        assert events.stdout.find(lambda line: " closed " in line, COUNT * (1 + len(kind)), WAIT_S)
        told = of_ports(interrupted(events), f"[{address}]" if version == "v6" else address)
    assert {port: what for port, what in told.items() if port in truth} == {
        port: [("opened", (pid,)), ("closed", (pid,))] for port, pid in truth.items()
    }


@pytest.mark.parametrize("version", ["v4", "v6"])
def test_each_of_200_connections_that_are_refused_is_told_with_who_tried(
    left: Namespace, right: Namespace, version: str
) -> None:
    """They ask for no port, so that one can get what another had before."""
    address, server = getattr(left, version), getattr(right, version)
    crowd = ("crowd", server, PORT + 9, "--refused", "--count", COUNT)
    with (
        listening(left, "--engine", "ebpf", "-t", "--format", "json") as events,
        ExactProgram(*crowd, namespace=left).ready() as program,
    ):
        program.say()
        program.expect("done", timeout=60)
        truth = [(child["child"], child["port"]) for child in program.events("child")]
        assert events.stdout.find(lambda line: "socket-closed" in line, COUNT, WAIT_S)
        told = [json.loads(line) for line in interrupted(events)]
    assert {(each["local"]["ip"], each["remote"]["ip"], each["remote"]["port"]) for each in told} == {
        (address, server, PORT + 9)
    }
    for action in ("opened", "closed"):
        of_action = [each for each in told if each["event"]["action"] == f"socket-{action}"]
        assert sorted((each["process"]["pid"], each["local"]["port"]) for each in of_action) == sorted(truth)


def test_processes_that_are_gone_are_selected_and_described(left: Namespace, right: Namespace) -> None:
    crowd = ("crowd", right.v4, PORT, "--count", 20, "--port", 20000)
    with (
        Program("tcp_server", right.v4, PORT, namespace=right).ready(),
        ExactProgram(*crowd, namespace=left).ready() as wanted,
        ExactProgram(*crowd[:-1], 21000, namespace=left).ready() as other,
        listening(left, "--engine", "ebpf", "-t", "--pid", wanted.pid, "--follow", "--format", "json") as events,
    ):
        for program in (other, wanted):
            program.say()
            program.expect("done", timeout=60)
        assert events.stdout.find(lambda line: "socket-closed" in line, 20, WAIT_S)
        told = [json.loads(line) for line in interrupted(events)]
        truth = {child["port"]: child["child"] for child in wanted.events("child")}
    assert {(each["local"]["port"], each["process"]["pid"]) for each in told} == set(truth.items())
    assert all("kernel.ebpf.programs.crowd" in each["process"]["command_line"] for each in told)
    assert [each["@timestamp"] for each in told] == sorted(each["@timestamp"] for each in told)


def test_without_the_witness_what_is_too_short_for_a_look_is_heard_to_close_and_not_given_to_anybody(
    left: Namespace, right: Namespace
) -> None:
    crowd = ("crowd", right.v4, PORT, "--count", COUNT, "--port", 20000)
    with (
        Program("tcp_server", right.v4, PORT, namespace=right).ready(),
        listening(left, "--engine", "netlink", "-t") as events,
        ExactProgram(*crowd, namespace=left).ready() as program,
    ):
        program.say()
        program.expect("done", timeout=60)
        truth = {child["port"]: str(child["child"]) for child in program.events("child")}
        assert events.stdout.find(lambda line: " closed " in line, COUNT, WAIT_S)
        told = of_ports(interrupted(events), left.v4)
    assert told.keys() == truth.keys()
    assert all(what[-1][0] == "closed" for what in told.values())
    assert {pids for port, what in told.items() for _, pids in what if pids != (truth[port],)} == {()}


def test_a_socket_that_was_there_before_closes_with_its_owner(left: Namespace) -> None:
    with Program("tcp_server", "127.0.0.1", 7611, namespace=left).ready() as server, listening(left, "-t") as events:
        server.close()
        assert events.stdout.find(lambda line: " closed " in line and "127.0.0.1:7611 " in line, 1, WAIT_S)
        (line,) = interrupted(events)
    assert f"[{server.pid}] fd" in line


@pytest.mark.parametrize("engine", ["ebpf", "netlink"])
def test_who_held_a_connection_in_time_wait_is_known_where_it_was_seen(left: Namespace, engine: str) -> None:
    """The connection lives for less than lies between two looks: only the witness can know."""
    with (
        Program("tcp_server", "127.0.0.1", 7612, namespace=left).ready(),
        Command(pktproc_sockets("-ta", "-n", "--watch", "1", "--engine", engine), left) as watch,
    ):
        assert watch.stdout.find(lambda line: "LISTEN" in line, 1, WAIT_S), watch.describe()
        storm = ("storm", "127.0.0.1", 7612, "--count", 1, "--life-ms", 1)
        with Program(*storm, namespace=left).ready() as program:
            program.say()
            (child,) = program.expect("child")
        place = f"127.0.0.1:{child['port']} "
        assert watch.stdout.find(lambda line: "TIME-WAIT" in line and place in line, 1, WAIT_S), watch.describe()
        line = next(line for line in watch.stdout.so_far() if "TIME-WAIT" in line and place in line)
    truth = run(["ss", "-Htan", "state", "time-wait", "sport", "=", f":{child['port']}"], left).stdout
    assert place in truth
    assert (f"was python[{child['child']}]" in re.sub(r"python[\d.]*\[", "python[", line)) == (engine == "ebpf")
    assert "[" not in line or engine == "ebpf"


NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all,+dac_read_search",
          "--ambient-caps=-all,+dac_read_search", "--bounding-set=-all,+dac_read_search"]  # fmt: skip


def test_without_privileges_it_goes_on_by_looking_and_says_so(left: Namespace) -> None:
    with Command([*NOBODY, *pktproc_sockets("-u", "-n", "--events")], left) as events:
        assert events.stderr.find(lambda line: "watching" in line and "engine netlink" in line, 1, WAIT_S)
        with Program("udp_server", "127.0.0.1", 7613, namespace=left, prefix=NOBODY).ready() as server:
            told = f"[{server.pid}] fd"
            assert events.stdout.find(lambda line: " opened " in line and ":7613 " in line and told in line, 1, WAIT_S)
        assert events.stdout.find(lambda line: " closed " in line and ":7613 " in line and told in line, 1, WAIT_S)
        interrupted(events)
        talk = "\n".join(events.stderr.so_far())
    assert "since ebpf does not work" in talk
    assert "CAP_BPF" in talk
    assert "CAP_NET_ADMIN" in talk


def test_the_engine_that_was_asked_for_must_work(left: Namespace) -> None:
    done = run([*NOBODY, *pktproc_sockets("-u", "--events", "--engine", "ebpf")], left)
    assert (done.returncode, done.stdout) == (3, "")
    assert "CAP_BPF" in done.stderr


def test_a_connection_of_a_pre_fork_server_is_its_workers(left: Namespace, right: Namespace) -> None:
    """Which worker that was, it tells itself."""
    with (
        Program("tcp_prefork", right.v4, 7614, namespace=right).ready() as server,
        listening(right, "--engine", "ebpf", "-t") as events,
        Program("tcp_client", right.v4, 7614, "--leave", namespace=left).ready() as client,
    ):
        client.expect("done")
        (ready,) = client.events("ready")
        port = ready["local"][1]
        here = f" {right.v4}:7614 {left.v4}:{port} "
        assert events.stdout.find(lambda line: " closed " in line and here in line, 1, WAIT_S), events.describe()
        lines = [line for line in interrupted(events) if here in line]
        workers = {str(event["pid"]) for event in server.events("accepted")}
    assert [line.split()[1] for line in lines] == ["opened", "closed"]
    assert {pid for line in lines for pid in re.findall(r"\[(\d+)\]", line)} == workers
