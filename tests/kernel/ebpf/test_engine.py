"""The engine as a whole: who holds what is older than it, and what is said where it does not work."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bed.program import program_environment
from bed.waiting import until
from pktproc.attribution.engine import Use, Way
from pktproc.kernel import namespaces
from pktproc.kernel.ebpf.engine import EbpfEngine
from pktproc.kernel.ebpf.programs import MOST_EVENTS
from pktproc.kernel.netlink_engine import NetlinkEngine


def _without(path: str, instead: str) -> list[str]:
    """Return the prefix that runs a command with something else mounted in the place of a folder or of libbpf."""
    mount = (
        f"mount -t tmpfs none {path}" if instead == "tmpfs" else f"for f in {path}; do mount --bind {instead} $f; done"
    )
    return ["unshare", "--mount", "sh", "-c", f'{mount}; exec "$@"', "sh"]


SNIFF = [sys.executable, "-m", "pktproc", "sniff", "-i", "lo", "--engine", "ebpf", "-c", "1"]


@pytest.fixture
def engine() -> Iterator[EbpfEngine]:
    engine = EbpfEngine()
    yield engine
    engine.close()


def test_a_look_at_everyone_finds_what_a_look_through_proc_finds(engine: EbpfEngine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        inode = os.fstat(listener.fileno()).st_ino
        with subprocess.Popen(["sleep", "60"], pass_fds=[listener.fileno()]) as heir:
            command_line = Path(f"/proc/{heir.pid}/cmdline")
            until(lambda: command_line.read_bytes() == b"sleep\x0060\0")  # it may still be beginning
            found, nothing = engine.everyone({inode: 0, 1: None}), engine.everyone({1: None})
            portable = NetlinkEngine()
            expected = portable.everyone({inode: 0})
            portable.close()
            heir.kill()
    assert {process.pid for process in found.holders[inode]} == {os.getpid(), heir.pid}
    described = [{(p.id, p.name, p.exe, p.cmdline) for p in each.holders[inode]} for each in (found, expected)]
    assert described[0] == described[1]
    assert (found.complete, nothing.complete, nothing.holders) == (True, True, {})


def test_the_end_of_a_socket_that_the_programs_told_of_is_not_told_again(engine: EbpfEngine) -> None:
    reset = struct.pack("ii", 1, 0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        engine.told()
        engine.ended()
        with socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0] as accepted:
            ports = {port, client.getsockname()[1]}
            client.send(b"x")
            accepted.recv(1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        assert engine.wait_for_ends(5)
        ended = engine.ended()
        told = engine.told()
    assert not [one for one in ended.sockets if {one.local_port, one.remote_port} == ports]
    pids = {use.ends.local_port: use.process.pid for use in told.uses if use.process}
    assert {found: pids[found] for found in ports} == dict.fromkeys(ports, os.getpid())


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["listener", "datagrams"])
def test_the_end_of_a_socket_is_heard_that_was_bound_and_never_used(engine: EbpfEngine, kind: int) -> None:
    engine.namespaces()
    engine.sockets(namespaces.current())  # of whose ends is heard from then on
    with socket.socket(type=kind) as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        if kind == socket.SOCK_STREAM:
            bound.listen()
    heard: set[int] = set()
    told: list[Use] = []
    deadline = time.monotonic() + 5
    while port not in heard and time.monotonic() < deadline:
        heard |= {ended.local_port for ended in engine.ended().sockets}
        told += engine.told().uses
    assert port in heard
    assert [use.process.pid for use in told if use.ends.local_port == port and use.process] == [os.getpid()]


def test_after_a_loss_the_end_of_a_socket_is_heard_that_was_told_of_before(engine: EbpfEngine) -> None:
    engine.namespaces()
    engine.sockets(namespaces.current())
    with socket.socket(type=socket.SOCK_DGRAM) as sink, socket.socket(type=socket.SOCK_DGRAM) as used:
        sink.bind(("127.0.0.1", 0))
        used.sendto(b"x", sink.getsockname())
        port = used.getsockname()[1]
        assert [use.way for use in engine.told().uses if use.ends.local_port == port] == [Way.SENT]
        for _ in range(MOST_EVENTS + 1):
            with socket.socket(type=socket.SOCK_DGRAM) as one:
                one.bind(("127.0.0.1", 0))
        assert engine.told().lost > 0
        engine.ended()
    heard: set[int] = set()
    deadline = time.monotonic() + 5
    while port not in heard and time.monotonic() < deadline:
        heard |= {ended.local_port for ended in engine.ended().sockets}
        assert not any(use.ends.local_port == port for use in engine.told().uses)
    assert port in heard


LACKS = pytest.mark.parametrize(
    ("prefix", "cure"),
    [
        (["setpriv", "--inh-caps=-bpf,-sys_admin", "--bounding-set=-bpf,-sys_admin"], "CAP_BPF"),
        (["unshare", "--cgroup"], "--cgroupns=host"),
        (["unshare", "--mount", "sh", "-c", 'umount -a -t cgroup2; exec "$@"', "sh"], "mount -t cgroup2"),
        (_without("/sys/kernel/btf", "tmpfs"), "CONFIG_DEBUG_INFO_BTF"),
        (_without("/usr/lib/*/libbpf.so.*", "/dev/null"), "apt install libbpf1"),
    ],
    ids=["no capability", "container", "no cgroup v2", "no type information", "no libbpf"],
)


@LACKS
def test_where_it_does_not_work_the_command_ends_with_the_cure(prefix: list[str], cure: str) -> None:
    told = subprocess.run(
        [*prefix, *SNIFF], capture_output=True, text=True, check=False, timeout=60, env=program_environment()
    )
    assert told.returncode == 3, told
    (line,) = told.stderr.splitlines()
    assert line.startswith("pktproc: ")
    assert cure in line


@LACKS
def test_where_it_does_not_work_auto_goes_on_without_it_and_says_why(prefix: list[str], cure: str) -> None:
    told = _sniff_shortly(prefix)
    assert told.returncode == 0, told
    (why,) = (line for line in told.stderr.splitlines() if "ebpf" in line)
    assert why.startswith("pktproc: engine netlink, since ebpf does not work: ")
    assert cure in why
    assert "pktproc: listening on lo, engine netlink" in told.stderr.splitlines()


def test_where_it_works_auto_takes_it() -> None:
    told = _sniff_shortly([])
    assert told.returncode == 0, told
    assert "pktproc: listening on lo, engine ebpf" in told.stderr.splitlines()


def _sniff_shortly(prefix: list[str]) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-m", "pktproc", "sniff", "-i", "lo", "--duration", "0.1"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=program_environment())
