"""Which sockets opened and closed, put together from looks, from what a witness saw, and from notices of ends."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from pktproc.inventory.rows import Entry, Holder, Key, Row
from pktproc.inventory.states import CLOSED, SYN_SENT, TIME_WAIT

MOST_GONE = 1 << 17
"""So many closed sockets are remembered, so that what is heard late does not open them again."""
OPENED, CLOSED_NOW = "opened", "closed"


class Happening(NamedTuple):
    """A socket that opened or closed (`action`) at `time_ns`, with all that is known of who held it."""

    action: str
    time_ns: int
    entry: Entry


class Chronicle:
    """Follow sockets by their keys; each is told to open once and to close once.

    A connection in TIME_WAIT has closed: nobody can use it any more.
    """

    def __init__(self) -> None:
        self._known: dict[Key, Entry] = {}
        self._before_look: frozenset[Key] = frozenset()
        # Whether it was heard to close, or only not found by a look any more.
        self._gone: OrderedDict[Key, bool] = OrderedDict()

    def begin_look(self) -> None:
        """Take note that a look begins, which cannot find what opens from now on."""
        self._before_look = frozenset(self._known)

    def looked(self, entries: Iterable[Entry], time_ns: int) -> list[Happening]:
        """Return what the look that began last found to have changed."""
        present = {entry.row.key: entry for entry in entries if entry.row.state != TIME_WAIT}
        present = {key: entry for key, entry in present.items() if not self._gone.get(key)}
        closed = [key for key in self._before_look if key in self._known and key not in present]
        found = [Happening(OPENED, time_ns, entry) for key, entry in present.items() if key not in self._known]
        for key, entry in present.items():
            known = self._known.get(key)
            self._known[key] = entry if entry.holders or known is None else entry._replace(holders=known.holders)
            self._gone.pop(key, None)
        return found + [self._close(key, self._known[key], time_ns, heard=False) for key in closed]

    def used(self, row: Row, holders: tuple[Holder, ...], time_ns: int) -> list[Happening]:
        """Return what it means that some processes, none if they are not known, were seen to use a socket."""
        key = row.key
        if self._gone.get(key):
            return []
        known = self._known.get(key)
        if known is None:
            self._gone.pop(key, None)
            self._known[key] = Entry(row, holders)
            return [Happening(OPENED, time_ns, self._known[key])]
        met = {holder.process for holder in known.holders}
        fresh = tuple(holder for holder in holders if holder.process not in met)
        if not known.row.local_port or _connects_again(known.row, row):
            known = known._replace(row=row)
        if fresh or known is not self._known[key]:
            self._known[key] = known._replace(holders=known.holders + fresh, last=False)
        return []

    def ended(self, row: Row, holders: tuple[Holder, ...], time_ns: int) -> list[Happening]:
        """Return what it means that a socket was heard to end; `holders` count for one that was not met before."""
        key = row.key
        known = self._known.get(key)
        if known is not None:
            return [self._close(key, known, time_ns, heard=True)]
        if key in self._gone:
            self._gone[key] = True
            return []
        closed = self._close(key, Entry(row, holders), time_ns, heard=True)
        return [closed._replace(action=OPENED), closed] if holders else [closed]

    def knows(self, key: Key) -> bool:
        """Say whether a socket is one that was told to open and not to close."""
        return key in self._known

    def __len__(self) -> int:
        return len(self._known)

    def _close(self, key: Key, entry: Entry, time_ns: int, *, heard: bool) -> Happening:
        self._known.pop(key, None)
        self._gone[key] = heard
        while len(self._gone) > MOST_GONE:
            self._gone.popitem(last=False)
        if entry.row.state == SYN_SENT:  # whether it was ever answered is not known
            entry = entry._replace(row=entry.row._replace(state=CLOSED))
        return Happening(CLOSED_NOW, time_ns, entry)


def _connects_again(known: Row, now: Row) -> bool:
    """Say whether a socket of TCP has another connection than before, as after one that was refused."""
    return known.kind == now.kind == "tcp" and (known.remote, known.remote_port) != (now.remote, now.remote_port)
