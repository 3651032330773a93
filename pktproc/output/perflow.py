"""Keep what is the same for every packet of a flow, across blocks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from cachetools import LRUCache

from pktproc.attribution.answers import AttributedBatch
from pktproc.model import Attribution, Flow

Made = TypeVar("Made")
Maker = Callable[[Flow, Attribution | None, Attribution | None], Made]


class PerFlow(Generic[Made]):
    """Make something of a flow and the owners of its ends, and again only when an owner changes.

    At most `size` flows are kept, the least recently used go first; a flow that comes back is made anew.
    """

    def __init__(self, make: Maker[Made], size: int) -> None:
        self._make = make
        self._kept: LRUCache[Flow, tuple[Attribution | None, Attribution | None, Made]] = LRUCache(maxsize=size)

    def of(self, attributed: AttributedBatch, index: int) -> Made:
        """Return what was made of one of the flows of a block."""
        flow, source, destination = attributed.flows[index], attributed.source[index], attributed.destination[index]
        kept = self._kept.get(flow)
        if kept is not None and _same(kept[0], source) and _same(kept[1], destination):
            return kept[2]
        made = self._make(flow, source, destination)
        self._kept[flow] = (source, destination, made)
        return made


def _same(kept: Attribution | None, now: Attribution | None) -> bool:
    return kept is now or kept == now
