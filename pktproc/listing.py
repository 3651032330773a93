"""The socket table with its owners, wired: tables of namespaces, descriptors of processes, selections."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import compress
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from pktproc.errors import Denied, EngineError, UsageError
from pktproc.holding import Join, Selected, unlisted_row
from pktproc.inventory import states
from pktproc.inventory.remembered import LastHolders
from pktproc.inventory.rows import INET, Entry, Listing, Row, make_row
from pktproc.inventory.sharing import sharing
from pktproc.kernel import namespaces
from pktproc.kernel.descriptor_table import Descriptors
from pktproc.kernel.descriptors import DescriptorSource
from pktproc.kernel.inet_table import Fields
from pktproc.kernel.namespaces import Namespace
from pktproc.kernel.processes import ProcessReader
from pktproc.kernel.tables import TABLES, Extent, Tables
from pktproc.model import Process, ProcessId

if TYPE_CHECKING:
    from pktproc.attribution.process_selection import ProcessSelection
    from pktproc.inventory.conditions import Condition, Needs

ALL_NAMESPACES = "all"
_STATE, _REMOTE_PORT = Row._fields.index("state"), Row._fields.index("remote_port")


class Question(NamedTuple):
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
    processes: ProcessSelection | None = None
    netns: tuple[str, ...] = ()
    peers: bool = True
    info: bool = False
    memory: bool = False


class Looker:
    """Look at the sockets of this host, again and again if need be; a context manager.

    `remembered` knows holders from other sources than the looks, which are added to it if `keeps` is set. `fits`
    says whether a socket fits the condition, as of the last look.
    """

    def __init__(self, question: Question, *, remembered: LastHolders | None = None, keeps: bool = False) -> None:
        self.question = question
        self.remembered = remembered or LastHolders()
        self._keeps = keeps
        self._reader = ProcessReader()
        self._tables: dict[int, Tables] = {}
        self._notes: dict[str, None] = {}
        self.fits: Callable[[Entry], bool] = lambda _: True
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
        entries = list(self._selected(rows, join))
        if self.question.processes is not None and self.question.processes.pids:
            entries = _by_descriptor(entries, self.question.processes.pids)
        if self._keeps:
            self.remembered.note(entries)
        return self._listing(entries, rows, join)

    def _listing(self, entries: Sequence[Entry], rows: Iterable[Row], join: Join) -> Listing:
        self._explain_unknown(join.descriptors)
        names = namespaces.names()
        return Listing(
            entries,
            namespaces={netns: names.get(netns, str(netns)) for netns in self._tables},
            interfaces=self._interfaces(rows),
            sharing=sharing(rows),
            denied=bool(join.descriptors.denied),
            notes=tuple(self._notes),
        )

    def tables(self, netns: int) -> Tables:
        """Return the tables of a namespace that was looked at."""
        return self._tables[netns]

    @property
    def spaces(self) -> Mapping[int, Tables]:
        """Return the tables of all namespaces that were looked at last."""
        return self._tables

    def covers(self, netns: int) -> bool:
        """Say whether the sockets of a namespace are wanted."""
        return netns in self._tables or self._wants_all

    def _close_tables(self) -> None:
        while self._tables:
            self._tables.popitem()[1].close()

    def _spaces(self) -> Iterator[Tables]:
        """Yield the namespaces that are wanted, the own one first."""
        own = namespaces.current()
        wanted = self._wanted_spaces(own)
        for netns in self._tables.keys() - wanted.keys():
            self._tables.pop(netns).close()
        for netns, space in sorted(wanted.items(), key=lambda item: (item[0] != own, item[0])):
            if netns in self._tables or self._enter(netns, space):
                yield self._tables[netns]

    def _enter(self, netns: int, space: Namespace | None) -> bool:
        """Open the tables of a namespace, None for the own one; say whether it is there still and lets us in."""
        try:
            if space is None:
                opened: Tables | None = Tables(netns, None)
            else:
                opened = namespaces.reach(space, lambda path: Tables(netns, path), namespaces.discover)
        except (Denied, OSError) as error:
            if self._names:
                raise
            self._notes[f"not all namespaces can be looked at: {error}"] = None
            return False
        if opened is None and self._names:
            raise UsageError(f"the network namespace at {space.path if space else netns} is gone")
        if opened is not None:
            self._tables[netns] = opened
        return opened is not None

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(name for name in self.question.netns if name != ALL_NAMESPACES)

    @property
    def _wants_all(self) -> bool:
        chosen = self.question.netns
        return ALL_NAMESPACES in chosen or (not chosen and self.question.processes is not None)

    def _wanted_spaces(self, own: int) -> dict[int, Namespace | None]:
        question = self.question
        wanted: dict[int, Namespace | None] = {}
        if self._wants_all:
            wanted |= namespaces.discover()
        for name in self._names:
            path = namespaces.named(name)
            netns = namespaces.inode(path)
            wanted[netns] = Namespace(netns, path, None)
        if not question.netns or own in wanted:
            wanted[own] = None
        return wanted

    def _rows(self, tables: Tables) -> list[Row]:
        question = self.question
        rows: list[Row] = []
        # The other end of a connection can be in another state than what was asked for.
        mask = question.states | (states.CONNECTED if question.peers else 0)
        extent = Extent(mask, question.info, question.memory, "binding" in self._needs)
        for table in self.question.tables:
            try:
                rows += tables.read(table, extent)
            except (EngineError, OSError) as error:
                self._notes[str(error)] = None
        return rows

    @property
    def is_plain(self) -> bool:
        """Say whether sockets are wanted for their kinds and states alone, so that none must be looked at closely."""
        question = self.question
        chosen = (question.condition, question.processes, question.kinds or None)
        return chosen == (None, None, None) and not question.peers and not self.remembered and question.families == INET

    def look_plainly(self) -> tuple[Sequence[Sequence[Any]], Join, Listing]:
        """Return what `look` does where `is_plain`, field by field, with what knows the holders.

        The listing has all but the entries: to make objects of tens of thousands of sockets takes most of the time.
        """
        self._notes.clear()
        blocks: list[Fields] = []
        extent = Extent(self.question.states)
        for tables in self._spaces():
            for table in self.question.tables:
                try:
                    blocks += tables.fields(table, extent)
                except (EngineError, OSError) as error:
                    self._notes[str(error)] = None
        fields = _with_states(_joined(blocks), self.question.states)
        join = Join(self._reader, self._descriptors.look())
        # Only what is bound without being connected can share a port, which are few.
        alone = [index for index, port in enumerate(fields[_REMOTE_PORT]) if not port]
        bound = [make_row([column[index] for column in fields]) for index in alone]
        return fields, join, self._listing((), bound, join)

    @property
    def _needs(self) -> Needs:
        return frozenset() if self.question.condition is None else self.question.condition.needs

    def _fits(self) -> Callable[[Entry], bool]:
        """Return what says whether a socket fits the condition, with what there is around it now."""
        condition = self.question.condition
        if condition is None:
            return lambda _: True
        from pktproc.surroundings import surroundings  # noqa: PLC0415 - a plain listing does without

        around = surroundings(self._needs, self._tables)
        return lambda entry: condition.fits(entry, around)

    def _with_last(self, entry: Entry) -> Entry:
        """Return an entry with who was last known to hold its socket, if nobody does."""
        last = () if entry.row.inode else self.remembered.of(entry.row)
        return entry._replace(holders=last, last=True) if last else entry

    def _selected(self, rows: list[Row], join: Join) -> Iterator[Entry]:
        question, condition = self.question, self.question.condition
        mask, kinds, families = question.states, question.kinds, question.families
        from pktproc.inventory.peers import Peers  # noqa: PLC0415 - a plain listing does without

        peers = Peers(rows, join.holders)
        early = "peers" in self._needs
        self.fits = fits = self._fits()
        narrow = families != INET or bool(kinds)
        selected = None if question.processes is None else Selected(question.processes, self._reader)
        for row in rows:
            if not mask >> row[3] & 1 or (narrow and not _is_wanted(row, kinds, families)):
                continue
            entry = self._with_last(Entry(row, join.holders(row[13]), peers.of(row) if early else None))
            if not fits(entry):
                continue
            if selected is None or selected.fits(entry):
                yield entry if early or not question.peers else entry._replace(peer=peers.of(row))
        if selected and question.tables == TABLES and not kinds and condition is None:
            yield from _unlisted({row.inode for row in rows}, join, selected)

    def _explain_unknown(self, descriptors: Descriptors) -> None:
        if descriptors.denied:
            cure = "run with CAP_SYS_PTRACE, outside of containers" if os.geteuid() == 0 else "run as root (sudo)"
            lack = f"{descriptors.denied} of {descriptors.looked_at} processes may not be inspected"
            self._notes[f"{lack}, so that the owners of their sockets are missing: {cure}"] = None
        for table in self.question.tables if self.question.tables != TABLES else ():
            for tables in self._tables.values():
                if table in tables.missing and table in ("sctp", "dccp", "vsock"):
                    self._notes[tables.missing[table]] = None

    def _interfaces(self, rows: Iterable[Row]) -> dict[tuple[int, int], str]:
        bound = {row[0] for row in rows if row[10]}
        found: dict[tuple[int, int], str] = {}
        for netns in bound & self._tables.keys():
            found |= {(netns, ifindex): name for ifindex, name in self._tables[netns].interfaces().items()}
        return found


def _joined(blocks: Iterable[Fields]) -> list[list[Any]]:
    """Return blocks of sockets as one."""
    fields: list[list[Any]] = [[] for _ in Row._fields]
    for block in blocks:
        for column, values in zip(fields, block, strict=True):
            column.extend(values)
    return fields


def _with_states(fields: list[list[Any]], mask: int) -> list[list[Any]]:
    """Return the sockets in some states; most tables are asked for no others."""
    if all(mask >> state & 1 for state in set(fields[_STATE])):
        return fields
    wanted = [bool(mask >> state & 1) for state in fields[_STATE]]
    return [list(compress(column, wanted)) for column in fields]


def _by_descriptor(entries: Iterable[Entry], pids: frozenset[int]) -> list[Entry]:
    """Return sockets in the order of the descriptors that some processes have of them."""

    def place(entry: Entry) -> tuple[int, int]:
        own = [(holder.pid, holder.fds[0]) for holder in entry.holders if holder.pid in pids and holder.fds]
        return min(own, default=(0, 0))

    return sorted(entries, key=place)


def _unlisted(listed: set[int], join: Join, selected: Selected) -> Iterator[Entry]:
    """Yield the sockets of the selected processes that no table of the kernel shows, with what they are of."""
    for inode in join.descriptors.single.keys() - listed:
        holders = join.holders(inode)
        if selected.holds(holders):
            yield Entry(unlisted_row(inode, holders), holders)


def _is_wanted(row: Row, kinds: frozenset[str], families: frozenset[int]) -> bool:
    return (not kinds or row.kind in kinds) and (row.family not in INET or row.family in families)


def processes_of(entries: Iterable[Entry]) -> dict[ProcessId, Process]:
    """Return all that is known of the processes that hold sockets; those that are gone are missing."""
    reader = ProcessReader()
    wanted = {holder.process for entry in entries for holder in entry.holders}
    read = {process: reader.read(process.pid) for process in wanted}
    return {process: found for process, found in read.items() if found is not None and found.id == process}
