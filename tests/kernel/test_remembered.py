"""A process that is read again: what cannot have changed is not read, and what did change is noticed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernel.fake_proc import FakeProc
from pktproc.kernel.processes import ProcessReader
from pktproc.model import Process

WAIT_S = 10.0
RENAME = """
import ctypes
input()
ctypes.CDLL(None).prctl(15, b"renamed", 0, 0, 0)
input()
"""


@pytest.fixture
def shell() -> Iterator[subprocess.Popen[bytes]]:
    """Run a shell that becomes another program when a line arrives."""
    with subprocess.Popen(["sh", "-c", "read line; exec cat -u"], stdin=subprocess.PIPE) as child:
        yield child
        child.kill()


def until(read: Callable[[], Process | None], condition: Callable[[Process], bool]) -> Process:
    """Read until a condition holds and return the process; AssertionError when it does not in time."""
    deadline = time.monotonic() + WAIT_S
    while (process := read()) is None or not condition(process):
        assert time.monotonic() < deadline, process
    return process


def tell(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.write(b"\n")
    child.stdin.flush()


def test_an_unchanged_process_is_the_same_object(shell: subprocess.Popen[bytes]) -> None:
    reader = ProcessReader()
    first = until(lambda: reader.read(shell.pid), lambda process: process.name == "sh")
    assert reader.read(shell.pid) is first


def test_another_program_is_noticed(shell: subprocess.Popen[bytes]) -> None:
    reader = ProcessReader()
    first = until(lambda: reader.read(shell.pid), lambda process: process.name == "sh")
    tell(shell)
    # In the middle of execve the name is new and the command line not yet there.
    second = until(lambda: reader.read(shell.pid), lambda process: process.cmdline == ("cat", "-u"))
    assert second.name == "cat"
    assert second.exe != first.exe
    assert second.id == first.id


def test_another_name_is_noticed() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", RENAME], stdin=subprocess.PIPE) as child:
        reader = ProcessReader()
        until(lambda: reader.read(child.pid), lambda process: process.cmdline is not None and len(process.cmdline) == 4)
        tell(child)
        until(lambda: reader.read(child.pid), lambda process: process.name == "renamed")
        child.kill()


def test_where_the_kernel_does_not_tell_programs_apart_all_is_read_again(tmp_path: Path) -> None:
    """A stat that is cut, or full of zeros for want of a privilege, says nothing of execve."""
    fake = FakeProc(tmp_path / "proc")
    fake.start(42, exe="/usr/bin/first")
    reader = ProcessReader(fake.root)
    first = reader.read(42)
    link = fake.root / "42" / "exe"
    link.unlink()
    link.symlink_to("/usr/bin/second")
    second = reader.read(42)
    assert first is not None
    assert second is not None
    assert (first.exe, second.exe) == ("/usr/bin/first", "/usr/bin/second")
