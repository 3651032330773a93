"""The bed's programs agree with ss(8) about who holds which socket, and with tcpdump about what was sent."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bed.namespaces import Namespace, NamespacePair
from bed.program import TIMEOUT, Command, Program, program_environment
from bed.ss import socket_holders

_KILLED = """
import os, signal, subprocess
from bed.namespaces import NamespacePair
with NamespacePair() as pair:
    inside = pair.left.enter(["sh", "-c", "echo; exec sleep 600"])
    left_running = subprocess.Popen(inside, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    left_running.stdout.readline()
    print(left_running.pid, pair.left.path, pair.right.path, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_namespaces_are_joined_and_removed() -> None:
    with NamespacePair() as pair:
        pair.left.run("ping", "-c1", "-W5", pair.right.v4)
        pair.left.run("ping", "-c1", "-W5", pair.right.v6)
        assert pair.left.inode != pair.right.inode
    assert [space for space in (pair.left, pair.right) if space.path.exists()] == []


def test_what_a_killed_run_left_behind_is_removed() -> None:
    maker = [sys.executable, "-c", _KILLED]
    killed = subprocess.run(maker, check=False, env=program_environment(), capture_output=True, text=True, timeout=30)
    pid, *names = killed.stdout.split()
    assert [Path(name).exists() for name in names] == [True, True]
    left_running = os.pidfd_open(int(pid))
    try:
        with NamespacePair():
            assert [Path(name).exists() for name in names] == [False, False]
        assert select.select([left_running], [], [], TIMEOUT)[0]
    finally:
        os.close(left_running)


def test_what_a_living_run_made_stays_and_what_had_its_pid_before_goes(left: Namespace) -> None:
    former = left.path.with_name(f"pp{os.getpid()}-1-0l")
    subprocess.run(["ip", "netns", "add", former.name], check=True, timeout=30)
    with NamespacePair():
        assert (left.path.exists(), former.exists()) == (True, False)


def test_tcp_programs_tell_their_ends(left: Namespace, right: Namespace) -> None:
    with (
        Program("tcp_server", right.v4, 7000, namespace=right).ready() as server,
        Program("tcp_client", right.v4, 7000, namespace=left).ready() as client,
    ):
        client.expect("done")
        (accepted,) = server.expect("accepted")
        (done,) = client.expect("done")
        assert accepted["remote"] == done["local"]
        assert done["pid"] == client.pid
        assert socket_holders(left, "tcp")[tuple(done["local"])] == {client.pid}
        assert socket_holders(right, "tcp")[right.v4, 7000] == {server.pid}


@pytest.mark.parametrize("address", ["v4", "v6"])
def test_udp_programs_tell_their_ends(left: Namespace, right: Namespace, address: str) -> None:
    peer = getattr(right, address)
    with (
        Program("udp_server", peer, 7001, namespace=right).ready() as server,
        Program("udp_client", peer, 7001, "--count", 3, namespace=left).ready() as client,
    ):
        (done,) = client.expect("done")
        assert [datagram["remote"] for datagram in server.expect("datagram", 3)] == [done["local"]] * 3
        assert socket_holders(left, "udp")[tuple(done["local"])] == {client.pid}


def test_mapped_clients_reach_a_dual_stack_server(left: Namespace, right: Namespace) -> None:
    with (
        Program("tcp_server", "::", 7002, "--dual", namespace=right).ready() as server,
        Program("tcp_client", right.v4, 7002, "--mapped", namespace=left).ready() as client,
    ):
        (done,) = client.expect("done")
        (accepted,) = server.expect("accepted")
        assert accepted["remote"] == done["local"] == [left.v4, done["local"][1]]
        assert socket_holders(left, "tcp")[tuple(done["local"])] == {client.pid}


def test_prefork_workers_tell_whom_they_served(left: Namespace, right: Namespace) -> None:
    with (
        Program("tcp_prefork", right.v4, 7003, namespace=right).ready() as server,
        Program("parallel_clients", right.v4, 7003, "--clients", 4, namespace=left) as clients,
    ):
        told = {tuple(event["local"]): event["pid"] for event in clients.expect("client", 4)}
        served = {tuple(event["remote"]): event["pid"] for event in server.expect("accepted", 4)}
        assert told.keys() == served.keys()
        assert set(served.values()) <= set(server.events("ready")[0]["workers"])
        holders = socket_holders(left, "tcp")
        assert {end: holders[end] for end in told} == {end: {pid} for end, pid in told.items()}


def test_storm_tells_every_child(left: Namespace, right: Namespace) -> None:
    with (
        Program("tcp_server", right.v4, 7004, namespace=right).ready() as server,
        Program("storm", right.v4, 7004, "--count", 20, "--life-ms", 5, namespace=left).ready() as storm,
    ):
        storm.say()
        (done,) = storm.expect("done")
        children = storm.events("child")
        assert done["median_life_ms"] == pytest.approx(5, abs=3)
        assert len({child["child"] for child in children}) == 20
        accepted = [event["remote"][1] for event in server.expect("accepted", 20)]
        assert accepted == [child["port"] for child in children]


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_passed_socket_belongs_to_its_receiver(left: Namespace, right: Namespace, transport: str) -> None:
    options = ["--udp"] if transport == "udp" else []
    with (
        Program(f"{transport}_server", right.v4, 7005, namespace=right).ready(),
        Program("fd_passing", right.v4, 7005, *options, namespace=left) as passing,
    ):
        passing.say()
        (created,) = passing.expect("created")
        end = tuple(created["local"])
        assert socket_holders(left, transport)[end] == {created["creator"]}
        passing.say()
        passing.expect("passed")
        assert socket_holders(left, transport)[end] == {passing.pid}
        passing.say()
        assert passing.expect("used")[0]["local"] == list(end)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_tuple_is_used_by_two_processes(left: Namespace, right: Namespace, transport: str) -> None:
    options = ["--udp"] if transport == "udp" else []
    with (
        Program(f"{transport}_server", right.v4, 7006, namespace=right).ready(),
        Program("tuple_reuse", right.v4, 7006, "--source-port", 7106, *options, namespace=left).ready() as reuse,
    ):
        reuse.say()
        first, second = reuse.expect("used", 2)
        assert first["local"] == second["local"] == [left.v4, 7106]
        assert first["pid"] != second["pid"]


def test_reuseport_owners_tell_their_own_datagrams(left: Namespace, right: Namespace) -> None:
    with (
        Program("udp_server", right.v4, 7007, "--reuseport", namespace=right).ready() as first,
        Program("udp_server", right.v4, 7007, "--reuseport", namespace=right).ready() as second,
    ):
        for _ in range(8):
            with Program("udp_client", right.v4, 7007, namespace=left) as client:
                client.expect("done")
        assert len(first.events("datagram")) + len(second.events("datagram")) == 8
        assert socket_holders(right, "udp")[right.v4, 7007] == {first.pid, second.pid}


def test_flood_sends_what_it_says(left: Namespace, right: Namespace) -> None:
    with (
        Command(["tcpdump", "-ni", left.interface, "-B", "32768", "-w", "/dev/null", "udp port 7008"], left) as tcpdump,
        Program("udp_server", right.v4, 7008, "--silent", namespace=right).ready(),
        Program("udp_flood", right.v4, 7008, "--count", 50000, "--rate", 200000, namespace=left).ready() as flood,
    ):
        assert tcpdump.stderr.find(lambda line: "listening" in line, 1, TIMEOUT)
        flood.say()
        (done,) = flood.expect("done")
        tcpdump.child.send_signal(signal.SIGINT)
        tcpdump.finish()
        assert done["sent"] == 50000
        assert done["rate"] == pytest.approx(200000, rel=0.2)
        assert any(line.startswith("50000 packets received by filter") for line in tcpdump.stderr.so_far())
