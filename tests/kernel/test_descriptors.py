"""Which descriptors are sockets: by an iterator in the kernel and by /proc/PID/fd, and who gets a signal."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.fake_proc import FakeProc
from pktproc.kernel.descriptor_table import Descriptors
from pktproc.kernel.descriptors import DescriptorSource, read_all, read_one
from pktproc.kernel.ebpf.descriptors import DescriptorIterator
from pktproc.kernel.process_signals import Target
from pktproc.kernel.processes import ProcessReader
from pktproc.model import ProcessId


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that shares a socket with this one, at two descriptors each."""
    with socket.socket(socket.AF_UNIX) as shared:
        again = os.dup(shared.fileno())
        fds = (shared.fileno(), again)
        with subprocess.Popen(["sleep", "60"], pass_fds=fds) as child:
            yield child
            child.kill()
        os.close(again)


def held(found: Descriptors, pid: int) -> set[tuple[int, int]]:
    pairs = [(inode, pair) for inode, pair in found.single.items() if inode not in found.several]
    pairs += [(inode, pair) for inode, several in found.several.items() for pair in several]
    return {(inode, number) for inode, (owner, number) in pairs if owner == pid}


def linked(pid: int) -> set[tuple[int, int]]:
    """What the file system says of a process."""
    found = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.is_socket():
                found.add((path.stat().st_ino, int(path.name)))
    return found


def test_the_kernel_tells_what_the_file_system_shows(sleeper: subprocess.Popen[bytes]) -> None:
    if os.geteuid() != 0:
        pytest.fail("iterators take CAP_BPF and CAP_PERFMON: run as root", pytrace=False)
    reader = ProcessReader()
    with contextlib.closing(DescriptorIterator()) as iterator:
        told = iterator.look()
        again = iterator.look()
    read = read_all(reader)
    for pid in (os.getpid(), sleeper.pid):
        expected = linked(pid)
        assert expected
        assert held(told, pid) == held(again, pid) == held(read, pid) == expected
        identity = reader.identity(pid)
        assert identity is not None
        assert told.starts[pid] == read.starts[pid] == identity.start_ticks


def test_one_process_is_read_alone(sleeper: subprocess.Popen[bytes]) -> None:
    found = Descriptors()
    read_one(ProcessReader(), sleeper.pid, found)
    assert held(found, sleeper.pid) == linked(sleeper.pid)
    assert set(found.starts) == {sleeper.pid}
    (inode,) = {inode for inode, _ in linked(sleeper.pid)}
    assert [number for _, number in found.of(inode)] == sorted(number for _, number in linked(sleeper.pid))


def test_of_another_procfs_descriptors_are_read_from_it(fake: FakeProc) -> None:
    with contextlib.closing(DescriptorSource(ProcessReader(fake.root))) as source:
        assert source.look().single == {}


def test_a_signal_is_for_the_process_that_was_seen(sleeper: subprocess.Popen[bytes]) -> None:
    reader = ProcessReader()
    identity = reader.identity(sleeper.pid)
    assert identity is not None
    with pytest.raises(ProcessLookupError):
        Target(ProcessId(sleeper.pid, identity.start_ticks - 1), reader)
    with Target(identity, reader) as target:
        target.send(signal.SIGTERM)
        assert sleeper.wait(10) == -signal.SIGTERM
        with pytest.raises(ProcessLookupError):
            target.send(signal.SIGTERM)
    with pytest.raises(ProcessLookupError):
        Target(identity, reader)
