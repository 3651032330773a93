"""Who holds the sockets that a recorder follows: asked of as few processes as will do, and of all now and then."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping

from pktproc.attribution.engine import Engine, Holdings
from pktproc.attribution.matching import TCP_LISTEN
from pktproc.attribution.ownership import Pace
from pktproc.model import Process, ProcessId
from pktproc.snapshots.descriptions import Descriptions
from pktproc.snapshots.store import Store
from pktproc.snapshots.tracked import Holding, TrackedSocket

# So many looks long the holders of a new socket are asked again, since servers pass connections on to children.
YOUNG_LOOKS = 3
VERIFY_LOOKS = 10
MAX_GAINERS = 8
# Looks at processes may take these shares of the time: at those that may hold what is new, and at everyone.
LIKELY_SHARE = 0.05
EVERYONE_SHARE = 0.01

_Port = tuple[int, int, int]


class HolderLog:
    """Keep in the store which processes hold which socket; `clock` is monotonic, `wall_clock` that of the store.

    New sockets are looked for with the holders of listeners on their port, with processes that lately opened sockets,
    and with new processes; then with everyone. All are verified every `VERIFY_LOOKS` looks. `share` scales how much of
    the time that may take, counted by `cost_clock` if it is given. `denied` of `looked_at` processes the last look at
    everyone could not inspect; `verified_ns` is when all sockets were last asked for.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        clock: Callable[[], int],
        wall_clock: Callable[[], int],
        *,
        cost_clock: Callable[[], int] | None = None,
        share: float = 1.0,
    ) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._wall_clock = wall_clock
        self._cost_clock = cost_clock or clock
        self.descriptions = Descriptions(store)
        self.denied = self.looked_at = self.verified_ns = 0
        self._sockets: dict[int, TrackedSocket] = {}
        self._unheld: dict[int, TrackedSocket] = {}
        self._new: list[TrackedSocket] = []
        self._let_go: list[TrackedSocket] = []
        self._young: deque[list[TrackedSocket]] = deque(maxlen=YOUNG_LOOKS)
        self._listeners: dict[_Port, dict[int, TrackedSocket]] = {}
        self._gainers: OrderedDict[ProcessId, Process] = OrderedDict()
        self._looks_since_verified: int | None = None
        self._likely_pace = Pace(LIKELY_SHARE * share)
        self._everyone_pace = Pace(EVERYONE_SHARE * share)

    def want(self, tracked: TrackedSocket) -> None:
        """Look for the holders of a socket from the next look on."""
        inode = tracked.socket.inode
        self._sockets[inode] = self._unheld[inode] = tracked
        if tracked.after_ns is not None:
            self._new.append(tracked)
        if tracked.socket.state == TCP_LISTEN:
            self._listeners.setdefault(_port(tracked), {})[inode] = tracked

    def use(self, tracked: TrackedSocket, process: Process, time_ns: int) -> int:
        """Take note that a process was seen to use a socket, and return the row of the process."""
        holding = tracked.holders.get(process.id)
        if holding is None or holding.process is not process:
            self._hold(tracked, process, time_ns, time_ns)
            holding = tracked.holders[process.id]
        holding.seen_ns = max(holding.seen_ns, time_ns)
        self._unheld.pop(tracked.socket.inode, None)
        return holding.row

    def exit(self, process: ProcessId, ended_ns: int) -> None:
        """Take note of exactly when a process ended."""
        self._gainers.pop(process, None)
        self.descriptions.exit(process, ended_ns)

    def release(self, tracked: TrackedSocket, inode: int, before_ns: int | None, last_ns: int | None = None) -> None:
        """Take note that nobody holds a socket any more, which has or had this inode; `last_ns` is when somebody did.

        Without it that is when its holders were last seen.
        """
        for holding in tracked.holders.values():
            if last_ns is not None:
                holding.seen_ns = max(holding.seen_ns, last_ns)
            self._end(tracked, holding, before_ns)
        tracked.holders.clear()
        if self._sockets.get(inode) is tracked:  # a socket with other ends may have the inode
            del self._sockets[inode]
            self._unheld.pop(inode, None)
        listeners = self._listeners.get(_port(tracked), {})
        if listeners.pop(inode, None) and not listeners:
            del self._listeners[_port(tracked)]

    def look(self) -> None:
        """Find the holders of new sockets, and see whether known ones still hold theirs."""
        self._young.append(self._new)
        self._new = []
        # Most of what nobody was found to hold any more has been closed by now.
        self._unheld |= {tracked.socket.inode: tracked for tracked in self._let_go if self._is_there(tracked)}
        self._let_go = []
        if self._looks_since_verified is None:
            self._look_at_everyone(self._sockets)
            return
        self._looks_since_verified += 1
        self._look_at_likely()
        if self._unheld and self._likely_pace.allows(self._clock()):
            found, begin_ns = self._timed(self._likely_pace, lambda: self._engine.newcomers(list(self._unheld)))
            self._take(found, self._unheld, begin_ns, exhaustive=False)
        due = self._looks_since_verified >= VERIFY_LOOKS
        if (self._unheld or due) and self._everyone_pace.allows(self._clock()):
            all_of_them = self._looks_since_verified * 2 >= VERIFY_LOOKS
            self._look_at_everyone(self._sockets if all_of_them else self._unheld)

    def _is_there(self, tracked: TrackedSocket) -> bool:
        return self._sockets.get(tracked.socket.inode) is tracked

    def verify(self) -> None:
        """Look at everyone for all sockets."""
        self._look_at_everyone(self._sockets)

    def _look_at_likely(self) -> None:
        asked = {
            tracked.socket.inode: [holding.process for holding in tracked.holders.values()]
            for batch in self._young
            for tracked in batch
            if tracked.holders
        }
        likely = list(self._gainers.values())
        for inode, tracked in self._unheld.items():
            asked[inode] = likely + self._acceptors(tracked)
            likely = []
        if asked and self._likely_pace.allows(self._clock()):
            found, begin_ns = self._timed(self._likely_pace, lambda: self._engine.recheck(asked))
            self._take(found, {inode: self._sockets[inode] for inode in asked}, begin_ns, exhaustive=True)

    def _acceptors(self, tracked: TrackedSocket) -> list[Process]:
        listeners = self._listeners.get(_port(tracked), {}).values()
        return [holding.process for listener in listeners for holding in listener.holders.values()]

    def _look_at_everyone(self, wanted: Mapping[int, TrackedSocket]) -> None:
        wanted = dict(wanted)
        everything = len(wanted) == len(self._sockets)
        asked = {inode: tracked.socket.uid for inode, tracked in wanted.items()}
        found, begin_ns = self._timed(self._everyone_pace, lambda: self._engine.everyone(asked))
        self.denied, self.looked_at = found.denied, found.looked_at
        if everything:
            self._looks_since_verified, self.verified_ns = 0, begin_ns
        self._take(found, wanted, begin_ns, exhaustive=True)
        for inode, tracked in wanted.items():
            tracked.verified_ns = begin_ns
            self._unheld.pop(inode, None)  # of whom nobody can be found; the next look at all of them asks again

    def _timed(self, pace: Pace, look: Callable[[], Holdings]) -> tuple[Holdings, int]:
        begin, begin_ns = self._cost_clock(), self._wall_clock()
        found = look()
        pace.worked(begin, self._cost_clock())
        return found, begin_ns

    def _take(self, found: Holdings, asked: Mapping[int, TrackedSocket], begin_ns: int, *, exhaustive: bool) -> None:
        """Take in what a look found; `exhaustive` says that it asked all known holders of the sockets."""
        end_ns = self._wall_clock()
        for inode, tracked in list(asked.items()):
            holders = found.holders.get(inode, ())
            if len(holders) == 1 == len(tracked.holders):
                (holding,) = tracked.holders.values()
                if holding.process is holders[0]:
                    holding.seen_ns = begin_ns
                    continue
            if exhaustive and tracked.holders:
                self._remove_others(tracked, holders, end_ns)
                if not holders:
                    self._let_go.append(tracked)
            for process in holders:
                self._hold(tracked, process, begin_ns, end_ns)
            if holders:
                self._unheld.pop(inode, None)

    def _remove_others(self, tracked: TrackedSocket, holders: Iterable[Process], before_ns: int) -> None:
        for process in tracked.holders.keys() - {holder.id for holder in holders}:
            self._end(tracked, tracked.holders.pop(process), before_ns)

    def _hold(self, tracked: TrackedSocket, process: Process, begin_ns: int, end_ns: int) -> None:
        holding = tracked.holders.get(process.id)
        if holding and holding.process is process:
            holding.seen_ns = begin_ns
            return
        row = self.descriptions.row(process, end_ns)
        if holding and holding.row == row:
            holding.process, holding.seen_ns = process, begin_ns
            return
        after_ns = tracked.verified_ns or tracked.after_ns
        if holding:
            after_ns = holding.seen_ns
            self._end(tracked, holding, end_ns)
        else:
            self._note_gainer(process)
        assert tracked.row is not None
        self.descriptions.hold(row)
        self._store.add_holder(tracked.row, row, after_ns, end_ns)
        tracked.holders[process.id] = Holding(process, row, end_ns, begin_ns)

    def _note_gainer(self, process: Process) -> None:
        self._gainers[process.id] = process
        self._gainers.move_to_end(process.id)
        if len(self._gainers) > MAX_GAINERS:
            self._gainers.popitem(last=False)

    def _end(self, tracked: TrackedSocket, holding: Holding, before_ns: int | None) -> None:
        assert tracked.row is not None
        last_ns = max(holding.first_ns, holding.seen_ns)
        self._store.end_holder(tracked.row, holding.row, holding.first_ns, last_ns, before_ns)
        self.descriptions.let_go(holding.row, last_ns)


def _port(tracked: TrackedSocket) -> _Port:
    return tracked.socket.netns, tracked.socket.protocol, tracked.socket.local_port
