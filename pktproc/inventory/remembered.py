"""Who held sockets that no file holds any more."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from pktproc.inventory.rows import Entry, Holder, Key, Row

MOST = 1 << 17
"""So many sockets are remembered, the latest ones; a busy server has a minute's worth of TIME_WAIT."""


class LastHolders:
    """Remember who holds which socket, by its cookie, from one look to the next."""

    def __init__(self) -> None:
        self._held: OrderedDict[Key, tuple[Holder, ...]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._held)

    def note(self, entries: Iterable[Entry]) -> None:
        """Take note of the holders of a look."""
        for entry in entries:
            if entry.holders and not entry.last:
                self.keep(entry.row.key, entry.holders)

    def keep(self, key: Key, holders: tuple[Holder, ...]) -> None:
        """Take note of who holds one socket."""
        self._held[key] = holders
        self._held.move_to_end(key)
        while len(self._held) > MOST:
            self._held.popitem(last=False)

    def add(self, key: Key, holders: tuple[Holder, ...]) -> None:
        """Take note that some processes, too, hold a socket."""
        known = self._held.get(key, ())
        met = {holder.process for holder in known}
        fresh = tuple(holder for holder in holders if holder.process not in met)
        if fresh:
            self.keep(key, known + fresh)

    def of(self, row: Row) -> tuple[Holder, ...]:
        """Return who was last seen to hold a socket; nobody if that is not known."""
        return self._held.get(row.key, ()) if row.cookie else ()
