"""Network namespaces: which there are, what holds them, and work done inside one (network_namespaces(7))."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pktproc.errors import Denied, UsageError

Result = TypeVar("Result")

_CLONE_NEWNET = 0x40000000
_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
# ip-netns(8) and Docker bind-mount namespaces here, so that they outlive their processes.
NAMED_FOLDERS = (Path("/run/netns"), Path("/run/docker/netns"))


def current() -> int:
    """Return the inode number of this thread's network namespace, which identifies it."""
    return Path("/proc/thread-self/ns/net").stat().st_ino


def named(name: str) -> Path:
    """Return the path of the namespace that `name` means: as in ip-netns(8), a path, or a pid.

    Raise `UsageError` if there is none, OSError if it may not be looked at.
    """
    candidates = [Path(name)] if "/" in name else [folder / name for folder in NAMED_FOLDERS]
    if name.isdecimal():
        candidates.append(Path(f"/proc/{name}/ns/net"))
    there = [path for path in candidates if path.exists()]
    for path in there:
        with contextlib.suppress(FileNotFoundError):
            os.close(hold(path))
            return path
    if not there:
        problem, cure = (
            f"no network namespace {name!r}",
            "`ip netns list` shows the names, a pid or a path does as well",
        )
    elif there[0].parent == NAMED_FOLDERS[0]:
        problem = f"only the name {name!r} of a network namespace is left"
        cure = f"`ip netns delete {there[0].name}` removes it"
    else:
        problem, cure = f"{name!r} is no network namespace", "give a name of `ip netns list`, a pid or a path"
    raise UsageError(f"{problem}: {cure}")


def inode(path: Path) -> int:
    """Return the inode number of the namespace at `path`; raise OSError if there is none.

    A name leads to a plain file before its namespace is bound to it, and again before it is removed (ip-netns(8)).
    """
    found = path.stat()
    if found.st_dev != _device():
        raise _gone(path)
    return found.st_ino


@functools.cache
def _device() -> int:
    """Return the device number that all namespaces share (nsfs, fs/nsfs.c)."""
    return Path("/proc/self/ns/net").stat().st_dev


def _gone(path: Path) -> OSError:
    return FileNotFoundError(errno.ENOENT, "no such network namespace, or no longer", str(path))


def number(link: str | Path) -> int:
    """Return the inode number in a link like `net:[4026531840]` (/proc/PID/ns/net); raise OSError or ValueError."""
    return _parse(os.readlink(link))  # noqa: PTH115 - speed


def _parse(link: str) -> int:
    return int(link[5:-1])  # net:[4026531840]


class Namespace(NamedTuple):
    """A network namespace: `path` opens it, `pid` is a process in it, None for one that only a name keeps alive."""

    inode: int
    path: Path
    pid: int | None


def discover(proc: Path = Path("/proc")) -> dict[int, Namespace]:
    """Return the namespaces that processes run in or that are bound to a name, by inode number.

    The process named is the one with the lowest pid, which tends to live longest. Namespaces of processes that may not
    be inspected are missing.
    """
    return Discovery(proc).namespaces()


class Discovery:
    """Find the namespaces of processes under `proc` and of names again and again.

    Where processes that were there before are asked only in turns, one that moves to another namespace is noticed after
    `TURNS` calls at the latest.
    """

    TURNS = 8

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = str(proc)
        self._links: dict[int, str] = {}
        self._turn = 0

    def namespaces(self, *, in_turns: bool = False) -> dict[int, Namespace]:
        """Return the namespaces of now; `in_turns` asks the old processes in turns."""
        self._turn += 1
        old = self._links if in_turns else {}
        links: dict[int, str] = {}
        for entry in os.listdir(self._proc):  # noqa: PTH208 - speed
            if entry.isdecimal():
                pid = int(entry)
                link = old.get(pid)
                if link is None or (pid + self._turn) % self.TURNS == 0:
                    link = self._link(pid)
                links[pid] = link
        self._links = links
        eldest: dict[str, int] = {}
        for pid, link in links.items():
            if link and pid < eldest.get(link, pid + 1):
                eldest[link] = pid
        found = {
            netns: Namespace(netns, Path(f"{self._proc}/{pid}/ns/net"), pid)
            for link, pid in eldest.items()
            if (netns := _parse(link))
        }
        for path in _named_paths():
            with contextlib.suppress(OSError):
                netns = inode(path)
                found.setdefault(netns, Namespace(netns, path, None))
        return found

    def _link(self, pid: int) -> str:
        try:
            return os.readlink(f"{self._proc}/{pid}/ns/net")  # noqa: PTH115 - speed
        except OSError:
            return ""


