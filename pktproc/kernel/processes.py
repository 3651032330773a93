"""Processes as /proc shows them (proc(5)), read through one directory descriptor each.

A descriptor of /proc/PID belongs to that very process: once it is gone every read fails, even if the pid is used
again. So all facts of one `Process` are of one process.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from pktproc.model import Process, ProcessId

_COMM_MAX_BYTES = 15  # TASK_COMM_LEN - 1, linux/sched.h
_MAX_ANCESTORS = 64
_STAT_PPID, _STAT_START = 1, 19  # fields 4 and 22 of stat, counted after the comm
# startstack, arg_start, arg_end and env_end, which are other ones with each exec; 0 for who may not trace the process.
_STAT_IMAGE = (25, 45, 46, 48)
_MAX_REMEMBERED = 1 << 13
_LOADAVG_MAX_BYTES = 128
_CMDLINE_MAX_BYTES = 1 << 16
_CONTAINER_ID = re.compile(r"(?<![0-9a-f])([0-9a-f]{64})(?![0-9a-f])")
_UNIT = re.compile(r"/([^/\n]+\.(?:service|scope))(?=/|$)", re.MULTILINE)
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
NS_PER_S = 1_000_000_000


def boot_time_ns() -> int:
    """Return when this host booted, in ns since the epoch, by the wall clock of now."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@contextlib.contextmanager
