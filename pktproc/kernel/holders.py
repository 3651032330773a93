"""Which processes hold a socket: the descriptors of /proc/PID/fd that point to its inode (proc_pid_fd(5))."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from pktproc.attribution.engine import Holdings
from pktproc.kernel.descriptors import descriptor_links, link_to
from pktproc.kernel.processes import ProcessReader, opened
from pktproc.model import Process, ProcessId

# Short-lived programs are among the latest pids and have their socket at a low descriptor. To look there first takes
# a tenth of the system calls, at each of which this thread may have to wait for the interpreter.
_PROBED_PIDS = 8
_LOW_DESCRIPTORS = range(3, 8)
# So many of the youngest processes are newcomers for ever: they may open their first socket after they were met.
_YOUNG = 16
_INIT = 1

# Who holds which socket, by inode.
Listing = Callable[[], Mapping[int, Collection[ProcessId]] | None]


class HolderScan:
    """Look through the descriptors of all processes for sockets that are wanted.

    A `listing` returns at once who holds which sockets, or None if it cannot.
    """

    def __init__(self, reader: ProcessReader, listing: Listing | None = None) -> None:
        self._reader = reader
        self._listing = listing
        self._proc = reader.proc
        self._met: frozenset[int] = frozenset()
        self._known: frozenset[int] = frozenset()

    def newcomers(self, wanted: Iterable[int]) -> Holdings:
        """Look at the youngest processes and those that `everyone` has not met, newest first, and at holders' parents.

        This is what makes short-lived processes visible: it costs microseconds where a look at every process
        costs milliseconds. It stops when every wanted inode has a holder.
        """
        links = _links(wanted)
        found = Holdings()
        visited: set[int] = set()
        latest = self._reader.latest_pid() or 0
        for pid in range(latest, max(latest - _PROBED_PIDS, 0), -1):
            if len(found.holders) < len(links):
                self._glance(pid, links, found.holders)
        for pid in self._newest_pids(latest):
            if len(found.holders) == len(links):
                break
            if pid not in self._known and pid not in visited:
                visited.add(pid)
                self._visit(pid, links, found.holders)
        parents = {holder.ppid for held in found.holders.values() for holder in held if holder.ppid}
        for pid in parents - visited - {_INIT}:
            self._visit(pid, links, found.holders)
        return found

    def recheck(self, held: Mapping[int, Sequence[Process]]) -> Holdings:
        """Look again at the holders of inodes, and at all processes that `everyone` has not met."""
        links = _links(held)
        found = Holdings()
        before = {holder.pid for holders in held.values() for holder in holders}
        for pid in self._reader.pids_newest_first():
            if pid in before or pid not in self._met:
                self._visit(pid, links, found.holders)
        return found

    def own(self, inodes: Iterable[int]) -> set[int]:
        """Return which of some inodes this very program holds."""
        try:
            with opened(self._proc, os.getpid()) as directory:
                return _sockets(directory, _links(inodes)) or set()
        except OSError:
            return set()

    def everyone(self, wanted: Mapping[int, int | None]) -> Holdings:
        """Look at every process; `wanted` maps inodes to the socket's uid where it is known.

        Processes of those users are looked at first, the newest of them before the others, since they may be gone soon.
        """
        pids = self._reader.pids_newest_first()
        self._met, self._known = frozenset(pids), frozenset(pids[_YOUNG:])
        held = self._listing() if self._listing else None
        if held is not None:
            return self._listed(wanted, held)
        uids = {uid for uid in wanted.values() if uid is not None}
        if uids:
            pids.sort(key=lambda pid: self._owner(pid) not in uids)
        links = _links(wanted)
        holders: dict[int, list[Process]] = {}
        looked = [inspected for pid in pids if (inspected := self._visit(pid, links, holders)) is not None]
        return Holdings(holders, complete=True, denied=looked.count(False), looked_at=len(looked))

    def _listed(self, wanted: Iterable[int], held: Mapping[int, Collection[ProcessId]]) -> Holdings:
        """Describe the holders of wanted inodes, each once; those that are gone by now are left out."""
        found = {inode: held[inode] for inode in wanted if inode in held}
        everyone = {process for processes in found.values() for process in processes}
        read = self._reader.read_all({process.pid for process in everyone})
        known = {process.id: process for process in read.values() if process and process.id in everyone}
        holders = {inode: [known[id_] for id_ in ids if id_ in known] for inode, ids in found.items()}
        return Holdings(
            {inode: processes for inode, processes in holders.items() if processes},
            complete=True,
            looked_at=len(everyone),
        )

    def _newest_pids(self, latest: int) -> Iterator[int]:
        """Yield the last few pids that were given out, then all others: listing /proc takes longer than many live."""
        yield from range(latest, max(latest - _PROBED_PIDS, 0), -1)
        yield from self._reader.pids_newest_first()

    def _glance(self, pid: int, links: Mapping[str, int], holders: dict[int, list[Process]]) -> None:
        """Add what one process holds at its low descriptors."""
        for number in _LOW_DESCRIPTORS:
            try:
                target = os.readlink(f"{self._proc}/{pid}/fd/{number}")  # noqa: PTH115 - speed
                if target not in links:
                    continue
                with opened(self._proc, pid) as directory:  # which may be another process's by now
                    still = os.readlink(f"fd/{number}", dir_fd=directory) == target
                    if still and (process := self._reader.read(pid, directory)):
                        holders.setdefault(links[target], []).append(process)
            except FileNotFoundError:
                continue
            except OSError:
                return

    def _owner(self, pid: int) -> int | None:
        try:
            return os.stat(f"{self._proc}/{pid}").st_uid  # noqa: PTH116 - Path costs three times as much here
        except OSError:
            return None

    def _visit(self, pid: int, links: Mapping[str, int], holders: dict[int, list[Process]]) -> bool | None:
        """Add what one process holds to `holders`; return False if it may not be inspected, None if it has no files."""
        try:
            with opened(self._proc, pid) as directory:
                held = _sockets(directory, links)
                if held is None:
                    return None
                if held and (process := self._reader.read(pid, directory)):
                    for inode in held:
                        holders.setdefault(inode, []).append(process)
        except PermissionError:
            return None if self._reader.identity(pid) is None else False  # also what a process that ends is asked
        except OSError:
            return None
        return True


def _links(inodes: Iterable[int]) -> dict[str, int]:
    return {link_to(inode): inode for inode in inodes}


def _sockets(directory: int, wanted: Mapping[str, int]) -> set[int] | None:
    """Return which wanted inodes a process holds, None if it has no files."""
    held = descriptor_links(directory)
    return {wanted[target] for _, target in held if target in wanted} if held else None
