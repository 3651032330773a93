"""What changed from one look to the next."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pktproc.inventory.rows import Entry, Key
from pktproc.inventory.states import TIME_WAIT


class Changes(NamedTuple):
    """The sockets that opened and those that closed between two looks, and those whose state or holders are others."""

    opened: list[Entry]
    closed: list[Entry]
    altered: list[Entry]


class Course:
    """Follow sockets from look to look by their keys.

    A connection in TIME_WAIT has closed: nobody can use it any more.
    """

    def __init__(self) -> None:
        self._known: dict[Key, Entry] = {}

    def take(self, entries: Iterable[Entry]) -> Changes:
        """Return what changed up to a look."""
        present = {entry.row.key: entry for entry in entries if entry.row.state != TIME_WAIT}
        known = self._known
        opened = [entry for key, entry in present.items() if key not in known]
        closed = [entry for key, entry in known.items() if key not in present]
        altered = [entry for key, entry in present.items() if key in known and _differs(entry, known[key])]
        self._known = present
        return Changes(opened, closed, altered)

    def end(self, key: Key) -> Entry | None:
        """Take note that a socket has closed; return what was known of it."""
        return self._known.pop(key, None)


def _differs(entry: Entry, before: Entry) -> bool:
    return entry.row.state != before.row.state or entry.holders != before.holders
