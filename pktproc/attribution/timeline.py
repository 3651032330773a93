"""Who one end of a flow belonged to, and when, by the saved evidence of one host.

Between two changes of what may be known the answer is one and the same, so it is worked out once for each such stretch.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from pktproc.attribution.covering import Covered, Covering
from pktproc.attribution.engine import Query
from pktproc.attribution.eras import WHOLE, End, Era, era_at
from pktproc.attribution.history import RecordedHolder, RecordedSocket, Span
from pktproc.attribution.matching import TCP_LISTEN, select
from pktproc.attribution.owners import name_owners
from pktproc.attribution.records import Records
from pktproc.attribution.steps import MAX_KNOWN, Step, Steps, meet
from pktproc.model import DATAGRAM, Attribution, Match, Process, Protocol, Reason

NS_PER_S = 1_000_000_000
# TIME_WAIT lasts 60 s (TCP_TIMEWAIT_LEN, include/net/tcp.h); late packets come within it.
AFTERLIFE_NS = 90 * NS_PER_S

CONNECTED = frozenset({Protocol.TCP, Protocol.DCCP, Protocol.SCTP})
_ICMP = frozenset({Protocol.ICMP, Protocol.ICMPV6})
_HEARD = frozenset({Protocol.TCP, *DATAGRAM})
_PORTED = CONNECTED | DATAGRAM

_NOT_COVERED = Attribution(reason=Reason.NOT_COVERED)
_NO_ERAS = Steps((), lambda _: WHOLE)
Users = Callable[[int, int], frozenset[tuple[int, int]]]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Hold what a host's record has on one end.

    `connected` are the sockets that are connected with just these ends, `free` those that may take packets from others,
    `covering` says when recording ran, `name` is the evidence that answers carry. A fact of which nothing tells when it
    began or ended is taken to have held for `tolerance_ns` more. `users` returns (pid, start_ticks) of those that held
    a connection on this end's port in a time; see `History.users`.
    """

    name: str
    connected: Records
    free: Records
    covering: Covering
    tolerance_ns: int
    users: Users


class _Moment(NamedTuple):
    """What bears on the answer for a time: the recording, the sockets that are near, the connection's era.

    `read_ns` is the time until which the SYNs have been read.
    """

    time_ns: int
    covered: Covered
    connected: list[RecordedSocket]
    free: list[RecordedSocket]
    era: Era
    read_ns: int


