"""How far the clock of a capture is off that of the record, as far as connections that both saw tell."""

from __future__ import annotations

from itertools import pairwise

from pktproc.attribution.history import Span

NS_PER_S = 1_000_000_000
MAX_CONNECTIONS = 10_000
_FEWEST = 5
_AGREEING = 0.8
_SMALL = 0.5


class SkewGauge:
    """Compare when connections began in the capture with when the record first saw their sockets.

    A look that did not find a socket and the next one that did leave an interval for the difference of the clocks. The
    value that most of these intervals share is the likely one.
    """

    def __init__(self) -> None:
        self._intervals: list[tuple[int, int]] = []

    def note(self, begin_ns: int, span: Span) -> None:
        """Take note of a connection that began at `begin_ns` in the capture and whose socket has a recorded span."""
        if span.after_ns is not None and len(self._intervals) < MAX_CONNECTIONS:
            self._intervals.append((span.after_ns - begin_ns, span.first_ns - begin_ns))

    def suggestion_ns(self) -> int | None:
        """Return what to add to packets' times to fit the record better, None if they fit or too little tells."""
        agreeing, difference_ns = self._most_shared()
        fitting = sum(low <= 0 <= high for low, high in self._intervals)
        if agreeing < max(_FEWEST, _AGREEING * len(self._intervals)) or fitting > _SMALL * agreeing:
            return None
        return difference_ns

    def _most_shared(self) -> tuple[int, int]:
        """Return how many intervals share a value, at most, and the middle of the values that so many share."""
        edges = sorted([(low, 0) for low, _ in self._intervals] + [(high, 1) for _, high in self._intervals])
        best = count = 0
        middle = 0
        for (place, closes), (following, _) in pairwise(edges):
            count += -1 if closes else 1
            if count > best:
                best, middle = count, (place + following) // 2
        return best, middle
