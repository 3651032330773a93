"""Who used which socket when, as a witness in the kernel told: answers that need no look at anything.

All times are of the monotonic clock. A socket is known by its cookie, a flow by its ends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pktproc.attribution.engine import Ends, Query, Use, Way, Witness, asked_ends
from pktproc.attribution.turns import GRACE_NS, NOBODY, Period, UsedSocket, User, users_in
from pktproc.attribution.used_flow import REQUEST, UsedFlow
from pktproc.model import DATAGRAM, Attribution, Match, Process, ProcessId, Protocol, Reason

# Bounds: a socket and its flow cost about 1 kB, so these stay below 100 MB.
MAX_SOCKETS = 1 << 15
MAX_FLOWS = 1 << 15
MAX_EXITS = 1 << 15
MAX_ANSWERS = 1 << 12
# What comes so soon after a datagram socket was closed, and reaches no other, was meant for it.
LATE_NS = 1_000_000_000
# By then the kernel has told which socket a packet reached.
DELIVERED_NS = 5_000_000
# Names of enumerations are looked up at some cost, and these are asked for at each use of a socket.
_BOUND, _SENT, _ARRIVES, _COMES_IN, _CLOSED = Way.BOUND, Way.SENT, Way.ARRIVES, Way.COMES_IN, Way.CLOSED
_TCP = int(Protocol.TCP)
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


class Usage:
    """Keep what a witness tells, and answer for ends of flows from it; `clock` returns monotonic nanoseconds.

    `lost` counts what the witness could not tell.
    """

    def __init__(self, witness: Witness, clock: Callable[[], int]) -> None:
        self._witness = witness
        self._clock = clock
        self._sockets: OrderedDict[int, UsedSocket] = OrderedDict()
        self._flows: OrderedDict[Ends, UsedFlow] = OrderedDict()
        self._exits: OrderedDict[ProcessId, int] = OrderedDict()
        self._accounts: dict[int, Account] = {}
        self.lost = 0

    def drain(self) -> dict[tuple[int, int], None]:
        """Take in what happened since the last call; return protocol and a port of each flow that it concerns.

        If something was lost, nothing of what was told until now counts any more.
        """
        told = self._witness.told()
        if told.lost:
            self.lost += told.lost
            self._sockets.clear()
            self._flows.clear()
        for process, exit_ns in told.exits:
            self._exits.setdefault(process, exit_ns)
        concerned: dict[tuple[int, int], None] = {}
        for use in () if told.lost else told.uses:
            ends = self._take_end(use) if use.way is _CLOSED and not use.process else self._take(use)
            local_port, remote_port = ends.local_port, ends.remote_port
            # Either port will do for a connection; the higher one is hardly a server's, so that it concerns few flows.
            concerned[ends.protocol, max(remote_port, local_port)] = None
        for kept, most in ((self._sockets, MAX_SOCKETS), (self._flows, MAX_FLOWS), (self._exits, MAX_EXITS)):
            while len(kept) > most:
                kept.popitem(last=False)
        return concerned

    def _take_end(self, use: Use) -> Ends:
        """Return the ends that a closed socket was last used with."""
        known = self._sockets.get(use.cookie)
        if known is None:
            return use.ends
        known.changed_ns = known.closed_ns = use.time_ns
        return known.ends

    def _take(self, use: Use) -> Ends:
        """Take note of who did what, and return the ends that it was done with."""
        way, ends = use.way, use.ends
        if way is not _COMES_IN:
            self._take_use(use)
        if way is not _BOUND and (ends.remote_port or ends.protocol not in _WITH_PORTS):
            flow = self._flows.get(ends)
            if flow is None:
                flow = self._flows[ends] = UsedFlow()
            flow.note(use)
        return ends

    def _take_use(self, use: Use) -> None:
        time_ns, way, cookie, ends, process, previous_ns = use
        known = self._sockets.get(cookie)
        if known is None:
            known = self._sockets[cookie] = UsedSocket(time_ns, ends)
        else:
            self._sockets.move_to_end(cookie)
            known.changed_ns, known.ends = time_ns, ends
        if way is _SENT:
            known.sends(time_ns, process)
        elif way is _BOUND:
            known.maker = process
        elif way is not _ARRIVES:
            known.receives(time_ns, process, previous_ns)
        if way is _CLOSED:
            known.closed_ns = time_ns

    def testify(self, query: Query, period: Period) -> Account:
        """Return what is known of an end of a flow for the time between its first and last packet."""
        ends = asked_ends(query)
        flow = self._flows.get(ends)
        if flow is None:
            return _SILENT
        self._flows.move_to_end(ends)
        if query.protocol == _TCP:
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

    def _of_connection(self, query: Query, flow: UsedFlow, period: Period) -> Account:
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

    def _of_datagrams(self, query: Query, flow: UsedFlow, period: Period) -> Account:
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
            read &= known is not None and known.is_used
            found += users
        if len(cookies) > 1 and not query.fan_out:
            return self._of_one(found)
        settled = read or period.first_ns + GRACE_NS < self._clock()
        return self._named(found, period, cookies)._replace(settled=settled)

    def _reached(self, flow: UsedFlow, period: Period) -> list[int]:
        """Return the sockets that a flow reaches, without those that were closed before.

        Of raw sockets, which all hear the same, it is meant for the one that sent the other way.
        """
        reached = [cookie for cookie, since_ns in flow.arrives.items() if since_ns < period.last_ns + GRACE_NS]
        alive = [cookie for cookie in reached if not self._was_closed(cookie, period.first_ns)]
        asking = [cookie for cookie in alive if cookie in flow.sockets]
        return asking or alive or reached[-1:]

    def _of_late(self, flow: UsedFlow, period: Period) -> Account:
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
        if period and self._exits and any(self._sockets[cookie].closed_ns is None for cookie in cookies):
            before_ns = period.first_ns - GRACE_NS
            holders = tuple(h for h in holders if self._exits.get(h.id, before_ns) >= before_ns)
            if not holders:
                return _SILENT
        return self._account(holders)

    def _account(self, holders: tuple[Process, ...]) -> Account:
        """Return the answer with these holders, the same object for the same process."""
        first = holders[0]
        if len(holders) > 1:
            return Account(Attribution(first, Match.SHARED, self._witness.evidence, holders=holders), settled=True)
        account = self._accounts.get(id(first))
        if account is None or account.attribution is None or account.attribution.process is not first:
            if len(self._accounts) >= MAX_ANSWERS:
                self._accounts.clear()
            answer = Attribution(first, Match.EXACT, self._witness.evidence, holders=holders)
            account = self._accounts[id(first)] = Account(answer, settled=True)
        return account


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
