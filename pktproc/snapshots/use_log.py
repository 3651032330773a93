"""What a witness in the kernel tells of sockets, kept with exact times, between looks and beside them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from pktproc.attribution.engine import Ends, Told, Use, Way, Witness
from pktproc.model import DATAGRAM, UNSPECIFIED, UNSPECIFIED_V4, V4_MAPPED_PREFIX, Process, Protocol, Socket
from pktproc.snapshots.holders import HolderLog
from pktproc.snapshots.store import Store
from pktproc.snapshots.tracked import TrackedSocket

# Bounds: what is told of more sockets than these is kept, but not the end of those that were told of first.
MAX_TOLD = 1 << 17
MAX_MAKERS = 1 << 16
MAX_REQUESTS = 1 << 16
# Without a look in between no more than so many uses wait to be written down.
MAX_WAITING = 1 << 12
# A socket that so many looks have not shown, or a kind of socket of which they tell no cookie, may have ended unheard.
LOOKS_TO_SHOW = 2

_ESTABLISHED, _CLOSE = 1, 7  # net/tcp_states.h
_WITH_PORTS = frozenset({*DATAGRAM, Protocol.TCP, Protocol.SCTP, Protocol.DCCP})
_ECHOES = frozenset({Protocol.ICMP, Protocol.ICMPV6})
_OF_PACKET_SOCKETS = 1 << 63  # a bit that no cookie has; see pktproc.bpf.c


Key = TypeVar("Key")
Value = TypeVar("Value")


class _Waiting(NamedTuple):
    """What was told, with what its times have to be reduced by to be those since the epoch."""

    told: Told
    offset_ns: int


class UseLog:
    """Keep in the store what a `witness` tells: sockets from their first use to their end, and who used them how.

    `told` are the sockets that were told of by cookie, until they were closed; a look that finds one of them describes
    it further. `alone` says whether a socket of the looks is the only one on its port. `count` are the sockets that no
    look had found when they were first used.
    """

    def __init__(
        self, witness: Witness | None, store: Store, holders: HolderLog, alone: Callable[[TrackedSocket], bool]
    ) -> None:
        self._witness = witness
        self._store = store
        self._holders = holders
        self._alone = alone
        self._waiting: list[_Waiting] = []
        self._unwitnessed: list[tuple[int, int]] = []
        self._asked_ns: int | None = None
        self.told: OrderedDict[int, TrackedSocket] = OrderedDict()
        self._unshown: dict[int, TrackedSocket] = {}
        self._makers: OrderedDict[int, Use] = OrderedDict()
        self._requests: OrderedDict[Ends, Use] = OrderedDict()
        self.count = 0

    def hear(self, offset_ns: int, now_ns: int) -> int:
        """Take in what was told since the last call, and return how much could not be told.

        `offset_ns` is what the monotonic clock is ahead of the time since the epoch, `now_ns` the latter.
        """
        if self._witness is None:
            return 0
        told = self._witness.told()
        if told.lost:
            self._unwitnessed.append((now_ns if self._asked_ns is None else self._asked_ns, now_ns))
            self._waiting.append(_Waiting(Told(exits=told.exits, lost=told.lost), offset_ns))
        elif told.uses or told.exits:
            self._waiting.append(_Waiting(told, offset_ns))
        self._asked_ns = now_ns
        return told.lost

    @property
    def is_full(self) -> bool:
        """Say whether so much waits to be written down that the next look should not be waited for."""
        return sum(len(told.uses) for told, _ in self._waiting) > MAX_WAITING

    def write(self, find: Callable[[int, int], TrackedSocket | None]) -> None:
        """Write down what was heard; `find` returns the socket of a namespace and cookie if a look has found it."""
        for told, offset_ns in self._waiting:
            if told.lost:
                self._forget()
            for use in told.uses:
                self._take(use, offset_ns, find)
            for process, exit_ns in told.exits:
                self._holders.exit(process, exit_ns - offset_ns)
        for unwitnessed in self._unwitnessed:
            self._store.add_unwitnessed(*unwitnessed)
        self._waiting.clear()
        self._unwitnessed.clear()
        _keep_latest(self.told, MAX_TOLD)
        _keep_latest(self._makers, MAX_MAKERS)
        _keep_latest(self._requests, MAX_REQUESTS)

    def _forget(self) -> None:
        """Take note that ends may have gone unheard."""
        for tracked in self.told.values():
            self._end_softly(tracked)
        self.told.clear()
        self._unshown.clear()
        self._makers.clear()
        self._requests.clear()

    def looked(self) -> None:
        """Take note that a look is over: what it should have shown and did not may have ended unheard."""
        for cookie, tracked in list(self._unshown.items()):
            tracked.unshown_looks += 1
            if tracked.socket.inode or tracked.is_over or tracked.unshown_looks >= LOOKS_TO_SHOW:
                self._end_softly(tracked)
                del self._unshown[cookie]

    def ended(self, cookie: int) -> TrackedSocket | None:
        """Let go of a socket whose end the kernel told otherwise; return it if it was told of."""
        self._unshown.pop(cookie, None)
        return self.told.pop(cookie, None)

    def _end_softly(self, tracked: TrackedSocket) -> None:
        """Say that a socket was there when it was last used, and leave open what became of it."""
        if not tracked.socket.inode and not tracked.is_over and tracked.row is not None:
            self._store.end_socket(tracked.row, max(tracked.used_ns, tracked.first_ns), None)
            self._holders.release(tracked, 0, None, tracked.used_ns)
            tracked.is_over = True

    def _take(self, use: Use, offset_ns: int, find: Callable[[int, int], TrackedSocket | None]) -> None:
        if use.way is Way.BOUND:
            self._makers[use.cookie] = use
        elif use.way is Way.COMES_IN:
            self._requests[use.ends] = use
        elif use.way is Way.CLOSED and use.process is None:
            self._makers.pop(use.cookie, None)
            if tracked := self.told.pop(use.cookie, None):
                self._close(tracked, use.time_ns - offset_ns)
        else:
            tracked = self._tracked(use, offset_ns, find)
            if not self._is_plain(tracked, use):
                self._write(tracked, use, offset_ns)
            if use.way is Way.CLOSED:
                self.told.pop(use.cookie, None)
                self._close(tracked, use.time_ns - offset_ns)

    def _tracked(self, use: Use, offset_ns: int, find: Callable[[int, int], TrackedSocket | None]) -> TrackedSocket:
        time_ns = use.time_ns - offset_ns
        tracked = self.told.get(use.cookie)
        if tracked is None:
            tracked = find(use.ends.netns, use.cookie)
            if tracked is not None and tracked.row is not None:
                if time_ns < tracked.first_ns:
                    tracked.first_ns = time_ns
                    self._store.begin_socket(tracked.row, time_ns)
                self.told[use.cookie] = tracked
            else:
                tracked = self._meet(use, offset_ns, tracked)
        if tracked.is_over:  # so it seemed
            tracked.is_over, tracked.unshown_looks = False, 0
            self._unshown[use.cookie] = tracked
        tracked.used_ns = max(tracked.used_ns, time_ns)
        return tracked

    def _meet(self, use: Use, offset_ns: int, waiting: TrackedSocket | None) -> TrackedSocket:
        """Begin a row for a socket that is told of for the first time; `waiting` is it, if it was not accepted yet."""
        first = self._requests.pop(use.ends, None) or use
        first_ns = first.time_ns - offset_ns
        tracked = waiting or TrackedSocket(_socket(use), first_ns - 1, first_ns)
        tracked.first_ns = min(tracked.first_ns, first_ns)
        tracked.row = self._store.add_socket(tracked.socket, tracked.after_ns, tracked.first_ns)
        self.told[use.cookie] = self._unshown[use.cookie] = tracked
        self.count += 1
        maker = self._makers.pop(use.cookie, None)
        for before in (maker, first):
            if before is not None and before is not use:
                self._write(tracked, before, offset_ns)
        return tracked

    def _is_plain(self, tracked: TrackedSocket, use: Use) -> bool:
        """Say whether looks tell as much: a bound socket has this port alone, and its one holder is who uses it."""
        if use.way not in (Way.SENT, Way.ARRIVES) or use.ends.protocol not in DATAGRAM:
            return False
        if not tracked.socket.inode or tracked.socket.remote_port or len(tracked.holders) != 1:
            return False
        is_holder = use.process is None or use.process.id in tracked.holders
        return is_holder and (use.way is Way.ARRIVES or use.process is not None) and self._alone(tracked)

    def _write(self, tracked: TrackedSocket, use: Use, offset_ns: int) -> None:
        assert tracked.row is not None
        time_ns = use.time_ns - offset_ns
        process = None if use.process is None else self._hold(tracked, use.process, time_ns)
        previous_ns = use.previous_ns - offset_ns if use.previous_ns else 0
        self._store.add_use(tracked.row, use, process, time_ns, previous_ns)

    def _hold(self, tracked: TrackedSocket, process: Process, time_ns: int) -> int:
        return self._holders.use(tracked, process, time_ns)

    def _close(self, tracked: TrackedSocket, closed_ns: int) -> None:
        if tracked.row is not None:
            self._store.close_socket(tracked.row, closed_ns)
            self._holders.release(tracked, tracked.socket.inode, closed_ns, closed_ns)
        self._unshown.pop(tracked.socket.cookie, None)
        tracked.is_over = True


def _keep_latest(kept: OrderedDict[Key, Value], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)


def _socket(use: Use) -> Socket:
    """Return a socket as far as its first use tells; of one without a port of its own that is not which ends it has."""
    ends, cookie = use.ends, use.cookie
    with_ends = ends.protocol in _WITH_PORTS | _ECHOES and not cookie & _OF_PACKET_SOCKETS
    if not with_ends:
        unspecified = UNSPECIFIED_V4 if ends.local_address.startswith(V4_MAPPED_PREFIX) else UNSPECIFIED
        ends = Ends(ends.netns, ends.protocol, unspecified, 0, unspecified, 0)
    state = _ESTABLISHED if ends.protocol == Protocol.TCP else _CLOSE
    return Socket(*ends, state=state, inode=0, cookie=cookie, uid=None, raw=not with_ends)
