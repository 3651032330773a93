"""Which descriptors of which processes are sockets: all of them at one look (proc_pid_fd(5))."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from pktproc.errors import EngineError
from pktproc.kernel.descriptor_table import Descriptors
from pktproc.kernel.processes import ProcessReader, opened

if TYPE_CHECKING:
    from pktproc.kernel.ebpf.descriptors import DescriptorIterator

# With fewer open files than this, /proc is read sooner than a program is loaded into the kernel.
_FEW_FILES = 10_000
_LINK = "socket:["
_PROC = Path("/proc")


class DescriptorSource:
    """Look for descriptors that are sockets, by the way that is the quickest here."""

    def __init__(self, reader: ProcessReader) -> None:
        self._reader = reader
        self._iterator: DescriptorIterator | None = None
        if reader.proc == _PROC and _open_files() > _FEW_FILES:
            from pktproc.kernel.ebpf.descriptors import DescriptorIterator  # noqa: PLC0415 - ctypes and libbpf

            self._iterator = DescriptorIterator()

    def look(self) -> Descriptors:
        """Return all descriptors that are sockets."""
        if self._iterator is not None:
            try:
                return self._iterator.look()
            except (EngineError, OSError):
                self._iterator = None  # the long way tells the same
        return read_all(self._reader)

    def close(self) -> None:
        """Let go of what is in the kernel."""
        if self._iterator is not None:
            self._iterator.close()


def read_all(reader: ProcessReader) -> Descriptors:
    """Return all descriptors that are sockets, process by process, from /proc/PID/fd."""
    found = Descriptors()
    for entry in os.listdir(reader.proc):  # noqa: PTH208 - speed
        if entry.isdecimal():
            read_one(reader, int(entry), found)
    return found


def read_one(reader: ProcessReader, pid: int, found: Descriptors) -> None:
    """Add the descriptors of one process, unless it is gone."""
    try:
        with opened(reader.proc, pid) as directory:
            held = [(int(number), target) for number, target in descriptor_links(directory) if target.startswith(_LINK)]
            identity = reader.identity(pid, directory) if held else None
    except PermissionError:
        found.looked_at += 1
        found.denied += reader.identity(pid) is not None  # also what a process that ends is asked
        return
    except OSError:
        return
    found.looked_at += 1
    if identity is not None:
        found.starts[pid] = identity.start_ticks
        inodes = [int(target[len(_LINK) : -1]) for _, target in held]
        found.take(inodes, [pid] * len(held), [number for number, _ in held])


def descriptor_links(directory: int) -> list[tuple[str, str]]:
    """Return the descriptors in an open /proc/PID: number and where it leads, as `socket:[INODE]`, both as texts."""
    descriptors = os.open("fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    found: list[tuple[str, str]] = []
    try:
        for number in os.listdir(descriptors):  # noqa: PTH208 - a descriptor, not a path
            try:
                found.append((number, os.readlink(number, dir_fd=descriptors)))
            except FileNotFoundError:
                continue  # closed meanwhile
    finally:
        os.close(descriptors)
    return found


def link_to(inode: int) -> str:
    """Return where a descriptor of a socket leads."""
    return f"{_LINK}{inode}]"


def _open_files() -> int:
    """Return how many files are open on this host, 0 where that is not told (proc_sys_fs(5))."""
    try:
        return int((_PROC / "sys/fs/file-nr").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 0
