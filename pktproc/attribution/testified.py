"""Whose one end of a flow was at any time, by what a witness in the kernel told while recording ran."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from pktproc.attribution.engine import Query, Told, Use, Way, asked_ends
from pktproc.attribution.history import RecordedUse, Testimony
from pktproc.attribution.steps import Step, Steps
from pktproc.attribution.timeline import AFTERLIFE_NS
from pktproc.attribution.turns import CLOCK_ERROR_NS, GRACE_NS, MAX_TURNS, Period
from pktproc.attribution.usage import LATE_NS, Usage
from pktproc.model import Attribution, ProcessId

_LONG_AGO, _FAR_OFF = -(1 << 63), 1 << 63
# What is told so much later tells who takes over what came in; of more than that an account would forget earlier turns.
_MOST_LATER = MAX_TURNS // 2
# The account of a socket changes so long before and after something happens to it; see `turns` and `usage`.
_CHANGES_NS = (-GRACE_NS, 1 - GRACE_NS, -CLOCK_ERROR_NS, 0, 1, GRACE_NS + 1, LATE_NS + 1)


class Testified:
    """Answer for one end at any time as `Usage` did when it was now; None where the witness has no answer."""

    def __init__(self, query: Query, testimony: Testimony) -> None:
        self._query = query
        self._name = testimony.name
        self._uses = testimony.uses(asked_ends(query))
        self._witnessed = testimony.witnessed() if self._uses else ()
        self._last_ns = [last_ns for _, last_ns in self._witnessed]
        self._steps: Steps[Attribution | None] = Steps(self._cuts(), self._answer)

    def __len__(self) -> int:
        return len(self._uses)

    def at(self, time_ns: int) -> Step[Attribution | None]:
        """Return the answer for a time and how long it holds."""
        return self._steps.at(time_ns)

    def _cuts(self) -> Iterator[int]:
        for first_ns, last_ns in self._witnessed:
            yield from (first_ns, last_ns + 1)
        for _, use, closed_ns, ended_ns in self._uses:
            for time_ns in (use.time_ns, use.previous_ns, closed_ns, ended_ns):
                if time_ns:
                    yield from (time_ns + later_ns for later_ns in _CHANGES_NS)
            if closed_ns is not None:
                yield closed_ns + AFTERLIFE_NS

    def _answer(self, time_ns: int) -> Attribution | None:
        """Put together what was told of sockets until a time, since something was last missed, and ask it."""
        position = bisect_left(self._last_ns, time_ns)
        if position == len(self._witnessed) or time_ns < self._witnessed[position][0]:
            return None
        since_ns = self._last_ns[position - 1] if position else _LONG_AGO
        told = [one for one in self._uses if since_ns < one.use.time_ns <= self._last_ns[position]]
        begun = {one.cookie for one in told if one.use.time_ns <= time_ns + GRACE_NS}
        near = [
            one
            for one in told
            if one.cookie in begun and (one.closed_ns is None or time_ns < one.closed_ns + AFTERLIFE_NS)
        ]
        if not near:
            return None
        until = bisect_right(near, time_ns + GRACE_NS, key=lambda one: one.use.time_ns) + _MOST_LATER
        usage = Usage(_Hearsay(self._name, near[:until]), lambda: _FAR_OFF)
        usage.drain()
        account = usage.testify(self._query, Period(time_ns, time_ns))
        return account.attribution if account.settled else None


class _Hearsay:
    """Tell what a witness once told, all at once."""

    def __init__(self, evidence: str, told: Sequence[RecordedUse]) -> None:
        self.evidence = self.fallback = evidence
        closed = {one.cookie: (one.closed_ns, one.use.ends) for one in told}
        closings = [
            Use(closed_ns, Way.CLOSED, cookie, ends, None)
            for cookie, (closed_ns, ends) in closed.items()
            if closed_ns is not None
        ]
        exits: dict[ProcessId, int] = {
            one.use.process.id: one.ended_ns for one in told if one.use.process and one.ended_ns is not None
        }
        uses = sorted([*(one.use for one in told), *closings], key=lambda use: use.time_ns)
        self._told = Told(uses, list(exits.items()))

    def told(self) -> Told:
        """Return all of it."""
        return self._told
