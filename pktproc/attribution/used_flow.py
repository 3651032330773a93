"""What was done in a flow, as a witness in the kernel told: its sockets one after another, and who sent it."""

from __future__ import annotations

from typing import Any

from pktproc.attribution.engine import Use, Way
from pktproc.attribution.turns import NO_TURNS, Period, Turns
from pktproc.model import Protocol

# Of the sockets that had the same ends one after another, the latest.
MAX_SUCCESSORS = 4
REQUEST = 0  # in the place of a cookie
# Names of enumerations are looked up at some cost, and these are asked for at each use of a socket.
_SENT, _ARRIVES, _COMES_IN = Way.SENT, Way.ARRIVES, Way.COMES_IN
_TCP = int(Protocol.TCP)
_NONE: dict[int, int] = {}  # most flows are of connections, which tell nothing of what arrives


class UsedFlow:
    """The sockets of a flow: since when, and whether they came in; those that it reaches; who sent it when.

    A connection that comes in stands among them as `REQUEST` until somebody uses its socket.
    """

    __slots__ = ("arrives", "sent", "sockets")

    def __init__(self) -> None:
        self.sockets: dict[int, tuple[int, bool]] = {}
        self.arrives = _NONE
        self.sent = NO_TURNS

    def note(self, use: Use) -> None:
        """Take note of what was done in it."""
        time_ns, way, cookie, ends, process, _ = use
        if way is _ARRIVES:
            if self.arrives is _NONE:
                self.arrives = {}
            self.arrives.pop(cookie, None)
            self.arrives[cookie] = time_ns
            _keep_latest(self.arrives)
            return
        if way is _COMES_IN:
            self.sockets[REQUEST] = time_ns, True
        elif cookie not in self.sockets:
            self.sockets[cookie] = self.sockets.pop(REQUEST, (time_ns, way is not _SENT))
            _keep_latest(self.sockets)
        if way is _SENT and ends.protocol != _TCP:
            if self.sent is NO_TURNS:
                self.sent = Turns()
            self.sent.add(time_ns, process)

    def changes_socket(self, period: Period) -> bool:
        """Say whether another socket than before takes the flow over within a period."""
        begun = [since_ns for since_ns, _ in self.sockets.values()]
        return len(begun) > 1 and any(period.first_ns < since_ns <= period.last_ns for since_ns in begun)


def _keep_latest(cookies: dict[int, Any]) -> None:
    while len(cookies) > MAX_SUCCESSORS:
        del cookies[next(iter(cookies))]
