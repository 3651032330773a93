"""How many packets there were and how many of their ends could be named."""

from __future__ import annotations

from collections import Counter

import numpy as np

from pktproc.attribution.answers import AttributedBatch
from pktproc.model import Attribution, Reason
from pktproc.packets.batch import Column


class Tally:
    """Count packets as they are shown.

    A packet is attributed when an end of it has a process. `hidden` counts packets that were not shown though their
    owner is unknown, so that they might have been wanted.
    """

    def __init__(self) -> None:
        self.shown = 0
        self.shown_bytes = 0
        self.attributed_bytes = 0
        self.hidden = 0
        self.attributed = 0
        self.reasons: Counter[str] = Counter()

    def add(self, attributed: AttributedBatch, rows: Column) -> None:
        """Count the packets of these rows."""
        self.shown += len(rows)
        flow_of, wire_bytes = attributed.flow_of[rows], attributed.batch.wire_bytes[rows]
        packets = np.bincount(flow_of, minlength=len(attributed.flows)).tolist()
        sizes = np.bincount(flow_of, wire_bytes, minlength=len(attributed.flows)).tolist()
        self.shown_bytes += int(wire_bytes.sum())
        for count, size, source, destination in zip(
            packets, sizes, attributed.source, attributed.destination, strict=True
        ):
            named = False
            for end in (source, destination):
                if end is None:
                    continue
                if end.process is not None:
                    named = True
                elif end.reason:
                    self.reasons[end.reason] += count
            if named:
                self.attributed += count
                self.attributed_bytes += int(size)

    def add_hidden(self, attributed: AttributedBatch, rows: Column) -> None:
        """Count those packets of a block that are not in `rows` and might have been wanted."""
        unknown = [
            _may_be_anybody(source) or _may_be_anybody(destination)
            for source, destination in zip(attributed.source, attributed.destination, strict=True)
        ]
        hidden = np.ones(len(attributed.batch), bool)
        hidden[rows] = False
        self.hidden += int((np.array(unknown, bool)[attributed.flow_of] & hidden).sum())


_UNKNOWN = frozenset({Reason.NO_SOCKET, Reason.CLOSED, Reason.PERMISSION, Reason.AMBIGUOUS, Reason.NOT_COVERED})


def _may_be_anybody(end: Attribution | None) -> bool:
    return end is not None and end.reason in _UNKNOWN
