"""What views cannot tell any more of what was folded, counted so that they can say so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pktproc.bandwidth.dimensions import REMOTE_DIMENSIONS, SEVERAL_TEXT
from pktproc.bandwidth.folding import SEVERAL
from pktproc.bandwidth.owners import OTHERS_TEXT, OWNER_DIMENSIONS
from pktproc.bandwidth.slots import Slots
from pktproc.packets.batch import Column


class LostDetail(NamedTuple):
    """How many connections lost their local ports and how many their remote ends; how many processes are `OTHERS`."""

    local_ports: int = 0
    remotes: int = 0
    processes: int = 0

    def and_slots(self, slots: Slots, chosen: Column, *, remotes: bool) -> LostDetail:
        """Return this with what is lost where slots are folded so; see `folding.fold`, which does it."""
        whole = chosen[~slots.folded[chosen]]
        lost = self._replace(local_ports=self.local_ports + int(slots.connections[whole].sum()))
        if remotes:
            return lost
        known = (slots.source_address[chosen] != SEVERAL) | (slots.destination_address[chosen] != SEVERAL)
        return lost._replace(remotes=self.remotes + int(slots.connections[chosen[known]].sum()))

    def and_processes(self, count: int) -> LostDetail:
        """Return this with so many more processes that are not kept apart any more."""
        return self._replace(processes=self.processes + count)

    def notes(self, by: Sequence[str]) -> Iterator[str]:
        """Yield what the reader of a view by some dimensions should know."""
        if self.local_ports and "connection" in by:
            yield f"{self.local_ports:,} connections that ended are shown by their remote ends alone: too many to keep"
        if self.remotes and not set(by).isdisjoint(REMOTE_DIMENSIONS):
            yield f"{self.remotes:,} connections that ended are shown as {SEVERAL_TEXT!r} remote ends: too many to keep"
        if self.processes and not set(by).isdisjoint(OWNER_DIMENSIONS):
            yield f"{self.processes:,} processes not seen for long are shown as {OTHERS_TEXT!r}: too many to keep"
