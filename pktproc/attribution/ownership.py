"""The second half of the index, inode -> processes: who holds a socket, asked as rarely as honesty allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from pktproc.attribution.engine import Engine, Holdings
from pktproc.model import Process, ProcessId, Reason, Socket

NS_PER_S = 1_000_000_000
MAX_INODES = 1 << 16
MAX_FRESH = 1 << 10
# Looks at processes may take these shares of the time, so that large hosts are not scanned without end: at everyone
# for sockets without a holder, at everyone to learn whether yet others hold a socket, at known holders and newcomers.
SCAN_SHARE = 0.2
VERIFY_SHARE = 0.05
RECHECK_SHARE = 0.1
VERIFY_NS = 10 * NS_PER_S
BURST_NS = NS_PER_S // 10


@dataclass(slots=True)
class _Held:
    processes: tuple[Process, ...]
    verified_ns: int | None


class Pace:
    """Limit work to a share of the time; what was saved up allows a burst of 100 ms."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._credit_ns = float(BURST_NS)
        self._counted_ns: int | None = None

    def allows(self, now_ns: int) -> bool:
        """Say whether work may start now."""
        if self._counted_ns is not None:
            self._credit_ns = min(BURST_NS, self._credit_ns + (now_ns - self._counted_ns) * self._share)
        self._counted_ns = now_ns
        return self._credit_ns > 0

    def worked(self, begin_ns: int, end_ns: int) -> None:
        """Take note of work."""
        self._credit_ns -= end_ns - begin_ns


class HolderIndex:
    """Keep which processes hold which socket inode.

    Times are the injected clock's, monotonic nanoseconds. `denied` of `looked_at` processes the last look at everyone
    could not inspect.
    """

    def __init__(self, engine: Engine, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._clock = clock
        self._held: LRUCache[int, _Held] = LRUCache(MAX_INODES)
        self._fresh: dict[ProcessId, Process] = {}
        self._waiting: set[int] = set()
        self._orphans: LRUCache[int, int] = LRUCache(MAX_INODES)
        self.denied = self.looked_at = 0
        self._scan_pace = Pace(SCAN_SHARE)
        self._verify_pace = Pace(VERIFY_SHARE)
        self._recheck_pace = Pace(RECHECK_SHARE)

    def known(self, inode: int) -> tuple[Process, ...]:
        """Return the holders of an inode that was learnt, empty if there are none."""
        held = self._held.get(inode)
        return held.processes if held else ()

    def learn_all(self, sockets: Iterable[Socket]) -> None:
        """Find the holders of all sockets of the host in one look at everyone."""
        self._look_at_everyone({socket.inode: socket.uid for socket in sockets})

    def learn(self, sockets: Iterable[Socket], likely: Mapping[int, Sequence[Process]]) -> None:
        """Find the holders of sockets in as few looks as possible, and ask those that are known again.

        Processes that are `likely` to hold an inode and new ones are looked at first. Everyone is looked at for what
        is still missing, if the pace allows, and for sockets whose holders were last verified long ago.
        """
        wanted = {socket.inode: socket.uid for socket in sockets}
        self._recheck([inode for inode in wanted if inode in self._held])
        hinted = {inode: processes for inode, processes in likely.items() if inode not in self._held}
        if hinted:
            self.take(self._engine.recheck(hinted))
        if missing := self._missing(wanted):
            self.take(self._engine.newcomers(missing))
            missing = self._missing(wanted)
        now = self._clock()
        if missing and self._scan_pace.allows(now):
            self._look_at_everyone(missing | self._unverified(now))
        elif self._verify_pace.allows(now) and (stale := self._unverified(now)):
            self._look_at_everyone(stale)
        self._waiting = set(self._missing(wanted)) - self._orphans.keys()

    def forget(self, process: ProcessId) -> None:
        """Let go of what a process that ended has held."""
        for inode in [i for i, entry in self._held.items() if any(p.id == process for p in entry.processes)]:
            del self._held[inode]

    def fresh(self) -> list[Process]:
        """Return the holders that were found since the last call."""
        found, self._fresh = self._fresh, {}
        return list(found.values())

    def _note_fresh(self, processes: Iterable[Process]) -> None:
        self._fresh |= {process.id: process for process in {id(process): process for process in processes}.values()}
        while len(self._fresh) > MAX_FRESH:
            del self._fresh[next(iter(self._fresh))]

    def why_not(self, sockets: Iterable[Socket]) -> tuple[Reason, bool]:
        """Return why sockets have no known holder and whether that is the last word.

        A socket that exists with an inode, and that two looks at everyone found with nobody, is the kernel's own or
        that of a process that may not be inspected; where most may not, one look is enough.
        """
        inodes = [socket.inode for socket in sockets if socket.inode]
        if not inodes:
            return Reason.CLOSED, False
        if not self._waiting.isdisjoint(inodes):
            return Reason.NOT_COVERED, False
        if self.denied * 2 > self.looked_at:
            return Reason.PERMISSION, True
        if all(self._orphans.get(inode, 0) > 1 for inode in inodes):
            return Reason.PERMISSION if self.denied else Reason.KERNEL, True
        return Reason.CLOSED, False

    def _missing(self, wanted: dict[int, int | None]) -> dict[int, int | None]:
        return {inode: uid for inode, uid in wanted.items() if inode not in self._held}

    def _unverified(self, now: int) -> dict[int, int | None]:
        return {
            inode: None
            for inode, entry in self._held.items()
            if entry.verified_ns is None or now - entry.verified_ns > VERIFY_NS
        }

    def _recheck(self, inodes: list[int]) -> None:
        begin = self._clock()
        if not inodes or not self._recheck_pace.allows(begin):
            return
        found = self._engine.recheck({inode: self._held[inode].processes for inode in inodes})
        self._recheck_pace.worked(begin, self._clock())
        for inode in inodes:
            if processes := found.holders.get(inode):
                self._held[inode] = _Held(_eldest_first(processes), self._held[inode].verified_ns)
                self._note_fresh(processes)
            else:
                del self._held[inode]

    def _look_at_everyone(self, wanted: dict[int, int | None]) -> None:
        begin = self._clock()
        found = self._engine.everyone(wanted)
        end = self._clock()
        self._scan_pace.worked(begin, end)
        self._verify_pace.worked(begin, end)
        self.denied, self.looked_at = found.denied, found.looked_at
        self.take(found, end)
        for inode in wanted.keys() - found.holders.keys():
            if inode in self._held:  # its process ended; the socket may still be asked for
                self._held[inode].verified_ns = end
            else:
                self._orphans[inode] = self._orphans.get(inode, 0) + 1

    def take(self, found: Holdings, verified_ns: int | None = None) -> None:
        """Take in the holders that a look found, which was at everyone at `verified_ns` or else at some only."""
        for inode, processes in found.holders.items():
            self._held[inode] = _Held(_eldest_first(processes), verified_ns)
            if self._orphans:
                self._orphans.pop(inode, None)
        self._note_fresh(process for processes in found.holders.values() for process in processes)


def _eldest_first(processes: Sequence[Process]) -> tuple[Process, ...]:
    """Order holders so that one from which others inherited comes before them."""
    if len(processes) == 1:
        return tuple(processes)
    unique = {process.id: process for process in processes}
    return tuple(sorted(unique.values(), key=lambda process: (process.start_ticks, process.pid)))