class Timeline:
    """Answer for one end of a flow at any time; `begins` are the beginnings of TCP connections between its ends."""

    def __init__(self, query: Query, evidence: Evidence, begins: Sequence[tuple[int, End]] = ()) -> None:
        self._query = query
        self._evidence = evidence
        kept = _without_stray(begins, [recorded.span for recorded in evidence.connected.all])
        self._eras = _eras(kept, evidence.covering.intervals_ns) if kept else _NO_ERAS
        self._known: dict[int | None, Attribution] = {}

    def at(self, time_ns: int, read_ns: int) -> Step[Attribution]:
        """Return the answer for a time and how long it holds; the SYNs of a capture have been read until `read_ns`."""
        covered = self._evidence.covering.at(time_ns)
        connected, free = self._evidence.connected.at(time_ns), self._evidence.free.at(time_ns)
        era = self._eras.at(time_ns)
        if covered.value is None:
            return meet(_NOT_COVERED, (covered,))
        moment = _Moment(time_ns, covered.value, connected.value, free.value, era.value, read_ns)
        from_ns, until_ns, _ = meet(None, (covered, connected, free, era))
        if self._query.protocol in CONNECTED and _is_open(moment):
            return Step(from_ns, until_ns, self._answer(moment))
        answer = self._known.get(from_ns)
        if answer is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            answer = self._known[from_ns] = self._answer(moment)
        return Step(from_ns, until_ns, answer)

    @property
    def connections(self) -> list[Span]:
        """Return the times of the sockets that are connected with just these ends."""
        return [recorded.span for recorded in self._evidence.connected.all]

    def _answer(self, moment: _Moment) -> Attribution:
        look = self._connection if self._query.protocol in CONNECTED else self._datagram
        found = look(moment)
        if found is not None:
            return found
        if not moment.covered.inside:
            return _NOT_COVERED
        sure = moment.covered.hears_ends and self._query.protocol in _HEARD
        return Attribution(reason=Reason.NO_SOCKET if sure else Reason.NOT_COVERED, evidence=self._evidence.name)

    def _connection(self, moment: _Moment) -> Attribution | None:
        era = moment.era
        # What an earlier recording saw may have ended while nobody looked.
        known = [r for r in _of_era(era, moment.connected) if r.span.last_ns >= moment.covered.begun_ns]
        fitting = self._nearest(known, moment.time_ns)
        if era.begin_ns is not None and len(fitting) > 1:
            fitting = _own(fitting, era.begin_ns, is_over=era.end_ns is not None)
        answer = self._name(fitting, Match.EXACT, moment.time_ns) if fitting else None
        if answer and _is_open(moment) and any(r.span.first_ns > moment.time_ns for r in fitting):
            return Attribution(reason=Reason.AMBIGUOUS, evidence=self._evidence.name, holders=answer.holders)
        if answer and (answer.process or answer.holders):
            return answer
        if era.initiator == (self._query.local_address, self._query.local_port):
            return answer
        return self._listener(moment, is_local=bool(fitting)) or answer

    def _nearest(self, records: list[RecordedSocket], time_ns: int) -> list[RecordedSocket]:
        """Return those that were there at a time, else those that may have been, else the last one that was.

        The last packets of a connection come after its socket ended, until something new begins.
        """
        if certain := [recorded for recorded in records if recorded.span.covers(time_ns)]:
            return certain
        tolerance_ns = self._evidence.tolerance_ns
        if possible := [recorded for recorded in records if recorded.span.may_cover(time_ns, tolerance_ns)]:
            return possible
        past = [r for r in records if 0 <= time_ns - r.span.end_ns(tolerance_ns) < AFTERLIFE_NS]
        return [max(past, key=lambda recorded: recorded.span.last_ns)] if past else []

    def _listener(self, moment: _Moment, *, is_local: bool) -> Attribution | None:
        """Name the listener of a connection that was over before a look could find it.

        Only a process that was seen to keep its connections is named: not a server that hands them to children. A
        connection that a look should have found is not this host's, if nothing but the address says it (`is_local`).
        """
        listeners = [recorded for recorded in moment.free if recorded.socket.state == TCP_LISTEN]
        fitting = self._selected(listeners, moment) if listeners else []
        if not fitting:
            return None
        answer = self._name(fitting, Match.LISTENER, moment.time_ns)
        if answer.match is Match.LISTENER and (is_local or not _was_looked_at(moment)) and self._keeps_all(answer):
            return answer
        return Attribution(reason=Reason.CLOSED, evidence=self._evidence.name, holders=answer.holders)

    def _keeps_all(self, answer: Attribution) -> bool:
        """Say whether a listener's process, and no other one, was seen to hold connections while it listened."""
        if answer.process is None:
            return False
        tenure = self._evidence.free.tenure(answer.process.id)
        return self._evidence.users(*tenure) == {answer.process.id}

    def _datagram(self, moment: _Moment) -> Attribution | None:
        fitting = self._selected([*moment.connected, *moment.free], moment)
        if not fitting:
            return None
        if fitting[0].socket.raw:
            return self._raw(fitting, moment.time_ns)
        match = select(self._query, [fitting[0].socket]).match or Match.BOUND
        return self._name(fitting, match, moment.time_ns)

    def _selected(self, records: list[RecordedSocket], moment: _Moment) -> list[RecordedSocket]:
        """Return those of the sockets at a time that fit best, and those that do if only what is certain was there.

        Where ends are not heard, a port may have been somebody else's between two looks; a SYN would tell, of TCP.
        """
        time_ns = moment.time_ns
        certain = [recorded for recorded in records if recorded.span.covers(time_ns)]
        is_unheard = moment.covered.interval_ns and not moment.covered.hears_ends
        if is_unheard and self._query.protocol in _PORTED:
            return self._best(certain)
        fitting = self._best([r for r in records if r.span.may_cover(time_ns, self._evidence.tolerance_ns)])
        if not all(recorded.span.covers(time_ns) for recorded in fitting):
            fitting += [recorded for recorded in self._best(certain) if recorded not in fitting]
        return fitting

    def _best(self, records: list[RecordedSocket]) -> list[RecordedSocket]:
        chosen = select(self._query, [recorded.socket for recorded in records]).sockets
        return [recorded for recorded in records if recorded.socket in chosen]

    def _raw(self, fitting: Sequence[RecordedSocket], time_ns: int) -> Attribution:
        """Name the user of a raw socket; of several, and for ICMP in any case, only one whose pid is the echo id."""
        owners = list(
            dict.fromkeys(
                p for recorded in fitting for p in _holders(recorded, time_ns, self._evidence.tolerance_ns)[1]
            )
        )
        if self._query.protocol in _ICMP:
            mine = [process for process in owners if process.pid & 0xFFFF == self._query.local_port]
        else:
            mine = owners if self._query.protocol not in DATAGRAM else []  # any program may listen in on datagrams
        if len(mine) == 1:
            return Attribution(mine[0], Match.BOUND, self._evidence.name, holders=tuple(mine))
        reason = Reason.AMBIGUOUS if owners else Reason.CLOSED
        return Attribution(reason=reason, evidence=self._evidence.name, holders=tuple(owners))

    def _name(self, fitting: Sequence[RecordedSocket], match: Match, time_ns: int) -> Attribution:
        found = [_holders(recorded, time_ns, self._evidence.tolerance_ns) for recorded in fitting]
        owners = [everyone for _, everyone in found]
        if not any(owners):
            candidates = tuple(
                dict.fromkeys(
                    process for recorded in fitting for process in _eldest_first(_closest(recorded.holders, time_ns))
                )
            )
            return Attribution(reason=Reason.CLOSED, evidence=self._evidence.name, holders=candidates)
        answer = name_owners(owners, match, self._evidence.name, fan_out=self._query.fan_out)
        if answer.match is Match.SHARED and not any(certain for certain, _ in found):
            return Attribution(reason=Reason.AMBIGUOUS, evidence=self._evidence.name, holders=answer.holders)
        return answer