def opened(proc: Path, pid: int) -> Iterator[int]:
    """Open /proc/PID for the time of a with block; raise OSError if there is no such process."""
    descriptor = os.open(f"{proc}/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(directory: int | None, name: str, limit: int = 4096) -> bytes:
    """Return what a file of a directory says, or of the working directory if that is None."""
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.read(descriptor, limit)
    finally:
        os.close(descriptor)


def _read_or_empty(directory: int, name: str, limit: int = 4096) -> bytes:
    try:
        return _read(directory, name, limit)
    except OSError:
        return b""


class _Stat(NamedTuple):
    """What /proc/PID/stat says; `image` tells one program of the process from the next, empty where it is not told."""

    comm: bytes
    ppid: int
    start_ticks: int
    image: tuple[bytes, ...]


def _stat(directory: int) -> _Stat:
    # comm may hold spaces and parentheses: it ends at the last one (proc_pid_stat(5)).
    data = _read(directory, "stat")
    comm = data[data.index(b"(") + 1 : data.rindex(b")")]
    fields = data[data.rindex(b")") + 2 :].split()
    image = tuple(fields[at] for at in _STAT_IMAGE) if len(fields) > max(_STAT_IMAGE) else ()
    return _Stat(comm, int(fields[_STAT_PPID]), int(fields[_STAT_START]), () if b"0" in image else image)


def _comm_and_start(stat: bytes) -> tuple[bytes, int]:
    """Return the comm and the start time in the contents of /proc/PID/stat."""
    end = stat.rindex(b")")
    return stat[stat.index(b"(") + 1 : end], int(stat[end + 2 :].split(None, _STAT_START + 1)[_STAT_START])


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _exe(directory: int) -> str | None:
    try:
        return os.readlink("exe", dir_fd=directory).removesuffix(" (deleted)")
    except OSError:
        return None


def _words(directory: int) -> tuple[str, ...] | None:
    argv = _read_or_empty(directory, "cmdline", _CMDLINE_MAX_BYTES)
    return tuple(_text(word) for word in argv.removesuffix(b"\0").split(b"\0")) if argv else None


def full_name(comm: bytes, exe: str | None, cmdline: tuple[str, ...] | None) -> str:
    """Return the process name: comm, completed from exe or argv[0] where it is exactly their first 15 bytes."""
    if len(comm) < _COMM_MAX_BYTES:
        return _text(comm)
    candidates = [exe] if exe else []
    if cmdline:
        candidates.append(cmdline[0])
    for candidate in candidates:
        base = os.fsencode(candidate).rsplit(b"/", 1)[-1]
        if base.startswith(comm):
            return _text(base)
    return _text(comm)


def container_id(cgroup: bytes) -> str | None:
    """Return the 64-digit container id in the contents of /proc/PID/cgroup, the innermost one; None if there is none.

    Docker, containerd, CRI-O and Podman all put it into the path, alone or between a prefix and `.scope`.
    """
    found = _CONTAINER_ID.findall(_text(cgroup))
    return found[-1] if found else None


def systemd_unit(cgroup: bytes) -> str | None:
    """Return the service or scope in the contents of /proc/PID/cgroup, the innermost one; None if there is none.

    systemd names a cgroup after the unit whose processes it holds (systemd.unit(5), systemd-cgls(1)).
    """
    found = _UNIT.findall(_text(cgroup))
    return found[-1] if found else None


def _status_field(status: bytes, name: bytes, position: int) -> int | None:
    for line in status.split(b"\n"):  # a name may hold other line ends
        if line.startswith(name):
            return int(line.split()[position])
    return None


class ProcessReader:
    """Read processes under a procfs root; `cmdline=False` leaves command lines unread.

    A process that still runs the same program under the same name is described as it was, at a tenth of the cost; what
    it wrote over its command line since is not read.
    """

    def __init__(self, proc: Path = Path("/proc"), *, cmdline: bool = True) -> None:
        self.proc = proc
        self._cmdline = cmdline
        self._boot_ns = boot_time_ns()
        self._remembered: dict[int, tuple[tuple[_Stat, int], Process]] = {}
        self._lineages: dict[int, tuple[str | None, tuple[ProcessId, ...]]] | None = None

    def latest_pid(self) -> int | None:
        """Return the pid that was given out last, the fifth field of loadavg; None if it cannot be read."""
        try:
            descriptor = os.open(f"{self.proc}/loadavg", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return int(os.read(descriptor, _LOADAVG_MAX_BYTES).split()[4])
            finally:
                os.close(descriptor)
        except (OSError, ValueError, IndexError):
            return None

    def pids_newest_first(self) -> list[int]:
        """Return all pids, the most recently forked first.

        The kernel hands pids out in rising order and starts again at the bottom, so pids above the latest are the
        oldest.
        """
        pids = [int(entry) for entry in os.listdir(self.proc) if entry.isdecimal()]  # noqa: PTH208 - speed
        latest = self.latest_pid()
        last = max(pids, default=0) if latest is None else latest
        pids.sort(key=lambda pid: (pid <= last, pid), reverse=True)
        return pids

    def read(self, pid: int, directory: int | None = None) -> Process | None:
        """Return the process with this pid, or None if there is none any more; `directory` is an open /proc/PID."""
        try:
            if directory is not None:
                return self._read(pid, directory)
            with opened(self.proc, pid) as descriptor:
                return self._read(pid, descriptor)
        except (OSError, ValueError, IndexError):
            return None

    def read_all(self, pids: Iterable[int]) -> dict[int, Process | None]:
        """Return the processes with these pids, as `read` does; ancestors in common are looked up once."""
        self._lineages = {}
        try:
            return {pid: self.read(pid) for pid in pids}
        finally:
            self._lineages = None

    def identity(self, pid: int, directory: int | None = None) -> ProcessId | None:
        """Return the identity of the process that has this pid now, None if there is none.

        `directory` is an open /proc/PID.
        """
        try:
            if directory is not None:
                return ProcessId(pid, _stat(directory).start_ticks)
            with opened(self.proc, pid) as descriptor:
                return ProcessId(pid, _stat(descriptor).start_ticks)
        except (OSError, ValueError, IndexError):
            return None

    def name(self, process: ProcessId) -> str | None:
        """Return the name of a process, None if it is gone; at a tenth of what `read` costs."""
        try:
            # What one read of stat tells is of one process; a name that may be cut takes more.
            comm, start_ticks = _comm_and_start(_read(None, f"{self.proc}/{process.pid}/stat"))
            if start_ticks != process.start_ticks:
                return None
            return _text(comm) if len(comm) < _COMM_MAX_BYTES else self._full_name(process)
        except (OSError, ValueError, IndexError):
            return None

    def _full_name(self, process: ProcessId) -> str | None:
        with opened(self.proc, process.pid) as directory:
            stat = _stat(directory)
            if stat.start_ticks != process.start_ticks:
                return None
            return full_name(stat.comm, _exe(directory), _words(directory))

    def _read(self, pid: int, directory: int) -> Process | None:
        stat = _stat(directory)  # first, since without it a process that ends now has no name
        likeness = stat, os.fstat(directory).st_uid
        remembered = self._remembered.get(pid)
        if stat.image and remembered and remembered[0] == likeness:
            return remembered[1]
        process = self._describe(pid, directory, stat)
        if stat.image and process:
            if len(self._remembered) >= _MAX_REMEMBERED:
                self._remembered = {}
            self._remembered[pid] = likeness, process
        return process

    def _describe(self, pid: int, directory: int, stat: _Stat) -> Process | None:
        comm, ppid, start_ticks, _ = stat
        status = _read_or_empty(directory, "status")
        if _status_field(status, b"Tgid:", 1) not in (pid, None):
            return None  # a thread: its process has another pid
        exe, words = _exe(directory), _words(directory)
        parent_name, ancestors = self._lineage(ppid)
        cgroup = _read_or_empty(directory, "cgroup")
        return Process(
            pid=pid,
            start_ticks=start_ticks,
            start_ns=self._boot_ns + start_ticks * NS_PER_S // _TICKS_PER_SECOND,
            name=full_name(comm, exe, words),
            exe=exe,
            cmdline=words if self._cmdline else None,
            uid=_status_field(status, b"Uid:", 2),
            ppid=ppid,
            parent_name=parent_name,
            container_id=container_id(cgroup),
            ancestors=ancestors,
            unit=systemd_unit(cgroup),
        )

    def _lineage(self, ppid: int) -> tuple[str | None, tuple[ProcessId, ...]]:
        known = self._lineages  # which another thread may take away
        if known is None:
            return self._ancestors(ppid)
        if ppid not in known:
            known[ppid] = self._ancestors(ppid)
        return known[ppid]

    def _ancestors(self, ppid: int) -> tuple[str | None, tuple[ProcessId, ...]]:
        name: str | None = None
        chain: list[ProcessId] = []
        while ppid and len(chain) < _MAX_ANCESTORS:
            try:
                with opened(self.proc, ppid) as directory:
                    comm, above, start_ticks, _ = _stat(directory)
            except (OSError, ValueError, IndexError):
                break
            if not chain:
                name = _text(comm)
            chain.append(ProcessId(ppid, start_ticks))
            ppid = above
        return name, tuple(chain)
