"""Which processes a user wants to see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from cachetools import LRUCache

from pktproc.model import Process, ProcessId

_MAX_JUDGED = 1 << 14


@dataclass(frozen=True, slots=True)
class ProcessSelection:
    """Select processes: one of each group that is not empty must fit.

    `names` are shell patterns, `uids` effective user ids, `containers` beginnings of container ids. With `follow`,
    descendants of a process that fits do too.
    """

    pids: frozenset[int] = frozenset()
    names: tuple[str, ...] = ()
    uids: frozenset[int] = frozenset()
    containers: tuple[str, ...] = ()
    follow: bool = False

    @property
    def everything(self) -> bool:
        """Say whether nothing was asked for, so that all packets are wanted, unattributed ones included."""
        return not (self.pids or self.names or self.uids or self.containers)

    @property
    def by_pid_alone(self) -> bool:
        """Say whether pids are all that was asked for, so that even ancestors that are gone can be told."""
        return bool(self.pids) and not (self.names or self.uids or self.containers)

    def fits(self, process: Process) -> bool:
        """Say whether a process itself is selected."""
        return (
            (not self.pids or process.pid in self.pids)
            and (not self.names or any(fnmatchcase(process.name, pattern) for pattern in self.names))
            and (not self.uids or process.uid in self.uids)
            and (not self.containers or _begins(process.container_id, self.containers))
        )


class ProcessJudge:
    """Apply a selection to processes; `look_up` returns the process that has a pid now, to judge ancestors by."""

    def __init__(self, selection: ProcessSelection, look_up: Callable[[int], Process | None]) -> None:
        self._selection = selection
        self._look_up = look_up
        self._judged: LRUCache[Process, bool] = LRUCache(_MAX_JUDGED)
        self._wanted: LRUCache[ProcessId, bool] = LRUCache(_MAX_JUDGED)

    def wants(self, process: Process) -> bool:
        """Say whether a process is selected, by itself or as a descendant."""
        # By all that is known of it, since the same process may become another program.
        wanted = self._judged.get(process)
        if wanted is None:
            wanted = self._judged[process] = self._selection.fits(process) or (
                self._selection.follow and any(self._is_wanted_ancestor(ancestor) for ancestor in process.ancestors)
            )
            if wanted:
                self._wanted[process.id] = True
        return wanted

    def _is_wanted_ancestor(self, ancestor: ProcessId) -> bool:
        if ancestor in self._wanted:
            return True
        if self._selection.by_pid_alone:
            return ancestor.pid in self._selection.pids
        process = self._look_up(ancestor.pid)
        return process is not None and process.id == ancestor and self._selection.fits(process)


def _begins(container_id: str | None, beginnings: tuple[str, ...]) -> bool:
    return container_id is not None and container_id.startswith(beginnings)