def _eras(begins: list[tuple[int, End]], intervals_ns: Iterable[int]) -> Steps[Era]:
    """Return the eras over time, with cuts also where a look has surely come since a connection began."""
    later = {0, *(interval_ns + 1 for interval_ns in intervals_ns)}
    return Steps((time_ns + more for time_ns, _ in begins for more in later), lambda time_ns: era_at(begins, time_ns))


def _without_stray(begins: Sequence[tuple[int, End]], spans: Sequence[Span]) -> list[tuple[int, End]]:
    """Return the beginnings of connections, without SYNs that came while one socket was there before and after."""
    if not begins or not spans:
        return list(begins)
    times = sorted((span.first_ns, span.last_ns) for span in spans)
    first_ns = [first for first, _ in times]
    last_ns = list(accumulate((last for _, last in times), max))
    left = []
    for begin in begins:
        position = bisect_left(first_ns, begin[0])
        if not position or last_ns[position - 1] <= begin[0]:
            left.append(begin)
    return left


def _of_era(era: Era, records: Sequence[RecordedSocket]) -> list[RecordedSocket]:
    """Return the sockets that can have been born in an era."""
    begin_ns, end_ns = era.begin_ns, era.end_ns
    return [
        recorded
        for recorded in records
        if (end_ns is None or recorded.span.first_ns < end_ns)
        and (begin_ns is None or recorded.span.first_ns >= begin_ns)
    ]


def _is_open(moment: _Moment) -> bool:
    """Say whether an unread SYN may tell that what a look found later is of another connection: no end was heard."""
    is_unheard = moment.covered.interval_ns and not moment.covered.hears_ends and moment.era.end_ns is None
    return bool(is_unheard and any(r.span.first_ns > max(moment.read_ns, moment.time_ns) for r in moment.connected))


def _own(records: list[RecordedSocket], begin_ns: int, *, is_over: bool) -> list[RecordedSocket]:
    """Return those of several sockets that can be the one of an era's connection.

    A look after it began must have found it. What is left is of a connection before, the end of which was heard a
    moment late, or of one behind, the SYN of which is yet to be read, unless the era is known to be over.
    """
    own = [r for r in records if r.span.after_ns is None or r.span.after_ns <= begin_ns] or records
    return [max(own, key=lambda recorded: recorded.span.first_ns)] if is_over else own


def _was_looked_at(moment: _Moment) -> bool:
    """Say whether a look lies between the beginning of a connection and a time, or may where no SYN tells of it."""
    begin_ns, covered = moment.era.begin_ns, moment.covered
    if begin_ns is None or (covered.interval_ns and moment.time_ns - begin_ns > covered.interval_ns):
        return True
    return any(begin_ns < look_ns <= moment.time_ns for look_ns in (covered.begun_ns, covered.ended_ns))


def _holders(
    recorded: RecordedSocket, time_ns: int, tolerance_ns: int
) -> tuple[tuple[Process, ...], tuple[Process, ...]]:
    """Return who certainly held a socket at a time, and who may have; if nobody, who did at the nearest time.

    Who let go of a socket that was still there afterwards had no part in its later packets.
    """
    certain = [holder for holder in recorded.holders if holder.span.covers(time_ns)]
    possible = [
        holder for holder in recorded.holders if holder not in certain and holder.span.may_cover(time_ns, tolerance_ns)
    ]
    if not certain and not possible:
        possible = [holder for holder in _closest(recorded.holders, time_ns) if _is_unseen(holder, recorded, time_ns)]
    return _eldest_first(certain), _eldest_first(certain + possible)


def _is_unseen(holder: RecordedHolder, recorded: RecordedSocket, time_ns: int) -> bool:
    """Say whether nobody saw a holder come or go, whichever lies toward a time, or it went with its socket."""
    if time_ns < holder.span.first_ns:
        return holder.span.after_ns is None
    return holder.span.before_ns is None or recorded.span.last_ns <= holder.span.before_ns


def _closest(holders: Sequence[RecordedHolder], time_ns: int) -> list[RecordedHolder]:
    """Return those that held a socket last before a time, else those that did first after it."""
    if not holders:
        return []
    first_ns = min(holder.span.first_ns for holder in holders)
    if time_ns < first_ns:
        return [holder for holder in holders if holder.span.first_ns == first_ns]
    last_ns = max((h.span.last_ns for h in holders if h.span.last_ns <= time_ns), default=None)
    return [holder for holder in holders if holder.span.last_ns == last_ns]


def _eldest_first(holders: Sequence[RecordedHolder]) -> tuple[Process, ...]:
    """Return the processes, each once as it was described first, the one that others inherited from before them."""
    unique = {holder.process.id: holder.process for holder in reversed(holders)}
    return tuple(sorted(unique.values(), key=lambda process: (process.start_ticks, process.pid)))
