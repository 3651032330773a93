"""Which packets a user wants to see, by the processes at their ends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pktproc.attribution.answers import AttributedBatch
from pktproc.attribution.process_selection import ProcessJudge, ProcessSelection
from pktproc.model import Attribution, Process
from pktproc.packets.batch import Column


class ProcessSieve:
    """Apply a selection to blocks; `look_up` returns the process that has a pid now, for ancestors to be judged by."""

    def __init__(self, selection: ProcessSelection, look_up: Callable[[int], Process | None]) -> None:
        self._selection = selection
        self._judge = ProcessJudge(selection, look_up)

    @property
    def takes_everything(self) -> bool:
        """Say whether all packets pass, those of unknown owners included."""
        return self._selection.everything

    def rows(self, attributed: AttributedBatch) -> Column:
        """Return the rows of packets with an end that a wanted process holds, alone or with others."""
        if self.takes_everything:
            return np.arange(len(attributed.batch))
        ends = zip(attributed.source, attributed.destination, strict=True)
        wanted = np.array([self._wants(source) or self._wants(destination) for source, destination in ends], bool)
        return np.flatnonzero(wanted[attributed.flow_of])

    def _wants(self, attribution: Attribution | None) -> bool:
        if attribution is None or attribution.process is None:
            return False
        return any(self._judge.wants(process) for process in attribution.holders or (attribution.process,))
