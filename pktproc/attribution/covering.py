"""When a host was recorded, and how far facts may reach beyond what was seen of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pktproc.attribution.history import Coverage, RecordedHolder, RecordedSocket, Span
from pktproc.attribution.steps import Step, Steps


class Covered(NamedTuple):
    """What is known of the recording at a time.

    Recording has run without a break since `begun_ns` and will until `ended_ns`. `inside` is False at its very limits
    and beyond them, where only what is certain from within tells something. See `Coverage` for the others.
    """

    begun_ns: int
    ended_ns: int
    hears_ends: bool
    interval_ns: int
    inside: bool


class Covering:
    """Say whether recording ran at a time; `tolerance_ns` around it still count, but not before where it was cut.

    `intervals_ns` are the times between looks that there were.
    """

    def __init__(self, coverage: Sequence[Coverage], tolerance_ns: int) -> None:
        self._coverage = coverage
        self.intervals_ns = frozenset(one.interval_ns for one in coverage)
        self._tolerance_ns = tolerance_ns
        self._first_ns = [one.first_ns for one in coverage]
        self._begun_ns: list[int] = []
        for before, one in zip((None, *coverage), coverage, strict=False):
            whole = before is not None and before.last_ns + 1 == one.first_ns
            self._begun_ns.append(self._begun_ns[-1] if whole else one.first_ns)
        self._runs = sorted(set(self._begun_ns))
        following = [bisect_left(self._begun_ns, begun_ns + 1) for begun_ns in self._runs]
        self._ended_ns = [coverage[position - 1].last_ns for position in following]
        self._steps = Steps(self._cuts(), self._at)

    def at(self, time_ns: int) -> Step[Covered | None]:
        """Return what is known of the recording at a time, None where it did not run, and how long that holds."""
        return self._steps.at(time_ns)

    def clipped(self, span: Span) -> Span:
        """Return a span that does not reach into other times of recording, in which looks would have found the fact."""
        after_ns, before_ns = span.after_ns, span.before_ns
        if after_ns is None and (position := bisect_left(self._runs, span.first_ns + 1) - 1) > 0:
            after_ns = min(self._ended_ns[position - 1], span.first_ns)
        if before_ns is None and (position := bisect_right(self._runs, span.last_ns)) < len(self._runs):
            before_ns = self._runs[position]
        return span._replace(after_ns=after_ns, before_ns=before_ns)

    def clipped_sockets(self, records: Sequence[RecordedSocket]) -> Sequence[RecordedSocket]:
        """Return sockets of which neither their own times nor those of holders reach into other times of recording."""
        if len(self._runs) < 2:
            return records
        return [
            RecordedSocket(
                recorded.socket,
                self.clipped(recorded.span),
                tuple(RecordedHolder(process, self.clipped(span)) for process, span in recorded.holders),
            )
            for recorded in records
        ]

    def _cuts(self) -> Iterator[int]:
        yield from self._first_ns
        yield from (one.last_ns + 1 for one in self._coverage)
        for begun_ns, ended_ns in zip(self._runs, self._ended_ns, strict=True):
            yield from (begun_ns - self._tolerance_ns, begun_ns + 1, ended_ns, ended_ns + self._tolerance_ns + 1)

    def _at(self, time_ns: int) -> Covered | None:
        position = bisect_right(self._first_ns, time_ns) - 1
        if position >= 0 and time_ns <= self._coverage[position].last_ns + self._tolerance_ns:
            return self._covered(position, time_ns)
        following = position + 1
        if following < len(self._coverage):
            one = self._coverage[following]
            if time_ns >= one.first_ns - self._tolerance_ns and not one.is_cut:
                return self._covered(following, time_ns)
        return None

    def _covered(self, position: int, time_ns: int) -> Covered:
        one, begun_ns = self._coverage[position], self._begun_ns[position]
        ended_ns = self._ended_ns[bisect_left(self._runs, begun_ns)]
        return Covered(begun_ns, ended_ns, one.hears_ends, one.interval_ns, begun_ns < time_ns < ended_ns)
