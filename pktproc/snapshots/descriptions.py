"""Processes as the store has them: a row for each that is new, and another when it is no longer as described."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from pktproc.model import Process, ProcessId
from pktproc.snapshots.store import Store

MAX_IDLE = 1 << 13
_Likeness = tuple[str, str | None, tuple[str, ...] | None, int | None, str | None, str | None]


class _Described(NamedTuple):
    row: int
    likeness: _Likeness


class Descriptions:
    """Find or make the row of a process; a row ends while its process holds no socket.

    Processes that hold none are remembered, the latest `MAX_IDLE` at least, so that one that opens sockets now and then
    has one row.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._described: dict[ProcessId, _Described] = {}
        self._held: Counter[int] = Counter()
        self.count = 0

    def row(self, process: Process, now_ns: int) -> int:
        """Return the row that describes a process as it is now."""
        likeness = (process.name, process.exe, process.cmdline, process.uid, process.container_id, process.unit)
        described = self._described.get(process.id)
        if described and described.likeness == likeness and self._is_there(described.row):
            return described.row
        row = self._store.add_process(process, now_ns)
        self.count += 1
        self._described[process.id] = _Described(row, likeness)
        return row

    def _is_there(self, row: int) -> bool:
        return self._held[row] > 0 or self._store.resume_process(row)

    def hold(self, row: int) -> None:
        """Take note that the process of a row holds one socket more."""
        self._held[row] += 1

    def let_go(self, row: int, seen_ns: int) -> None:
        """Take note that the process of a row holds one socket less; it was last seen at `seen_ns`."""
        self._held[row] -= 1
        if self._held[row] <= 0:
            del self._held[row]
            self._store.end_process(row, seen_ns)
            self._forget_idle()

    def exit(self, process: ProcessId, ended_ns: int) -> None:
        """Take note of exactly when a process ended, if it was ever described."""
        described = self._described.get(process)
        if described:
            self._store.exit_process(described.row, ended_ns)

    def _forget_idle(self) -> None:
        if len(self._described) > 2 * MAX_IDLE + len(self._held):
            idle = [known for known, described in self._described.items() if described.row not in self._held]
            for known in idle[:-MAX_IDLE]:
                del self._described[known]
