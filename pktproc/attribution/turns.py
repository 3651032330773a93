"""Who sends from a socket and who receives from it, in turns: sockets are handed on, inherited and shared.

A user is a process, or None for the kernel. The witness tells only changes, and takes who does the one to do the other
as well until another process does it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple, cast

from pktproc.attribution.engine import Ends
from pktproc.model import Process

NS_PER_MS = 1_000_000
# Of a socket that changes hands all the time, the latest turns.
MAX_TURNS = 16
# How far off the times of packets may be by the monotonic clock.
CLOCK_ERROR_NS = NS_PER_MS // 10
# So long an event may come after a packet that it concerns, and so long what came in may wait for its reader.
GRACE_NS = 50 * NS_PER_MS
NEVER = 1 << 63

User = Process | None


class Period(NamedTuple):
    """When the packets that an answer is for were seen: the first and the last of them."""

    first_ns: int
    last_ns: int


class Turns:
    """One way of use of a socket: who has done it since when, and until when the one before certainly did it."""

    __slots__ = ("since_ns", "until_ns", "users")

    def __init__(self) -> None:
        self.since_ns: list[int] = []
        self.until_ns: list[int] = []
        self.users: list[User] = []

    def __len__(self) -> int:
        return len(self.users)

    def add(self, since_ns: int, user: User, until_ns: int = 0) -> None:
        """Begin a turn, unless it is that user's already."""
        if self.users and self.users[-1] is user:
            return
        self.since_ns.append(since_ns)
        self.until_ns.append(until_ns)
        self.users.append(user)
        if len(self.users) > MAX_TURNS:
            del self.since_ns[0], self.until_ns[0], self.users[0]

    def at(self, time_ns: int) -> list[User]:
        """Return whose turn it is at a time, in a list that is empty before the first."""
        position = bisect_right(self.since_ns, time_ns + CLOCK_ERROR_NS)
        return self.users[max(position - 1, 0) : position]

    def during(self, period: Period) -> list[User]:
        """Return whose turns begin within a period."""
        begin = bisect_right(self.since_ns, period.first_ns + CLOCK_ERROR_NS)
        return self.users[begin : bisect_right(self.since_ns, period.last_ns + CLOCK_ERROR_NS)]

    def soon_after(self, time_ns: int) -> list[User]:
        """Return whose turn is the first, if it begins soon after a time."""
        return self.users[:1] if self.users and self.since_ns[0] <= time_ns + GRACE_NS else []

    def since(self, time_ns: int) -> int:
        """Return when the turn began that it is at a time, 0 before the first."""
        position = bisect_right(self.since_ns, time_ns + CLOCK_ERROR_NS)
        return self.since_ns[position - 1] if position else 0


class UsedSocket:
    """What was told of a socket until `changed_ns`: its maker, its turns, when it was closed, its `ends` in the end.

    Most are used by one process alone, `sole`, since `sole_sends_ns` and `sole_receives_ns`; turns are only kept of
    those that several have used, whose `sole` is `NOBODY`, as that of those that nobody has.
    """

    __slots__ = (
        "changed_ns",
        "closed_ns",
        "ends",
        "maker",
        "received",
        "sent",
        "sole",
        "sole_receives_ns",
        "sole_sends_ns",
    )

    def __init__(self, known_ns: int, ends: Ends) -> None:
        self.changed_ns = known_ns
        self.ends = ends
        self.maker: User | object = NOBODY
        self.sole: User | object = NOBODY
        self.sole_sends_ns = self.sole_receives_ns = NEVER
        self.sent = self.received = NO_TURNS
        self.closed_ns: int | None = None

    @property
    def is_used(self) -> bool:
        """Say whether somebody sent from it or received."""
        return self.sole is not NOBODY or bool(self.sent or self.received)

    def sends(self, since_ns: int, user: User) -> None:
        """Note who sends from it."""
        if self.sole is user:
            self.sole_sends_ns = min(self.sole_sends_ns, since_ns)
        elif not self.is_used:
            self.sole, self.sole_sends_ns = user, since_ns
        else:
            self._take_turns()
            if self.sent is NO_TURNS:
                self.sent = Turns()
            self.sent.add(since_ns, user)

    def receives(self, since_ns: int, user: User, until_ns: int = 0) -> None:
        """Note who receives from it, and until when another did."""
        if self.sole is user and not until_ns:
            self.sole_receives_ns = min(self.sole_receives_ns, since_ns)
        elif not until_ns and not self.is_used:
            self.sole, self.sole_receives_ns = user, since_ns
        else:
            self._take_turns()
            if self.received is NO_TURNS:
                self.received = Turns()
            self.received.add(since_ns, user, until_ns)

    def _take_turns(self) -> None:
        """Begin to keep turns, with those of who was alone until now."""
        if self.sole is NOBODY:
            return
        user, self.sole = cast("User", self.sole), NOBODY
        if self.sole_sends_ns != NEVER:
            self.sent = Turns()
            self.sent.add(self.sole_sends_ns, user)
        if self.sole_receives_ns != NEVER:
            self.received = Turns()
            self.received.add(self.sole_receives_ns, user)


NOBODY = object()
NO_TURNS = Turns()


def users_in(known: UsedSocket, period: Period, *, outgoing: bool) -> list[User]:
    """Return who used a socket in a period: the senders of what goes out, the receivers of what comes in."""
    if known.sole is not NOBODY:
        found = _sole_user(known, period, outgoing=outgoing)
    else:
        found = _senders(known, period) if outgoing else _receivers(known, period)
        if not found:
            found = known.received.soon_after(period.last_ns) or known.sent.soon_after(period.last_ns)
    if not found and isinstance(known.maker, Process | None):
        found = [known.maker]
    return found


def _sole_user(known: UsedSocket, period: Period, *, outgoing: bool) -> list[User]:
    """Return what turns would tell if there were any, for a socket that one process alone has used."""
    soon_ns = period.last_ns + GRACE_NS
    receives = known.sole_receives_ns <= soon_ns or (not outgoing and known.sole_receives_ns != NEVER)
    return [cast("User", known.sole)] if receives or known.sole_sends_ns <= soon_ns else []


def _senders(known: UsedSocket, period: Period) -> list[User]:
    now = known.sent.at(period.first_ns) or known.received.at(period.first_ns)
    return now + known.sent.during(period)


def _receivers(known: UsedSocket, period: Period) -> list[User]:
    """Return who receives what comes in.

    What comes in is for whoever receives next, so what came after the last receipt in one turn is for the next one.
    Shortly before that it may be for either. Who began to send since may have taken over.
    """
    turns = known.received
    if not turns:
        return known.sent.at(period.first_ns) + known.sent.during(period)
    found: list[User] = []
    for position, user in enumerate(turns.users):
        begins_ns, until_ns = turns.since_ns[position], turns.until_ns[position]
        if period.first_ns > until_ns:
            found = [user] if begins_ns <= period.last_ns + GRACE_NS or not found else found
        elif begins_ns <= period.last_ns + GRACE_NS:
            found = [*(found or known.sent.at(until_ns)), user]
        elif not found:
            found = known.sent.at(until_ns)
    sender = known.sent.at(period.last_ns)
    if sender and known.sent.since(period.last_ns) > turns.since(period.last_ns) and sender[0] not in found:
        found = found + sender
    return found
