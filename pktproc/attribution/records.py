"""Recorded sockets by the times at which they may have been there."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from pktproc.attribution.history import RecordedSocket
from pktproc.attribution.matching import TCP_LISTEN
from pktproc.attribution.steps import Step, Steps

_CHUNK = 64


class Records:
    """Find those of many sockets that may have been there at a time, or until `afterlife_ns` before it."""

    def __init__(self, records: Sequence[RecordedSocket], tolerance_ns: int, afterlife_ns: int = 0) -> None:
        self._tolerance_ns, self._afterlife_ns = tolerance_ns, afterlife_ns
        if len(records) > _CHUNK:
            records = sorted(records, key=lambda recorded: recorded.span.begin_ns(tolerance_ns))
        self.all = records
        self._chunks = [records[first : first + _CHUNK] for first in range(0, len(records), _CHUNK)]
        self._begin_ns = [chunk[0].span.begin_ns(tolerance_ns) for chunk in self._chunks[1:]]
        self._end_ns = [max(map(self._gone_ns, chunk)) for chunk in self._chunks]
        self._steps = Steps(self._cuts(), self._near)
        self._tenures: dict[tuple[int, int], tuple[int, int]] | None = None

    def at(self, time_ns: int) -> Step[list[RecordedSocket]]:
        """Return the sockets, and until when the same ones are possible or certain, with the same holders."""
        return self._steps.at(time_ns)

    def tenure(self, process: tuple[int, int]) -> tuple[int, int]:
        """Return from when to when a process, by pid and start_ticks, is known to have had listeners among these."""
        if self._tenures is None:
            self._tenures = {}
            for recorded in self.all:
                if recorded.socket.state == TCP_LISTEN:
                    for holder in recorded.holders:
                        times = (recorded.span.first_ns, recorded.span.last_ns)
                        first_ns, last_ns = self._tenures.get(holder.process.id, times)
                        self._tenures[holder.process.id] = min(first_ns, times[0]), max(last_ns, times[1])
        return self._tenures[process]

    def _gone_ns(self, recorded: RecordedSocket) -> int:
        return recorded.span.end_ns(self._tolerance_ns) + self._afterlife_ns

    def _near(self, time_ns: int) -> list[RecordedSocket]:
        begun = self._chunks[: bisect_right(self._begin_ns, time_ns) + 1]
        return [
            recorded
            for chunk, end_ns in zip(begun, self._end_ns, strict=False)
            if end_ns > time_ns
            for recorded in chunk
            if recorded.span.begin_ns(self._tolerance_ns) <= time_ns < self._gone_ns(recorded)
        ]

    def _cuts(self) -> Iterator[int]:
        for recorded in self.all:
            yield from recorded.span.changes(self._tolerance_ns)
            if self._afterlife_ns:
                yield self._gone_ns(recorded)
            for holder in recorded.holders:
                if holder.span != recorded.span:
                    yield from holder.span.changes(self._tolerance_ns)