def names() -> dict[int, str]:
    """Return the names of the namespaces that have one, by inode number."""
    found: dict[int, str] = {}
    for path in _named_paths():
        with contextlib.suppress(OSError):
            found.setdefault(inode(path), path.name)
    return found


def _named_paths() -> Iterator[Path]:
    for folder in NAMED_FOLDERS:
        try:
            yield from folder.iterdir()
        except OSError:
            continue


def hold(path: Path, netns: int | None = None) -> int:
    """Return a descriptor of the network namespace at `path`, which outlives the name and the process it was found by.

    Raise OSError if there is none, or another than `netns`: a pid can be used again, and a process can move.
    """
    inode(path)  # since to open another file, a device or a pipe, can do anything
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    if _is_network(descriptor) and netns in (None, os.fstat(descriptor).st_ino):
        return descriptor
    os.close(descriptor)
    raise _gone(path)


def _is_network(descriptor: int) -> bool:
    """Say whether a descriptor is of a network namespace, rather than of a file or of another kind of namespace."""
    try:
        return fcntl.ioctl(descriptor, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False


def reach(
    space: Namespace, work: Callable[[Path], Result], discover: Callable[[], Mapping[int, Namespace]]
) -> Result | None:
    """Return what `work` makes of the way into a namespace that was discovered, None if the namespace is gone.

    Where the process that stood for it ended or moved, the way is by what `discover` finds now. Raise what `work` does.
    """
    try:
        return work(space.path)
    except (FileNotFoundError, ProcessLookupError):
        now = discover().get(space.inode)
        return None if now is None else work(now.path)


def run_inside(path: Path | None, work: Callable[[], Result], netns: int | None = None) -> Result:
    """Run `work` in the network namespace at `path` (None for the current one) and return its result.

    A thread of its own enters the namespace, so that no failure can leave the caller in the wrong one. Sockets made by
    `work` stay in that namespace. Raise `Denied` if the kernel refuses, OSError if there is none at `path`, or another
    than `netns`, and whatever `work` raises.
    """
    if path is None:
        return work()
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            _enter(path, netns)
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - carried to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=body, name="pktproc-netns")
    thread.start()
    thread.join()
    if failure:
        raise failure.pop()  # or list, error and frame would hold each other, and nobody looks for such circles
    return outcome[0]


@functools.cache
def _setns() -> tuple[Callable[[int, int], int], Callable[[], int]]:
    """Return setns(2) and what returns its errno; libraries are parts of circles, so one is loaded once."""
    import ctypes  # noqa: PLC0415 - who stays in the own namespace does without

    setns: Any = ctypes.CDLL(None, use_errno=True).setns
    return setns, ctypes.get_errno


def _enter(path: Path, netns: int | None) -> None:
    setns, errno_of = _setns()
    descriptor = hold(path, netns)
    try:
        if setns(descriptor, _CLONE_NEWNET) != 0:
            reason = os.strerror(errno_of())
            raise Denied(f"cannot enter the network namespace {path}: {reason} (needs CAP_SYS_ADMIN; run as root)")
    finally:
        os.close(descriptor)
