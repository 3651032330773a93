"""The socket table with its owners, wired: tables of namespaces, descriptors of processes, selections."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pktproc.attribution.process_selection import ProcessJudge, ProcessSelection
from pktproc.errors import Denied, EngineError
from pktproc.holding import Join, unlisted_row
from pktproc.inventory import states
from pktproc.inventory.remembered import LastHolders
from pktproc.inventory.rows import INET, Entry, Holder, Listing, Row, make_entry
from pktproc.inventory.sharing import sharing
from pktproc.kernel import namespaces
from pktproc.kernel.descriptor_table import Descriptors
from pktproc.kernel.descriptors import DescriptorSource
from pktproc.kernel.processes import ProcessReader
from pktproc.kernel.tables import TABLES, Extent, Tables
from pktproc.model import Process, ProcessId

if TYPE_CHECKING:
    from pktproc.inventory.conditions import Condition

ALL_NAMESPACES = "all"


@dataclass(frozen=True, slots=True)
class Question:
    """What sockets are wanted.

    `tables` are some of `TABLES`, `kinds` what is wanted of them (empty for all), `families` the AF_ numbers of inet
    sockets. `netns` are names of namespaces, or `all`; empty for the own one, or for all of them if processes are
    selected, which may be anywhere. `peers` asks for the other ends. `info` and `memory` ask for what `ss -i` and `-m`
    show.
    """

    tables: tuple[str, ...] = TABLES
    kinds: frozenset[str] = frozenset()
    families: frozenset[int] = INET
    states: int = states.ALL
    condition: Condition | None = None
    processes: ProcessSelection = field(default_factory=ProcessSelection)
    netns: tuple[str, ...] = ()
    peers: bool = True
    info: bool = False
    memory: bool = False


class Looker:
    """Look at the sockets of this host, again and again if need be; a context manager.

    `remembered` knows holders from other sources than the looks, which are added to it if `keeps` is set.
    """

    def __init__(self, question: Question, *, remembered: LastHolders | None = None, keeps: bool = False) -> None:
        self._question = question
        self._remembered = remembered or LastHolders()
        self._keeps = keeps
        self._reader = ProcessReader()
        self._judge = ProcessJudge(question.processes, self._reader.read)
        self._tables: dict[int, Tables] = {}
        self._notes: dict[str, None] = {}
        with ExitStack() as opened:
            self._descriptors = DescriptorSource(self._reader)
            opened.callback(self._descriptors.close)
            opened.callback(self._close_tables)
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of all namespaces."""
        self._opened.close()

    def look(self) -> Listing:
        """Return the sockets of now that are wanted.

        A socket that ends while the look goes on may be missing or have no holder; none is shown that was not there.
        Raise `UsageError` for a namespace that is not there and `Denied` for one that may not be entered.
        """
        self._notes.clear()
        rows: list[Row] = []
        for tables in self._spaces():
            rows += self._rows(tables)
        join = Join(self._reader, self._descriptors.look())
        entries = self._everything(rows, join) if self._is_plain else list(self._selected(rows, join))
        if self._question.processes.pids:
            entries = _by_descriptor(entries, self._question.processes.pids)
        self._explain_unknown(join.descriptors)
        if self._keeps:
            self._remembered.note(entries)
        names = namespaces.names()
        return Listing(
            entries,
            namespaces={netns: names.get(netns, str(netns)) for netns in self._tables},
            interfaces=self._interfaces(entries),
            sharing=sharing(rows),
            denied=bool(join.descriptors.denied),
            notes=tuple(self._notes),
        )

    def tables(self, netns: int) -> Tables:
        """Return the tables of a namespace that was looked at."""
        return self._tables[netns]

    def _close_tables(self) -> None:
        while self._tables:
            self._tables.popitem()[1].close()

    def _spaces(self) -> Iterator[Tables]:
        """Yield the namespaces that are wanted, the own one first."""
        own = namespaces.current()
        wanted = self._wanted_spaces(own)
        for netns in self._tables.keys() - wanted.keys():
            self._tables.pop(netns).close()
        for netns, path in sorted(wanted.items(), key=lambda item: (item[0] != own, item[0])):
            if netns not in self._tables:
                try:
                    self._tables[netns] = Tables(netns, path)
                except (Denied, OSError) as error:
                    if self._names:
                        raise
                    self._notes[f"not all namespaces can be looked at: {error}"] = None
                    continue
            yield self._tables[netns]

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(name for name in self._question.netns if name != ALL_NAMESPACES)

    def _wanted_spaces(self, own: int) -> dict[int, Path | None]:
        question = self._question
        wanted: dict[int, Path | None] = {}
        if ALL_NAMESPACES in question.netns or (not question.netns and not question.processes.everything):
            wanted = {netns: space.path for netns, space in namespaces.discover().items()}
        for name in self._names:
            path = namespaces.named(name)
            wanted[namespaces.inode(path)] = path
        if not question.netns or own in wanted:
            wanted[own] = None
        return wanted

    def _rows(self, tables: Tables) -> list[Row]:
        question = self._question
        rows: list[Row] = []
        # The other end of a connection can be in another state than what was asked for.
        mask = question.states | (states.CONNECTED if question.peers else 0)
        extent = Extent(mask, question.info, question.memory)
        for table in question.tables:
            if table == "vsock" and tables.netns != next(iter(self._tables)):
                continue  # which are in no namespace
            try:
                rows += tables.read(table, extent)
            except (EngineError, OSError) as error:
                self._notes[str(error)] = None
        return rows

    @property
    def _is_plain(self) -> bool:
        """Say whether sockets are wanted for their kinds and states alone, so that none must be looked at closely."""
        question = self._question
        return question.condition is None and question.processes.everything and not question.peers

    def _everything(self, rows: list[Row], join: Join) -> list[Entry]:
        """Return all sockets of the wanted kinds and states: what `_selected` does for each, done for all at once."""
        question = self._question
        kinds, families = question.kinds, question.families
        if question.states != states.ALL:
            rows = [row for row in rows if question.states >> row[3] & 1]
        if kinds or families != INET:
            rows = [row for row in rows if _is_wanted(row, kinds, families)]
        held = join.all_holders([row[13] for row in rows])
        entries = list(map(make_entry, zip(rows, held, repeat(None), repeat(False))))
        return list(map(self._with_last, entries)) if self._remembered else entries

    def _with_last(self, entry: Entry) -> Entry:
        """Return an entry with who was last known to hold its socket, if nobody does."""
        last = () if entry.row.inode else self._remembered.of(entry.row)
        return entry._replace(holders=last, last=True) if last else entry

    def _selected(self, rows: list[Row], join: Join) -> Iterator[Entry]:
        question, condition = self._question, self._question.condition
        mask, kinds, families = question.states, question.kinds, question.families
        from pktproc.inventory.peers import Peers  # noqa: PLC0415 - a plain listing does without

        peers = Peers(rows, join.holders)
        early = condition is not None and condition.needs_peers
        narrow = families != INET or bool(kinds)
        everyone = question.processes.everything
        for row in rows:
            if not mask >> row[3] & 1 or (narrow and not _is_wanted(row, kinds, families)):
                continue
            entry = self._with_last(Entry(row, join.holders(row[13]), peers.of(row) if early else None))
            if condition is not None and not condition.fits(entry):
                continue
            if everyone or self._is_selected(entry):
                yield entry if early or not question.peers else entry._replace(peer=peers.of(row))
        if not everyone and question.tables == TABLES and not kinds and condition is None:
            yield from self._unlisted({row.inode for row in rows}, join)

    def _is_selected(self, entry: Entry) -> bool:
        """Say whether a process that is selected holds a socket; where none is known, its user decides."""
        uids = self._question.processes.uids
        if not entry.holders and uids and not (self._question.processes.pids or self._question.processes.names):
            return entry.row.uid in uids and not self._question.processes.containers
        return any(self._is_selected_process(holder) for holder in entry.holders)

    def _is_selected_process(self, holder: Holder) -> bool:
        process = self._reader.read(holder.pid)
        return process is not None and process.id == holder.process and self._judge.wants(process)

    def _unlisted(self, listed: set[int], join: Join) -> Iterator[Entry]:
        """Yield the sockets of the selected processes that no table of the kernel shows, with what they are of."""
        for inode in join.descriptors.single.keys() - listed:
            holders = join.holders(inode)
            if any(self._is_selected_process(holder) for holder in holders):
                yield Entry(unlisted_row(inode, holders), holders)

    def _explain_unknown(self, descriptors: Descriptors) -> None:
        if descriptors.denied:
            cure = "run with CAP_SYS_PTRACE, outside of containers" if os.geteuid() == 0 else "run as root (sudo)"
            lack = f"{descriptors.denied} of {descriptors.looked_at} processes may not be inspected"
            self._notes[f"{lack}, so that the owners of their sockets are missing: {cure}"] = None
        for table in self._question.tables if self._question.tables != TABLES else ():
            for tables in self._tables.values():
                if table in tables.missing and table in ("sctp", "dccp", "vsock"):
                    self._notes[tables.missing[table]] = None

    def _interfaces(self, entries: Iterable[Entry]) -> dict[tuple[int, int], str]:
        bound = {entry.row.netns for entry in entries if entry.row.ifindex}
        found: dict[tuple[int, int], str] = {}
        for netns in bound & self._tables.keys():
            found |= {(netns, ifindex): name for ifindex, name in self._tables[netns].interfaces().items()}
        return found


def _by_descriptor(entries: Iterable[Entry], pids: frozenset[int]) -> list[Entry]:
    """Return sockets in the order of the descriptors that some processes have of them."""

    def place(entry: Entry) -> tuple[int, int]:
        own = [(holder.pid, holder.fds[0]) for holder in entry.holders if holder.pid in pids and holder.fds]
        return min(own, default=(0, 0))

    return sorted(entries, key=place)


def _is_wanted(row: Row, kinds: frozenset[str], families: frozenset[int]) -> bool:
    return (not kinds or row.kind in kinds) and (row.family not in INET or row.family in families)


def processes_of(entries: Iterable[Entry]) -> dict[ProcessId, Process]:
    """Return all that is known of the processes that hold sockets; those that are gone are missing."""
    reader = ProcessReader()
    wanted = {holder.process for entry in entries for holder in entry.holders}
    read = {process: reader.read(process.pid) for process in wanted}
    return {process: found for process, found in read.items() if found is not None and found.id == process}
