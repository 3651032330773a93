"""Who holds a socket, by /proc/PID/fd: in made-up trees, and in the real one compared with lsof."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from kernel.fake_proc import FakeProc
from pktproc.attribution.engine import Holdings
from pktproc.kernel.holders import HolderScan
from pktproc.kernel.processes import ProcessReader

NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def scan(fake: FakeProc) -> HolderScan:
    return HolderScan(ProcessReader(fake.root))


def pids(found: Holdings) -> dict[int, set[int]]:
    return {inode: {process.pid for process in processes} for inode, processes in found.holders.items()}


def test_everyone_finds_all_holders_of_all_sockets(fake: FakeProc) -> None:
    fake.start(10, sockets=[7, 8])
    fake.start(20, sockets=[8])
    fake.start(30, sockets=[9])
    found = scan(fake).everyone({7: None, 8: None, 5: None})
    assert pids(found) == {7: {10}, 8: {10, 20}}
    assert (found.complete, found.denied) == (True, 0)


def test_a_socket_held_twice_by_a_process_is_held_by_one(fake: FakeProc) -> None:
    fake.start(10, sockets=[7, 7])
    assert [process.pid for process in scan(fake).everyone({7: None}).holders[7]] == [10]


def test_threads_are_no_holders(fake: FakeProc) -> None:
    fake.start(10, sockets=[7])
    fake.start(11, tgid=10, sockets=[7])
    assert pids(scan(fake).everyone({7: None})) == {7: {10}}


def test_newcomers_are_those_that_everyone_has_not_met(fake: FakeProc) -> None:
    fake.start(10, sockets=[7])
    for pid in range(11, 31):
        fake.start(pid)
    holders = scan(fake)
    holders.everyone({7: None})
    fake.start(40, sockets=[8])
    fake.hold(10, 9)
    found = holders.newcomers([8, 9])
    assert pids(found) == {8: {40}}
    assert not found.complete


def test_the_youngest_stay_newcomers_since_they_may_open_their_first_socket_later(fake: FakeProc) -> None:
    fake.start(10)
    holders = scan(fake)
    holders.everyone({})
    fake.hold(10, 9)
    assert pids(holders.newcomers([9])) == {9: {10}}


@pytest.mark.parametrize("first_descriptor", [3, 7, 8, 200])
def test_a_newcomer_is_found_wherever_among_its_descriptors_the_socket_is(
    fake: FakeProc, first_descriptor: int
) -> None:
    fake.start(10)
    holders = scan(fake)
    holders.everyone({})
    fake.descriptors_from(first_descriptor)
    fake.start(20, sockets=[8, 9])
    fake.latest_pid(22)
    assert pids(holders.newcomers([8, 9])) == {8: {20}, 9: {20}}


def test_the_parent_of_a_newcomer_is_asked_as_well(fake: FakeProc) -> None:
    """A forking server: the child that was just born shares the connection with its parent."""
    fake.start(10, ppid=1, sockets=[7])
    holders = scan(fake)
    holders.everyone({})
    fake.hold(10, 8)
    fake.start(20, ppid=10, sockets=[8])
    assert pids(holders.newcomers([8])) == {8: {10, 20}}


def test_newcomers_are_found_also_after_the_pids_began_anew(fake: FakeProc) -> None:
    fake.start(32000, sockets=[7])
    holders = scan(fake)
    holders.everyone({})
    fake.start(300, sockets=[8])
    assert pids(holders.newcomers([8])) == {8: {300}}


def test_a_look_that_found_all_stops(fake: FakeProc) -> None:
    """The older newcomer shares the socket; only the newest is looked at, and it is enough."""
    fake.start(10, sockets=[7])
    fake.start(20, sockets=[7])
    assert pids(scan(fake).newcomers([7])) == {7: {20}}


def test_recheck_drops_who_let_go_and_adds_who_inherited(fake: FakeProc) -> None:
    fake.start(10, sockets=[7])
    holders = scan(fake)
    before = holders.everyone({7: None})
    fake.start(20, ppid=10, sockets=[7])
    assert pids(holders.recheck(before.holders)) == {7: {10, 20}}
    fake.drop(10, 7)
    assert pids(holders.recheck(before.holders)) == {7: {20}}
    fake.end(20)
    assert pids(holders.recheck(before.holders)) == {}


def test_a_reused_pid_is_another_process(fake: FakeProc) -> None:
    fake.start(10, b"first", ticks=1, sockets=[7])
    holders = scan(fake)
    (first,) = holders.everyone({7: None}).holders[7]
    fake.end(10)
    fake.start(10, b"second", ticks=2, sockets=[7])
    (second,) = holders.recheck({7: [first]}).holders[7]
    assert (second.name, second.id != first.id) == ("second", True)


@pytest.mark.parametrize("wanted_uid", [None, 1000])
def test_the_order_does_not_change_what_is_found(fake: FakeProc, wanted_uid: int | None) -> None:
    for pid in range(10, 60):
        fake.start(pid, sockets=[pid + 1000, 7])
    wanted = {pid + 1000: wanted_uid for pid in range(10, 60)} | {7: wanted_uid}
    expected = {pid + 1000: {pid} for pid in range(10, 60)} | {7: set(range(10, 60))}
    assert pids(scan(fake).everyone(wanted)) == expected


def lsof(inode: int) -> set[int]:
    """Return the pids that lsof(8) says hold a socket."""
    command = ["lsof", "-nP", "-i", "-F", "pd"]  # of a socket, d is the inode
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    holders: set[int] = set()
    pid = 0
    for line in done.stdout.splitlines():
        if line[0] == "p":
            pid = int(line[1:])
        elif line == f"d{inode}":
            holders.add(pid)
    return holders


def test_holders_of_a_real_socket_are_those_that_lsof_finds() -> None:
    body = "print(flush=True); input()"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as shared:
        shared.bind(("127.0.0.1", 0))
        inode = os.fstat(shared.fileno()).st_ino
        command = [sys.executable, "-c", body]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, pass_fds=[shared.fileno()], stdin=pipe, stdout=pipe) as child:
            assert child.stdout is not None
            assert child.stdin is not None
            child.stdout.readline()
            holders = HolderScan(ProcessReader())
            assert pids(holders.newcomers([inode]))[inode] == {child.pid, os.getpid()}
            found = holders.everyone({inode: os.geteuid()})
            assert pids(found) == {inode: {os.getpid(), child.pid}} == {inode: lsof(inode)}
            child.stdin.close()
            child.wait(10)
            assert pids(holders.recheck(found.holders)) == {inode: {os.getpid()}}


@pytest.mark.live
def test_processes_of_others_are_counted_when_they_may_not_be_inspected() -> None:
    if os.geteuid() != 0:
        pytest.fail("this test changes its user: run it as root", pytrace=False)
    body = """
import os, socket
from pktproc.kernel.holders import HolderScan
from pktproc.kernel.processes import ProcessReader
mine = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
inode = os.fstat(mine.fileno()).st_ino
found = HolderScan(ProcessReader()).everyone({inode: None, OTHERS: None})
print(found.denied, *[process.pid == os.getpid() for process in found.holders.pop(inode)], found.holders)
"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        program = body.replace("OTHERS", str(os.fstat(other.fileno()).st_ino))
        # Reading below somebody's home is permitted, looking into other processes is not.
        allowed = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        command = [*NOBODY, *allowed, sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    denied, mine, others = done.stdout.split(maxsplit=2)
    assert (mine, others.strip()) == ("True", "{}")
    assert int(denied) >= 1
