"""Who one end of a flow belonged to, and when, by the saved evidence of one host.

Between two changes of what may be known the answer is one and the same, so it is worked out once for each such stretch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pktproc.attribution.engine import Query
from pktproc.attribution.eras import WHOLE, End, Era, era_at
from pktproc.attribution.history import Coverage, RecordedHolder, RecordedSocket, Span
from pktproc.attribution.matching import TCP_LISTEN, select
from pktproc.attribution.owners import name_owners
from pktproc.attribution.steps import Step, Steps
from pktproc.model import DATAGRAM, Attribution, Match, Process, Protocol, Reason

NS_PER_S = 1_000_000_000
# TIME_WAIT lasts 60 s (TCP_TIMEWAIT_LEN, include/net/tcp.h); late packets come within it.
AFTERLIFE_NS = 90 * NS_PER_S
# A look takes a while: what it found may have begun so long after the time that it has.
LOOK_NS = 20_000_000

CONNECTED = frozenset({Protocol.TCP, Protocol.DCCP, Protocol.SCTP})
_ICMP = frozenset({Protocol.ICMP, Protocol.ICMPV6})
_HEARD = frozenset({Protocol.TCP, *DATAGRAM})

_NOT_COVERED = Attribution(reason=Reason.NOT_COVERED)
Users = Callable[[], frozenset[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Hold what a host's record has on one end.

    `sockets` are those that may fit at any time, `coverage` when recording ran, `name` the evidence that answers carry.
    A fact of which nothing tells when it began or ended is taken to have held for `tolerance_ns` more. `users` returns
    (pid, start_ticks) of those that ever held a connection on this end's port.
    """

    name: str
    sockets: Sequence[RecordedSocket]
    coverage: Sequence[Coverage]
    tolerance_ns: int
    users: Users


