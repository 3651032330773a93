"""The walk of packets from a file, wired: blocks in order, each with the owners of its ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from types import TracebackType
from typing import NamedTuple, Self

from pktproc.attribution.answers import AttributedBatch
from pktproc.attribution.carried import CarriedAttributions
from pktproc.attribution.replay import DEFAULT_TOLERANCE_NS, ReplayAttributor
from pktproc.capture.capture_file import FileBatch, open_capture
from pktproc.capture.offline_filter import OfflineFilter
from pktproc.packets.batch import Column, PacketBatch
from pktproc.packets.cooked import CookedInterfaces
from pktproc.packets.decode import decode
from pktproc.packets.flows import KnownFlows, distinct_flows
from pktproc.packets.fragments import FragmentTable
from pktproc.refusals import with_cures
from pktproc.snapshots.covered import CoveredTimes
from pktproc.snapshots.history import StoreHistory

_NS_PER_S = 1_000_000_000


class OfflineBlock(NamedTuple):
    """A block of a file, its answers, and the rows (int64) of the packets that passed the filter."""

    file_batch: FileBatch
    attributed: AttributedBatch
    rows: Column


class OfflineAttribution:
    """Read a capture file and name the ends of its packets; iterate `blocks` once.

    `source` is a path or `-`. With `stores`, paths of saved evidence, one for each host, packets are named by these;
    without, by the annotations that the file carries. `skew_ns` is added to the time of a packet to get that of the
    stores. With `interfaces_apart` packets with cooked headers are attributed as on the interfaces that these name.
    Raise `FormatError` for a file that is none, `StoreError` for such a store, `UsageError` for a bad filter.
    """

    def __init__(
        self,
        source: str,
        stores: Sequence[str] = (),
        *,
        expression: str = "",
        skew_ns: int = 0,
        tolerance_ns: int = DEFAULT_TOLERANCE_NS,
        interfaces_apart: bool = False,
    ) -> None:
        self._skew_ns = skew_ns
        self._cooked = CookedInterfaces() if interfaces_apart else None
        self._filter = OfflineFilter(expression)
        self._replay: ReplayAttributor | None = None
        with with_cures(), ExitStack() as opened:
            histories = [opened.enter_context(closing(StoreHistory(store))) for store in stores]
            self.capture = opened.enter_context(open_capture(source))
            if stores:
                self._replay = ReplayAttributor(histories, skew_ns=skew_ns, tolerance_ns=tolerance_ns)
            coverage = [covered for history in histories for covered in history.coverage()]
            self._covered = CoveredTimes(coverage, len(histories), tolerance_ns) if histories else None
            self._carried = CarriedAttributions()
            self._fragments = FragmentTable()
            self._flows = KnownFlows()
            self._opened = opened.pop_all()

    def blocks(self) -> Iterator[OfflineBlock]:
        """Yield the blocks of the file in order; raise `FormatError` behind the last whole packet of a broken one."""
        for file_batch in self.capture:
            batch = self._cooked.told_apart(file_batch.batch) if self._cooked else file_batch.batch
            attributed = self._replay.attribute(batch) if self._replay else self._read_back(file_batch, batch)
            rows = self._filter.rows(file_batch.batch)
            if self._covered:
                self._covered.note(file_batch.batch.time_ns[rows], self._skew_ns)
            yield OfflineBlock(file_batch, attributed, rows)

    def _read_back(self, file_batch: FileBatch, batch: PacketBatch) -> AttributedBatch:
        columns = decode(batch, self._fragments)
        return self._carried.attribute(
            batch,
            columns,
            distinct_flows(batch, columns, known=self._flows),
            options=file_batch.options,
            option_sets=file_batch.option_sets,
            blocks=file_batch.origin,
        )

    def warnings(self) -> list[str]:
        """Return what the user should know of the answers so far."""
        suggested_ns = self._replay.skew.suggestion_ns() if self._replay else None
        found = self._covered.shortfall(self._skew_ns, hint=suggested_ns is None) if self._covered else []
        if suggested_ns is not None:
            apart_s, skew_s = suggested_ns / _NS_PER_S, (self._skew_ns + suggested_ns) / _NS_PER_S
            cure = f"try --skew {skew_s:.1f}"
            found.append(f"the clocks of capture and store seem to be {abs(apart_s):.1f} s apart: {cure}")
        return found

    def close(self) -> None:
        """Close the file and the stores."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
