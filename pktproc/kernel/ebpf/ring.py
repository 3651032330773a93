"""The ring in which the programs tell events, read in place (telling.h).

Whoever tells takes the next place and writes the number of the event last, so an event is whole if it has its number.
The ring is never full: what was not read in time is overtaken, and counted.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pktproc.kernel.ebpf.events import EVENT, Rows

# So many at once: what is told in a storm, without holding up the packets for long.
_MOST_EVENTS = 1 << 15
_SEQUENCE_MASK = 0xFFFFFFFF


class Read(NamedTuple):
    """Events as they were told, in order (`EVENT`); `more` says that others were behind them."""

    rows: Rows
    more: bool = False


class Ring:
    """Read the map behind `descriptor`, which has room for `places` events; `told` counts all that were begun."""

    def __init__(self, descriptor: int, places: int, told: Callable[[], int]) -> None:
        self._map = mmap.mmap(descriptor, places * EVENT.itemsize, mmap.MAP_SHARED, mmap.PROT_READ)
        self._rows = np.frombuffer(self._map, EVENT, places)
        self._places = places
        self._told = told
        self._position = told()
        self.lost = 0

    def read(self) -> Read:
        """Take out the events that are whole, but no more than 32,768 of them; `lost` counts those overtaken."""
        available = self._told() - self._position
        begin = self._position % self._places
        count = min(available, self._places - begin, _MOST_EVENTS)
        expected = np.arange(self._position + 1, self._position + count + 1, dtype=np.int64) & _SEQUENCE_MASK
        unlike = np.flatnonzero(self._rows["sequence"][begin : begin + count] != expected)
        count = int(unlike[0]) if len(unlike) else count
        rows = self._rows[begin : begin + count].copy()
        begun = self._told() - self._position
        if begun > self._places:  # what was copied may have been overtaken meanwhile
            self.lost += begun
            self._position += begun
            return _NOTHING
        self._position += count
        return Read(rows, bool(count) and count < available)

    def close(self) -> None:
        """Unmap the ring."""
        del self._rows
        self._map.close()


_NOTHING = Read(np.empty(0, EVENT))
