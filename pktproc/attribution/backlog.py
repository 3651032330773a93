"""Blocks that wait, in order, for a better answer: for a short grace time and no longer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pktproc.attribution.answers import AttributedBatch
from pktproc.attribution.attributor import BatchAttributor

NS_PER_MS = 1_000_000
GRACE_NS = 50 * NS_PER_MS
RETRY_NS = 5 * NS_PER_MS
# Beyond this many packets nothing waits: the answer of now beats packets lost for want of room.
MAX_WAITING_PACKETS = 1 << 14


@dataclass(slots=True)
class _Waiting:
    attributed: AttributedBatch
    until_ns: int
    retry_ns: int
    settled: bool


class Backlog:
    """Keep blocks back until every end has its final answer or the grace time is over, and let them go in order.

    `clock` returns monotonic nanoseconds. `hurried` counts packets that had to go early for want of room.
    """

    def __init__(self, attributor: BatchAttributor, clock: Callable[[], int], grace_ns: int = GRACE_NS) -> None:
        self._attributor = attributor
        self._clock = clock
        self._grace_ns = grace_ns
        self._blocks: deque[_Waiting] = deque()
        self._packets = 0
        self.hurried = 0

    def push(self, attributed: AttributedBatch, *, settled: bool) -> None:
        """Add a block; `settled` says that all its answers are final."""
        now = self._clock()
        self._blocks.append(_Waiting(attributed, now + self._grace_ns, now + RETRY_NS, settled))
        self._packets += len(attributed.batch)

    def __len__(self) -> int:
        return len(self._blocks)

    def ready(self) -> Iterator[AttributedBatch]:
        """Yield the blocks that need not wait any more, the oldest first."""
        now = self._clock()
        for waiting in self._blocks:
            if not waiting.settled and now >= waiting.retry_ns:
                waiting.settled = self._attributor.again(waiting.attributed)
                waiting.retry_ns = now + RETRY_NS
        while self._blocks:
            head = self._blocks[0]
            overfull = self._packets > MAX_WAITING_PACKETS
            if not (head.settled or overfull or now >= head.until_ns):
                return
            if not head.settled and now < head.until_ns:
                self.hurried += len(head.attributed.batch)
            self._blocks.popleft()
            self._packets -= len(head.attributed.batch)
            yield head.attributed

    def wait_ms(self, otherwise_ms: float) -> float:
        """Return how long the caller may sleep before `ready` has something to do."""
        if not self._blocks:
            return otherwise_ms
        unsettled = (waiting for waiting in self._blocks if not waiting.settled)
        due = min((min(waiting.retry_ns, waiting.until_ns) for waiting in unsettled), default=self._clock())
        return max(0.0, min(otherwise_ms, (due - self._clock()) / NS_PER_MS))
