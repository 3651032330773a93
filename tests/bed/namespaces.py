"""Network namespaces made for a test and removed after it, joined by a veth pair with both ends inside."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_serial = itertools.count()
_NAMES = Path("/run/netns")
_OURS = re.compile(r"pp(?P<pid>\d+)-(?P<started>\d+)-\d+[lr]")


@dataclass(frozen=True)
class Namespace:
    """A named network namespace with one veth end: `interface`, its addresses `v4` and `v6`, its link address `mac`."""

    name: str
    interface: str
    v4: str
    v6: str
    mac: str

    def enter(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs `command` inside; nsenter execs it, so the pid is the command's own."""
        return ["nsenter", f"--net={self.path}", *command]

    def run(self, *command: str, timeout: float = 30) -> str:
        """Run a command inside to its end and return its standard output; raise CalledProcessError when it fails."""
        done = subprocess.run(
            self.enter(command), check=True, capture_output=True, text=True, errors="surrogateescape", timeout=timeout
        )
        return done.stdout

    @property
    def path(self) -> Path:
        """Return where ip(8) keeps the name."""
        return _NAMES / self.name

    @property
    def inode(self) -> int:
        """Return the inode number that identifies the namespace."""
        return self.path.stat().st_ino


class NamespacePair:
    """Hold two namespaces, `left` (10.77.0.1, fd77::1) and `right` (10.77.0.2, fd77::2), that reach each other.

    A context manager: the namespaces, and with them the veth pair, are gone at its end, and those of runs that were
    killed are at its beginning, since an address that two namespaces have is nobody's for certain. The machine's own
    interfaces, addresses and routes are never touched.
    """

    def __init__(self) -> None:
        stem = f"pp{os.getpid()}-{_started(os.getpid())}-{next(_serial)}"
        self.left = Namespace(f"{stem}l", "left0", "10.77.0.1", "fd77::1", "02:77:00:00:00:01")
        self.right = Namespace(f"{stem}r", "right0", "10.77.0.2", "fd77::2", "02:77:00:00:00:02")

    def __enter__(self) -> Self:
        left, right = self.left, self.right
        _remove_leftovers()
        try:
            for side in (left, right):
                _ip("netns", "add", side.name)
            ends = ("address", left.mac, "netns", left.name, "type", "veth", "peer", "name", right.interface)
            _ip("link", "add", left.interface, *ends, "address", right.mac, "netns", right.name)
            for side in (left, right):
                _configure(side)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        for side in (self.left, self.right):
            if side.path.exists():
                _ip("netns", "del", side.name)


def _remove_leftovers() -> None:
    """Remove the namespaces whose maker is no more, and what it left running in them."""
    for path in _NAMES.iterdir() if _NAMES.exists() else ():
        name = _OURS.fullmatch(path.name)
        if name and _started(int(name["pid"])) != int(name["started"]):
            for pid in _ip("netns", "pids", path.name).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            _ip("netns", "del", path.name)


def _started(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot, None if there is none (proc_pid_stat(5))."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _configure(side: Namespace) -> None:
    _ip("-n", side.name, "link", "set", "lo", "up")
    _ip("-n", side.name, "link", "set", side.interface, "up")
    _ip("-n", side.name, "address", "add", f"{side.v4}/16", "dev", side.interface)
    _ip("-n", side.name, "address", "add", f"{side.v6}/16", "dev", side.interface, "nodad")


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
