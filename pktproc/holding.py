"""Who holds which socket: the descriptors of one look joined with the names of their processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from pktproc.inventory.rows import NO_ATTRIBUTES, UNLISTED, Entry, Holder, Row, make_holder
from pktproc.inventory.states import CLOSED
from pktproc.kernel.descriptor_table import Descriptors
from pktproc.kernel.processes import ProcessReader
from pktproc.model import Process, ProcessId

if TYPE_CHECKING:
    from pktproc.attribution.process_selection import ProcessSelection

Label = Callable[[str, int], str]
Write = Callable[[tuple[Holder, ...], int], str]

_PROTOCOL_NAME = "system.sockprotoname"


class _Known(dict[int, tuple[Holder, ...]]):
    """Holders by inode, each found once."""

    def __init__(self, find: Callable[[int], tuple[Holder, ...]]) -> None:
        super().__init__({0: ()})
        self._find = find

    def __missing__(self, inode: int) -> tuple[Holder, ...]:
        found = self[inode] = self._find(inode)
        return found


class _Finder:
    """Find the holders of inodes; apart from `Join`, which would be part of a circle, and nobody looks for those."""

    def __init__(self, reader: ProcessReader, descriptors: Descriptors) -> None:
        self._descriptors = descriptors
        self._reader = reader
        self._processes: dict[int, tuple[ProcessId, str] | None] = {}

    def find(self, inode: int) -> tuple[Holder, ...]:
        """Return who holds an inode, the lowest pid first; nobody for inode 0."""
        pairs = self._descriptors.of(inode)
        if not pairs:
            return ()
        if len(pairs) == 1:
            pid, number = pairs[0]
            process = self.process(pid)
            return () if process is None else (make_holder((*process, (number,))),)
        fds: dict[int, list[int]] = {}
        for pid, number in sorted(pairs):
            fds.setdefault(pid, []).append(number)
        return tuple(Holder(*process, tuple(numbers)) for pid, numbers in fds.items() if (process := self.process(pid)))

    def process(self, pid: int) -> tuple[ProcessId, str] | None:
        """Return a process that has not ended since the look, with its name."""
        if pid in self._processes:
            return self._processes[pid]
        process = ProcessId(pid, self._descriptors.starts[pid])
        name = self._reader.name(process)
        found = self._processes[pid] = None if name is None else (process, name)
        return found


class Join:
    """Name the holders of inodes by one look at all descriptors."""

    def __init__(self, reader: ProcessReader, descriptors: Descriptors) -> None:
        self.descriptors = descriptors
        self._finder = _Finder(reader, descriptors)
        self.holders = _Known(self._finder.find).__getitem__

    def texts(self, inodes: Sequence[int], label: Label, write: Write) -> list[str]:
        """Return texts for who holds each of many inodes, `nginx[123] fd 3` for those that have a single descriptor.

        `label` writes a process, `write` the holders of all other inodes.
        """
        held = self.descriptors
        found = {pid: self._finder.process(pid) for pid in held.starts}
        heads = {pid: f"{label(process[1], pid)} fd " for pid, process in found.items() if process is not None}
        known = {
            inode: f"{heads[pid]}{number}"
            for inode, pid, number in zip(held.inodes, held.pids, held.numbers, strict=True)
            if pid in heads
        }
        if len(known) < len(held.inodes):
            for inode in held.several:
                known.pop(inode, None)
        return [known.get(inode) or write(self.holders(inode), inode) for inode in inodes]


def unlisted_row(inode: int, holders: tuple[Holder, ...]) -> Row:
    """Return a row for a socket of which only the name of its protocol is known, in the place of its local end."""
    name = b""
    for holder in holders:
        try:
            name = os.getxattr(f"/proc/{holder.pid}/fd/{holder.fds[0]}", _PROTOCOL_NAME).rstrip(b"\0")
            break
        except OSError:
            continue
    return Row(0, UNLISTED, 0, CLOSED, 0, 0, name, 0, b"", 0, 0, 0, None, inode, 0, 0, 0, NO_ATTRIBUTES)


class Selected:
    """Say which sockets are held by processes of a selection."""

    def __init__(self, selection: ProcessSelection, reader: ProcessReader) -> None:
        from pktproc.attribution.process_selection import ProcessJudge  # noqa: PLC0415 - cachetools

        self._selection = selection
        self._reader = reader
        self._judge = ProcessJudge(selection, reader.read)

    def fits(self, entry: Entry) -> bool:
        """Say whether a selected process holds a socket; where nobody is known to, its user decides."""
        chosen = self._selection
        if not entry.holders and chosen.uids and not (chosen.pids or chosen.names or chosen.containers):
            return entry.row.uid in chosen.uids
        return self.holds(entry.holders)

    def holds(self, holders: Iterable[Holder]) -> bool:
        """Say whether one of some holders is selected."""
        return any(self._is_selected(holder) for holder in holders)

    def wants(self, process: Process) -> bool:
        """Say whether a process is selected."""
        return self._judge.wants(process)

    def _is_selected(self, holder: Holder) -> bool:
        process = self._reader.read(holder.pid)
        return process is not None and process.id == holder.process and self.wants(process)