class Timeline:
    """Answer for one end of a flow at any time; `begins` are the beginnings of TCP connections between its ends."""

    def __init__(self, query: Query, evidence: Evidence, begins: Sequence[tuple[int, End]] = ()) -> None:
        self._query = query
        self._evidence = evidence
        self._begins = list(begins)
        self._exact = [r for r in evidence.sockets if select(query, [r.socket]).match is Match.EXACT]
        self._steps = Steps(self._changes(), self._answer)

    def at(self, time_ns: int) -> Step[Attribution]:
        """Return the answer for a time and how long it holds."""
        return self._steps.at(time_ns)

    @property
    def connections(self) -> list[Span]:
        """Return the times of the sockets that are connected with just these ends."""
        return [recorded.span for recorded in self._exact]

    def _changes(self) -> Iterator[int]:
        """Yield the times at which the answer may change."""
        tolerance_ns = self._evidence.tolerance_ns
        yield from (time_ns for time_ns, _ in self._begins)
        for covered in self._evidence.coverage:
            yield from (covered.first_ns - tolerance_ns, covered.last_ns + tolerance_ns + 1)
        for recorded in self._evidence.sockets:
            for span in (recorded.span, *(holder.span for holder in recorded.holders)):
                yield from span.changes(tolerance_ns)
            yield recorded.span.end_ns(tolerance_ns) + AFTERLIFE_NS

    def _answer(self, time_ns: int) -> Attribution:
        covered = self._covered(time_ns)
        if covered is None:
            return _NOT_COVERED
        look = self._connection if self._query.protocol in CONNECTED else self._datagram
        found = look(time_ns, covered)
        if found is not None:
            return found
        sure = covered.hears_ends and self._query.protocol in _HEARD
        return Attribution(reason=Reason.NO_SOCKET if sure else Reason.NOT_COVERED, evidence=self._evidence.name)

    def _covered(self, time_ns: int) -> Coverage | None:
        tolerance_ns = self._evidence.tolerance_ns
        for covered in self._evidence.coverage:
            if covered.first_ns - tolerance_ns <= time_ns <= covered.last_ns + tolerance_ns:
                return covered
        return None

    def _connection(self, time_ns: int, covered: Coverage) -> Attribution | None:
        era = era_at(self._begins, time_ns) if self._begins else WHOLE
        # What an earlier recording saw may have ended while nobody looked.
        known = [r for r in self._of_era(era) if r.span.last_ns >= covered.first_ns]
        fitting = self._nearest(known, time_ns)
        if era.begin_ns is not None and len(fitting) > 1:
            # An era has one connection. What was there last is its own, the others' ends were heard a moment late.
            fitting = [max(fitting, key=lambda recorded: recorded.span.first_ns)]
        answer = self._name(fitting, Match.EXACT, time_ns) if fitting else None
        if answer and (answer.process or answer.holders):
            return answer
        if era.initiator == (self._query.local_address, self._query.local_port):
            return answer
        return self._listener(time_ns) or answer

    def _of_era(self, era: Era) -> list[RecordedSocket]:
        """Return the sockets that can have been born in an era; the first may begin within the look that found it."""
        begin_ns = era.begin_ns
        if begin_ns is not None and begin_ns == self._begins[0][0]:
            begin_ns -= LOOK_NS
        return [
            recorded
            for recorded in self._exact
            if (era.end_ns is None or recorded.span.first_ns < era.end_ns)
            and (begin_ns is None or recorded.span.first_ns >= begin_ns)
            and (era.begin_ns is None or recorded.span.before_ns is None or recorded.span.before_ns > era.begin_ns)
        ]

    def _nearest(self, records: list[RecordedSocket], time_ns: int) -> list[RecordedSocket]:
        """Return those that were there at a time, else those that may have been, else the last one that was.

        The last packets of a connection come after its socket ended, until something new begins.
        """
        if certain := [recorded for recorded in records if recorded.span.covers(time_ns)]:
            return certain
        if possible := [
            recorded for recorded in records if recorded.span.may_cover(time_ns, self._evidence.tolerance_ns)
        ]:
            return possible
        tolerance_ns = self._evidence.tolerance_ns
        past = [r for r in records if 0 <= time_ns - r.span.end_ns(tolerance_ns) < AFTERLIFE_NS]
        return [max(past, key=lambda recorded: recorded.span.last_ns)] if past else []

    def _listener(self, time_ns: int) -> Attribution | None:
        """Name the listener of a connection that was over before a look could find it.

        Only a process that was seen to keep its connections is named: not a server that hands them to children.
        """
        listeners = [r for r in self._evidence.sockets if r.socket.state == TCP_LISTEN]
        fitting = self._selected(listeners, time_ns)
        if not fitting:
            return None
        answer = self._name(fitting, Match.LISTENER, time_ns)
        process = answer.process
        if process and answer.match is Match.LISTENER and self._evidence.users() == {process.id}:
            return answer
        return Attribution(reason=Reason.CLOSED, evidence=self._evidence.name, holders=answer.holders)

    def _datagram(self, time_ns: int, covered: Coverage) -> Attribution | None:
        possible = [
            recorded
            for recorded in self._evidence.sockets
            if recorded.span.may_cover(time_ns, self._evidence.tolerance_ns)
        ]
        if covered.interval_ns and not covered.hears_ends and self._query.protocol in DATAGRAM:
            # Between two looks the port may have been somebody else's unheard; a SYN would tell, of TCP.
            possible = [recorded for recorded in possible if recorded.span.covers(time_ns)]
        fitting = self._selected(possible, time_ns)
        if not fitting:
            return None
        if not all(recorded.span.covers(time_ns) for recorded in fitting):
            certain = self._selected([r for r in possible if r.span.covers(time_ns)], time_ns)
            fitting += [recorded for recorded in certain if recorded not in fitting]
        if fitting[0].socket.raw:
            return self._raw(fitting, time_ns)
        return self._name(fitting, select(self._query, [fitting[0].socket]).match or Match.BOUND, time_ns)

    def _selected(self, records: list[RecordedSocket], time_ns: int) -> list[RecordedSocket]:
        """Return those of the sockets at a time that fit best."""
        there = [recorded for recorded in records if recorded.span.may_cover(time_ns, self._evidence.tolerance_ns)]
        chosen = select(self._query, [recorded.socket for recorded in there]).sockets
        return [recorded for recorded in there if recorded.socket in chosen]

    def _raw(self, fitting: Sequence[RecordedSocket], time_ns: int) -> Attribution:
        """Name the user of a raw socket; of several, and for ICMP in any case, only one whose pid is the echo id."""
        owners = list(dict.fromkeys(p for recorded in fitting for p in self._holders(recorded, time_ns)[1]))
        if self._query.protocol in _ICMP:
            mine = [process for process in owners if process.pid & 0xFFFF == self._query.local_port]
        else:
            mine = owners if self._query.protocol not in DATAGRAM else []  # any program may listen in on datagrams
        if len(mine) == 1:
            return Attribution(mine[0], Match.BOUND, self._evidence.name, holders=tuple(mine))
        reason = Reason.AMBIGUOUS if owners else Reason.CLOSED
        return Attribution(reason=reason, evidence=self._evidence.name, holders=tuple(owners))

    def _name(self, fitting: Sequence[RecordedSocket], match: Match, time_ns: int) -> Attribution:
        found = [self._holders(recorded, time_ns) for recorded in fitting]
        owners = [everyone for _, everyone in found]
        if not any(owners):
            return Attribution(reason=Reason.CLOSED, evidence=self._evidence.name)
        answer = name_owners(owners, match, self._evidence.name, fan_out=self._query.fan_out)
        if answer.match is Match.SHARED and not any(certain for certain, _ in found):
            return Attribution(reason=Reason.AMBIGUOUS, evidence=self._evidence.name, holders=answer.holders)
        return answer

    def _holders(self, recorded: RecordedSocket, time_ns: int) -> tuple[tuple[Process, ...], tuple[Process, ...]]:
        """Return who certainly held a socket at a time, and who may have; else who did at the nearest time."""
        certain = [holder for holder in recorded.holders if holder.span.covers(time_ns)]
        possible = [
            holder for holder in recorded.holders if holder.span.may_cover(time_ns, self._evidence.tolerance_ns)
        ]
        if not possible:
            possible = _closest(recorded.holders, time_ns)
        return _eldest_first(certain), _eldest_first(certain + possible)


def _closest(holders: Sequence[RecordedHolder], time_ns: int) -> list[RecordedHolder]:
    if not holders:
        return []
    if time_ns < min(holder.span.first_ns for holder in holders):
        first_ns = min(holder.span.first_ns for holder in holders)
        return [holder for holder in holders if holder.span.first_ns == first_ns]
    last_ns = max((h.span.last_ns for h in holders if h.span.last_ns <= time_ns), default=None)
    return [holder for holder in holders if holder.span.last_ns == last_ns]


def _eldest_first(holders: Sequence[RecordedHolder]) -> tuple[Process, ...]:
    """Return the processes, each once as it was described first, the one that others inherited from before them."""
    unique = {holder.process.id: holder.process for holder in reversed(holders)}
    return tuple(sorted(unique.values(), key=lambda process: (process.start_ticks, process.pid)))
