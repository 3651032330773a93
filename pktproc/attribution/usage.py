"""Who used which socket when, as a witness in the kernel told: answers that need no look at anything.

All times are of the monotonic clock. A socket is known by its cookie, a flow by its ends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from pktproc.attribution.engine import Ends, Query, Use, Way, Witness, asked_ends
from pktproc.attribution.turns import GRACE_NS, NO_TURNS, NOBODY, Period, Turns, UsedSocket, User, users_in
from pktproc.model import DATAGRAM, Attribution, Match, Process, ProcessId, Protocol, Reason

# Bounds: a socket and its flow cost about 1 kB, so these stay below 100 MB.
MAX_SOCKETS = 1 << 15
MAX_FLOWS = 1 << 15
MAX_EXITS = 1 << 15
MAX_ANSWERS = 1 << 12
# Of the sockets that had the same ends one after another, the latest.
MAX_SUCCESSORS = 4
REQUEST = 0  # in the place of a cookie
# What comes so soon after a datagram socket was closed, and reaches no other, was meant for it.
LATE_NS = 1_000_000_000
# By then the kernel has told which socket a packet reached.
DELIVERED_NS = 5_000_000
_WITH_PORTS = DATAGRAM | {Protocol.TCP, Protocol.SCTP, Protocol.DCCP}


class Account(NamedTuple):
    """What the witness knows of an end: the answer if it has one, and whether it may soon know more.

    `lasting` says that the answer holds for later packets, too, until something happens; one with several candidates is
    of these packets alone.
    """

    attribution: Attribution | None
    settled: bool
    lasting: bool = True


_SILENT = Account(None, settled=True)
_SOON = Account(None, settled=False)


class _KnownFlow:
    """The sockets of a flow: since when, and whether they came in; those that it reaches; who sent it when.

    A connection that comes in stands among them as `REQUEST` until somebody uses its socket.
    """

    __slots__ = ("arrives", "sent", "since_ns", "sockets")

    def __init__(self, since_ns: int) -> None:
        self.since_ns = since_ns
        self.sockets: dict[int, tuple[int, bool]] = {}
        self.arrives: dict[int, int] = {}
        self.sent = NO_TURNS

    def note(self, use: Use) -> None:
        """Take note of what was done in it."""
        if use.way is Way.ARRIVES:
            self.arrives.pop(use.cookie, None)
            self.arrives[use.cookie] = use.time_ns
            _keep_latest(self.arrives)
            return
        if use.way is Way.COMES_IN:
            self.sockets[REQUEST] = use.time_ns, True
        elif use.cookie not in self.sockets:
            self.sockets[use.cookie] = self.sockets.pop(REQUEST, (use.time_ns, use.way is not Way.SENT))
            _keep_latest(self.sockets)
        if use.way is Way.SENT and use.ends.protocol != Protocol.TCP:
            if self.sent is NO_TURNS:
                self.sent = Turns()
            self.sent.add(use.time_ns, use.process)

    def changes_socket(self, period: Period) -> bool:
        """Say whether another socket than before takes the flow over within a period."""
        begun = [since_ns for since_ns, _ in self.sockets.values()]
        return len(begun) > 1 and any(period.first_ns < since_ns <= period.last_ns for since_ns in begun)


def _keep_latest(cookies: dict[int, Any]) -> None:
    while len(cookies) > MAX_SUCCESSORS:
        del cookies[next(iter(cookies))]


class Usage:
    """Keep what a witness tells, and answer for ends of flows from it; `clock` returns monotonic nanoseconds.

    `lost` counts what the witness could not tell.
    """

    def __init__(self, witness: Witness, clock: Callable[[], int]) -> None:
        self._witness = witness
        self._clock = clock
        self._sockets: OrderedDict[int, UsedSocket] = OrderedDict()
        self._flows: OrderedDict[Ends, _KnownFlow] = OrderedDict()
        self._exits: OrderedDict[ProcessId, int] = OrderedDict()
        self._answers: dict[int, Attribution] = {}
        self.lost = 0

    def drain(self) -> Iterator[tuple[int, int]]:
        """Take in what happened since the last call; yield protocol and a port of each flow that it concerns.

        If something was lost, nothing of what was told until now counts any more.
        """
        told = self._witness.told()
        if told.lost:
            self.lost += told.lost
            self._sockets.clear()
            self._flows.clear()
        for process, exit_ns in told.exits:
            self._exits.setdefault(process, exit_ns)
        for use in () if told.lost else told.uses:
            ends = use.ends
            if use.way is Way.CLOSED and not use.process:
                ends = self._take_end(use)
            else:
                self._take(use)
            # Either port will do for a connection; the higher one is hardly a server's, so that it concerns few flows.
            yield ends.protocol, max(ends.local_port, ends.remote_port)
        for kept, most in ((self._sockets, MAX_SOCKETS), (self._flows, MAX_FLOWS), (self._exits, MAX_EXITS)):
            while len(kept) > most:
                kept.popitem(last=False)

    def _take_end(self, use: Use) -> Ends:
        """Return the ends that a closed socket was last used with."""
        known = self._sockets.get(use.cookie)
        if known is None:
            return use.ends
        known.changed_ns = known.closed_ns = use.time_ns
        return known.ends

    def _take(self, use: Use) -> None:
        if use.way is not Way.COMES_IN:
            self._take_use(use)
        if use.way is Way.BOUND:
            return
        if use.ends.remote_port or use.ends.protocol not in _WITH_PORTS:
            flow = self._flows.get(use.ends)
            if flow is None:
                flow = self._flows[use.ends] = _KnownFlow(use.time_ns)
            flow.note(use)

    def _take_use(self, use: Use) -> None:
        known = self._sockets.get(use.cookie)
        if known is None:
            known = self._sockets[use.cookie] = UsedSocket(use.time_ns, use.ends)
        else:
            self._sockets.move_to_end(use.cookie)
        known.changed_ns, known.ends = use.time_ns, use.ends
        if use.way is Way.SENT:
            known.sends(use.time_ns, use.process)
        elif use.way is Way.BOUND:
            known.maker = use.process
        elif use.way is not Way.ARRIVES:
            known.receives(use.time_ns, use.process, use.previous_ns)
        if use.way is Way.CLOSED:
            known.closed_ns = use.time_ns

    def testify(self, query: Query, period: Period) -> Account:
        """Return what is known of an end of a flow for the time between its first and last packet."""
        ends = asked_ends(query)
        flow = self._flows.get(ends)
        if flow is None:
            return _SILENT
        self._flows.move_to_end(ends)
        if query.protocol == Protocol.TCP:
            account = self._of_connection(query, flow, period)
        elif query.outgoing:
            users = flow.sent.at(period.first_ns) + flow.sent.during(period)
            account = self._of_one(users) if users and flow.changes_socket(period) else self._named(users)
        else:
            account = self._of_datagrams(query, flow, period)
        lasting = account.attribution is None or len(account.attribution.holders) <= 1
        for cookie in (*flow.sockets, *flow.arrives):
            known = self._sockets.get(cookie)
            if known:
                self._sockets.move_to_end(cookie)
                lasting &= known.changed_ns <= period.last_ns
        return account if lasting else Account(account.attribution, account.settled, lasting=False)

    def _of_connection(self, query: Query, flow: _KnownFlow, period: Period) -> Account:
        cookies = _at_that_time(self._possible(flow.sockets, period), period)
        found: list[User] = []
        for cookie in cookies:
            known = self._sockets.get(cookie)
            users = users_in(known, period, outgoing=query.outgoing) if known else []
            if not users:  # of what comes in, the reader may still be on its way
                latest_ns = flow.sockets[cookie][0] if query.outgoing else period.last_ns
                return _SOON if self._clock() - latest_ns < GRACE_NS else _SILENT
            found += users
        if len(cookies) > 1:
            return self._of_one(found)
        return self._named(found, period, cookies)

    def _possible(self, sockets: dict[int, tuple[int, bool]], period: Period) -> dict[int, tuple[int, bool]]:
        """Return those of several sockets with the same ends that are remembered and were not closed long before."""
        if len(sockets) == 1:
            return sockets
        long_before_ns = period.first_ns - LATE_NS
        return {
            cookie: since
            for cookie, since in sockets.items()
            if cookie == REQUEST or (cookie in self._sockets and not self._was_closed(cookie, long_before_ns))
        } or sockets

    def _of_datagrams(self, query: Query, flow: _KnownFlow, period: Period) -> Account:
        """Answer for who receives: the kernel told which sockets the flow reaches."""
        cookies = self._reached(flow, period)
        if all(self._was_closed(cookie, period.first_ns) for cookie in cookies):
            return self._of_late(flow, period)
        found: list[User] = []
        read = True
        for cookie in cookies:
            known = self._sockets.get(cookie)
            users = users_in(known, period, outgoing=False) if known else []
            if not users:
                return _SOON if self._clock() - period.last_ns < GRACE_NS else _SILENT
            read &= known is not None and bool(known.received or known.sent)
            found += users
        if len(cookies) > 1 and not query.fan_out:
            return self._of_one(found)
        settled = read or period.first_ns + GRACE_NS < self._clock()
        return self._named(found, period, cookies)._replace(settled=settled)

    def _reached(self, flow: _KnownFlow, period: Period) -> list[int]:
        """Return the sockets that a flow reaches, without those that were closed before.

        Of raw sockets, which all hear the same, it is meant for the one that sent the other way.
        """
        reached = [cookie for cookie, since_ns in flow.arrives.items() if since_ns < period.last_ns + GRACE_NS]
        alive = [cookie for cookie in reached if not self._was_closed(cookie, period.first_ns)]
        asking = [cookie for cookie in alive if cookie in flow.sockets]
        return asking or alive or reached[-1:]

    def _of_late(self, flow: _KnownFlow, period: Period) -> Account:
        """Answer for what reached no socket, or none yet: it may be late for one that was closed."""
        age_ns = self._clock() - period.last_ns
        for cookie in [*reversed(flow.sockets), *reversed(flow.arrives)]:
            known = self._sockets.get(cookie)
            if known is None or period.first_ns - LATE_NS > (known.closed_ns or period.first_ns):
                continue
            users = users_in(known, period, outgoing=False)[-1:] if known.closed_ns else []
            if users:
                return self._named(users)._replace(settled=age_ns > DELIVERED_NS)
            return _SOON if age_ns < DELIVERED_NS else _SILENT
        return _SILENT

    def _was_closed(self, cookie: int, time_ns: int) -> bool:
        known = self._sockets.get(cookie)
        return known is not None and known.closed_ns is not None and known.closed_ns < time_ns

    def _of_one(self, users: Sequence[User]) -> Account:
        """Answer for packets of which it is not known through which socket they went."""
        if len({_identity(user) for user in users}) == 1:
            return self._named(users)
        holders = _distinct(users)
        reason = Reason.AMBIGUOUS
        return Account(Attribution(reason=reason, evidence=self._witness.evidence, holders=holders), settled=True)

    def _named(self, users: Sequence[User], period: Period | None = None, cookies: Sequence[int] = ()) -> Account:
        """Return the answer that names users; who ended long before has left an open socket to somebody else."""
        if not users:
            return _SILENT
        evidence = self._witness.evidence
        holders = _distinct(users)
        if not holders:
            return Account(Attribution(reason=Reason.KERNEL, evidence=evidence), settled=True)
        if period and any(self._sockets[cookie].closed_ns is None for cookie in cookies):
            before_ns = period.first_ns - GRACE_NS
            holders = tuple(h for h in holders if self._exits.get(h.id, before_ns) >= before_ns)
            if not holders:
                return _SILENT
        return Account(self._answer(holders), settled=True)

    def _answer(self, holders: tuple[Process, ...]) -> Attribution:
        """Return the answer with these holders, the same object for the same process."""
        first = holders[0]
        if len(holders) > 1:
            return Attribution(first, Match.SHARED, self._witness.evidence, holders=holders)
        answer = self._answers.get(id(first))
        if answer is None or answer.process is not first:
            if len(self._answers) >= MAX_ANSWERS:
                self._answers.clear()
            answer = self._answers[id(first)] = Attribution(first, Match.EXACT, self._witness.evidence, holders=holders)
        return answer


def _at_that_time(sockets: dict[int, tuple[int, bool]], period: Period) -> list[int]:
    """Return which of the sockets that had the same ends one after another were in use in a period.

    One that came in is first heard of when it is established, which is after its first packets.
    """
    chosen: list[int] = []
    for cookie, (since_ns, came_in) in sockets.items():
        if since_ns - (GRACE_NS if came_in else 0) <= period.first_ns:
            certain = since_ns <= period.first_ns
            chosen = [cookie] if certain else [*chosen, cookie]
        elif since_ns <= period.last_ns or not chosen:
            chosen.append(cookie)
    return chosen


def _identity(user: User) -> ProcessId | None:
    return user.id if user is not None and user is not NOBODY else None


def _distinct(users: Sequence[User]) -> tuple[Process, ...]:
    if len(users) == 1:
        return () if users[0] is None else (users[0],)
    return tuple({user.id: user for user in users if user is not None}.values())
