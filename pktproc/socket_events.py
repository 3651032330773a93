"""Sockets as they open and close, wired: looks, a witness in the kernel where there is one, and notices of ends."""

from __future__ import annotations

import re
import select
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Self

from pktproc.attribution.clocks import monotonic_offset_ns
from pktproc.errors import Denied, Unsupported
from pktproc.holding import Selected
from pktproc.inventory.chronicle import Chronicle, Happening
from pktproc.inventory.rows import Entry, Row
from pktproc.kernel.processes import ProcessReader
from pktproc.kernel.sock_diag import EndedSockets
from pktproc.listing import Looker, processes_of
from pktproc.model import Process, ProcessId, Socket
from pktproc.witnessing import Sight, SocketWitness, holders_of, inet_row

# What a witness tells lies in a buffer that has to be emptied several times a second.
_PATIENCE_S = 0.05
_MOST_DESCRIBED = 1 << 14
_NUMBER = re.compile(r"\d+")


class SocketEvents:
    """Hear sockets open and close; a context manager. `witness` is None where there is none.

    `notes` are what the user should know of what cannot be heard; each is put there once, whatever numbers it has.
    """

    def __init__(self, looker: Looker, witness: SocketWitness | None) -> None:
        self.notes: list[str] = []
        self._told: set[str] = set()
        self._looker = looker
        self._witness = witness
        self._question = looker.question
        self._selected: Selected | None = None
        if self._question.processes is not None:
            self._selected = Selected(self._question.processes, ProcessReader())
        self._chronicle = Chronicle()
        self._described: OrderedDict[ProcessId, Process] = OrderedDict()
        self._namespaces: dict[int, str] = {}
        self._ends: dict[int, EndedSockets] = {}
        self._hears_ends = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for ended in self._ends.values():
            ended.close()

    def begin(self) -> int:
        """Look for the first time; return how many sockets there are."""
        self._look()
        return len(self._chronicle)

    def hear(self, timeout_s: float) -> list[Happening]:
        """Return what was heard until now; if there was nothing, wait for a moment, at most so long."""
        waiting = select.poll()
        for ended in self._ends.values():
            waiting.register(ended.fileno(), select.POLLIN)
        waiting.poll(min(timeout_s, _PATIENCE_S) * 1000)
        return self._heard()

    def look(self) -> list[Happening]:
        """Look at the sockets of now; return what changed since the last look and was not heard."""
        return self._look()

    def namespaces(self) -> dict[int, str]:
        """Return the names of namespaces by their inode numbers, as of the last look."""
        return self._namespaces

    def processes(self, entry: Entry) -> dict[ProcessId, Process]:
        """Return all that is known of the holders of a socket, also of those that have ended since."""
        known = {holder.process: self._described.get(holder.process) for holder in entry.holders}
        return processes_of([entry]) | {process: found for process, found in known.items() if found is not None}

    def _look(self) -> list[Happening]:
        found = self._heard()
        self._chronicle.begin_look()
        listing = self._looker.look()
        self._namespaces = dict(listing.namespaces)
        self._listen()
        self._note(listing.notes)
        found += self._heard()
        return found + self._chronicle.looked(listing.entries, time.time_ns())

    def _listen(self) -> None:
        """Hear of ends in all namespaces that were looked at, and in no others."""
        for netns in self._ends.keys() - self._looker.spaces.keys():
            self._ends.pop(netns).close()
        for netns, tables in self._looker.spaces.items():
            if netns in self._ends or not self._hears_ends:
                continue
            try:
                self._ends[netns] = tables.ended()
            except (Denied, Unsupported) as error:
                self._hears_ends = False
                self._note([f"{error}; what is closed between two looks is not heard"])

    def _heard(self) -> list[Happening]:
        """Take in what was told since the last time."""
        # What happened to a socket is told before its end is: so ends are asked for first, and taken in last.
        ended = [socket for each in self._ends.values() for socket in self._ended(each)]
        found: list[Happening] = []
        if self._witness is not None:
            sights, lost = self._witness.told()
            if lost:
                self._note([f"too much at once: {lost} events of the kernel were lost, and with them owners"])
            offset_ns = monotonic_offset_ns(time.monotonic_ns, time.time_ns)
            for sight in sights:
                found += self._seen(sight, sight.time_ns - offset_ns)
        now_ns = time.time_ns()
        for row in map(inet_row, ended):
            maker = self._witness.accounts.maker(row.cookie) if self._witness else None
            if self._chronicle.knows(row.key) or (_has_port(row) and self._wants(row, maker)):
                self._describe(maker)
                found += self._chronicle.ended(row, holders_of(maker), now_ns)
        return found

    def _ended(self, heard: EndedSockets) -> Iterator[Socket]:
        sockets, lost = heard.drain()
        if lost:
            self._note(["the kernel could not tell of all sockets that closed: too many at once"])
        yield from sockets

    def _seen(self, sight: Sight, time_ns: int) -> list[Happening]:
        row = sight.row
        if sight.closed:
            return self._chronicle.ended(row, (), time_ns) if self._chronicle.knows(row.key) else []
        if not self._wants(row, sight.process):
            return []
        self._describe(sight.process)
        holders = holders_of(sight.process)
        self._looker.remembered.add(row.key, holders)
        return self._chronicle.used(row, holders, time_ns)

    def _wants(self, row: Row, process: Process | None) -> bool:
        """Say whether a socket that no look has found is one of those that were asked for."""
        question = self._question
        return (
            row.kind in question.tables
            and row.family in question.families
            and bool(question.states >> row.state & 1)
            and self._looker.covers(row.netns)
            and (self._selected is None or (process is not None and self._selected.wants(process)))
            and self._looker.fits(Entry(row, holders_of(process)))
        )

    def _describe(self, process: Process | None) -> None:
        if process is not None:
            self._described[process.id] = process
            self._described.move_to_end(process.id)
            if len(self._described) > _MOST_DESCRIBED:
                self._described.popitem(last=False)

    def _note(self, notes: Iterable[str]) -> None:
        for note in notes:
            gist = _NUMBER.sub("", note)
            if gist not in self._told:
                self._told.add(gist)
                self.notes.append(note)


def _has_port(row: Row) -> bool:
    """Say whether a socket ever was in a table: one that was never bound never was."""
    return bool(row.local_port or row.remote_port)
