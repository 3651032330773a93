"""A host whose every fact is known: a double of the kernel, as an engine shows it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pktproc.attribution.engine import Addresses, Ended, Holdings, Query
from pktproc.model import (
    UNSPECIFIED,
    UNSPECIFIED_V4,
    V4_MAPPED_PREFIX,
    Process,
    Protocol,
    Socket,
    pack_address,
)

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
ESTABLISHED, SYN_SENT, SYN_RECV, TIME_WAIT, CLOSE, LISTEN = 1, 2, 3, 6, 7, 10  # net/tcp_states.h
HOME = 4026531840
TICK_NS = 10 * NS_PER_MS  # USER_HZ
WALL_NS = 1_700_000_000_000_000_000  # of the epoch, where the clock has zero
ANY_PORT = -1
INODE = 1_000_000
End = tuple[str, int]

_CONNECTED = frozenset({Protocol.TCP, Protocol.DCCP, Protocol.SCTP})
_WITH_NOTICE = frozenset({Protocol.TCP, Protocol.UDP, Protocol.UDPLITE})


class Clock:
    """A monotonic clock in nanoseconds that moves only when told."""

    def __init__(self) -> None:
        self.now_ns = 5_000 * NS_PER_S

    def __call__(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        """Return the time since the epoch."""
        return self.now_ns + WALL_NS

    def advance(self, ms: float) -> None:
        self.now_ns += int(ms * NS_PER_MS)


class Host:
    """Processes, sockets and who holds what; `calls` counts the looks that were taken.

    A look at everyone takes `scan_ms`, and notices of ended sockets come after `notice_ms`. A pid in `private` may not
    be inspected.
    """

    name = "double"

    def __init__(self, clock: Clock, *, hears_ends: bool = True, scan_ms: float = 0) -> None:
        self.clock = clock
        self.hears_ends = hears_ends
        self.scan_ms = scan_ms
        self.notice_ms = 0.0
        self.calls: Counter[str] = Counter()
        self.asked = 0
        self.private: set[int] = set()
        self.unreadable: set[int] = set()
        self.spaces = {HOME: Addresses()}
        self.lost = False
        self._numbers = itertools.count(1000)
        self._ticks = 0
        self._processes: dict[int, Process] = {}
        self._held: dict[int, set[int]] = {}
        self._holders: dict[int, set[int]] = {}
        self._met: set[int] = set()
        self._table: dict[int, Socket] = {}
        self._by_port: dict[tuple[int, int, int], dict[int, None]] = {}
        self._ended: list[tuple[int, Socket]] = []

    # What happens on the host.

    def start(
        self, name: str, *, pid: int | None = None, parent: Process | None = None, uid: int = 1000, age_ms: int = 1000
    ) -> Process:
        """Start a process, which by its start time has run for `age_ms` already; `pid` may be one used before."""
        self._ticks = ticks = max(self._ticks + 1, self.clock() // TICK_NS)
        ancestors = (parent.id, *parent.ancestors) if parent else ()
        process = Process(
            pid=next(self._numbers) if pid is None else pid,
            start_ticks=ticks,
            start_ns=self.clock() // TICK_NS * TICK_NS + WALL_NS - age_ms * NS_PER_MS,
            name=name,
            uid=uid,
            ppid=parent.pid if parent else 1,
            ancestors=ancestors,
        )
        self._processes[process.pid] = process
        self._held[process.pid] = set()
        self._met.discard(process.pid)
        return process

    def become(self, changed: Process) -> Process:
        """Let a process be another than it was, with the same pid."""
        self._processes[changed.pid] = changed
        return changed

    def fork(self, parent: Process, name: str | None = None) -> Process:
        """Start a child that holds what its parent holds."""
        child = self.start(name or parent.name, parent=parent)
        for inode in self._held[parent.pid]:
            self._hold(inode, child)
        return child

    def end(self, process: Process) -> None:
        """End a process; sockets that nobody else holds are closed."""
        for inode in list(self._held[process.pid]):
            self._let_go(inode, process)
        del self._processes[process.pid], self._held[process.pid]

    def open(
        self,
        holder: Process | None,
        local: End,
        remote: End | None = None,
        *,
        protocol: int = Protocol.TCP,
        state: int | None = None,
        netns: int = HOME,
        ifindex: int = 0,
        v6_only: bool = False,
        raw: bool = False,
        accepted: bool = True,
    ) -> Socket:
        """Open a socket; not `accepted` it has no inode yet. Without a holder it is the kernel's own."""
        cookie = next(self._numbers)
        address = pack_address(local[0])
        nowhere = UNSPECIFIED_V4 if address.startswith(V4_MAPPED_PREFIX) else UNSPECIFIED
        if state is None:
            connected = protocol in _CONNECTED
            state = (ESTABLISHED if remote else LISTEN) if connected else (ESTABLISHED if remote else CLOSE)
        socket = Socket(
            netns=netns,
            protocol=protocol,
            local_address=address,
            local_port=local[1],
            remote_address=pack_address(remote[0]) if remote else nowhere,
            remote_port=remote[1] if remote else 0,
            state=state,
            inode=cookie + INODE if accepted else 0,
            cookie=cookie if self.hears_ends else 0,
            uid=(holder.uid if holder else 0) if accepted else None,
            ifindex=ifindex,
            v6_only=v6_only,
            raw=raw,
        )
        self._table[cookie] = socket
        self._by_port.setdefault(_place(socket), {})[cookie] = None
        if holder and accepted:
            self._hold(socket.inode, holder)
        return socket

    def accept(self, socket: Socket, holder: Process) -> Socket:
        """Give a connection that waits for it to a process."""
        key = self._key(socket)
        accepted = socket._replace(inode=key + INODE, state=ESTABLISHED, uid=holder.uid)
        self._table[key] = accepted
        self._hold(accepted.inode, holder)
        return accepted

    def give(self, socket: Socket, receiver: Process) -> None:
        """Make another process hold a socket as well."""
        self._hold(socket.inode, receiver)

    def drop(self, socket: Socket, holder: Process) -> None:
        """Make a process hold a socket no longer; the last one closes it."""
        self._let_go(socket.inode, holder)

    def linger(self, socket: Socket, state: int = TIME_WAIT) -> None:
        """Close a TCP socket whose connection the kernel keeps for a while: no inode, the same cookie."""
        key = self._key(socket)
        self.close(socket)
        self._table[key] = socket._replace(inode=0, state=state, uid=None)
        self._by_port[_place(socket)][key] = None

    def close(self, socket: Socket) -> None:
        """End a socket."""
        self._remove(self._key(socket))
        for pid in self._holders.pop(socket.inode, ()):
            self._held[pid].discard(socket.inode)
        if self.hears_ends and socket.protocol in _WITH_NOTICE and not socket.raw:
            due_ns = self.clock() + int(self.notice_ms * NS_PER_MS)
            self._ended.append((due_ns, socket._replace(inode=0, state=CLOSE, uid=None)))

    def expire(self, socket: Socket) -> None:
        """Let a lingering connection go."""
        self._remove(self._key(socket._replace(inode=0)))

    # What an engine tells of it.

    def candidates(self, queries: Sequence[Query]) -> list[list[Socket]]:
        self.calls["candidates"] += 1
        self.asked += len(queries)
        return [
            [
                self._table[key]
                for port in (query.local_port, ANY_PORT)
                for key in self._by_port.get((query.netns, query.protocol, port), ())
            ]
            for query in queries
        ]

    def sockets(self, netns: int) -> list[Socket]:
        return [socket for socket in self._table.values() if socket.netns == netns]

    def injectors(self, netns: int) -> list[Socket]:
        return [socket for socket in self.sockets(netns) if socket.raw and socket.protocol in (-1, 255)]

    def ended(self) -> Ended:
        ended = [socket for due_ns, socket in self._ended if due_ns <= self.clock()]
        self._ended = [(due_ns, socket) for due_ns, socket in self._ended if due_ns > self.clock()]
        lost, self.lost = self.lost, False
        return Ended([] if lost else ended, lost)

    def namespaces(self) -> frozenset[int]:
        return frozenset(self.spaces)

    def readable(self, netns: int) -> bool:
        return netns not in self.unreadable

    def addresses(self, netns: int) -> Addresses:
        self.calls["addresses"] += 1
        return self.spaces.get(netns, Addresses())

    def everyone(self, wanted: Mapping[int, int | None]) -> Holdings:
        self.calls["everyone"] += 1
        self.clock.advance(self.scan_ms)
        self._met = set(self._processes)
        return Holdings(self._look(self._processes, wanted), complete=True, denied=len(self.private))

    def newcomers(self, wanted: Iterable[int]) -> Holdings:
        self.calls["newcomers"] += 1
        return Holdings(self._look(self._processes.keys() - self._met, wanted))

    def recheck(self, held: Mapping[int, Sequence[Process]]) -> Holdings:
        self.calls["recheck"] += 1
        before = {process.pid for processes in held.values() for process in processes}
        return Holdings(self._look((self._processes.keys() - self._met) | before, held))

    def _look(self, pids: Iterable[int], wanted: Iterable[int]) -> dict[int, list[Process]]:
        holders: dict[int, list[Process]] = {}
        looked_for = set(wanted)
        for pid in sorted(pids, reverse=True):
            if pid in self._processes and pid not in self.private:
                for inode in self._held[pid] & looked_for:
                    holders.setdefault(inode, []).append(self._processes[pid])
        return holders

    def _hold(self, inode: int, holder: Process) -> None:
        self._held[holder.pid].add(inode)
        self._holders.setdefault(inode, set()).add(holder.pid)

    def _let_go(self, inode: int, holder: Process) -> None:
        self._held[holder.pid].discard(inode)
        self._holders[inode].discard(holder.pid)
        if not self._holders[inode]:
            self.close(self._table[inode - INODE])

    def _remove(self, key: int) -> None:
        del self._by_port[_place(self._table[key])][key], self._table[key]

    def _key(self, socket: Socket) -> int:
        if socket.inode:
            return socket.inode - INODE
        return next(key for key, found in self._table.items() if found.inode == 0 and found[2:6] == socket[2:6])


def _place(socket: Socket) -> tuple[int, int, int]:
    return socket.netns, socket.protocol, ANY_PORT if socket.raw else socket.local_port


def query(
    local: End,
    remote: End,
    *,
    protocol: int = Protocol.TCP,
    netns: int = HOME,
    ifindex: int = 0,
    outgoing: bool = False,
    fan_out: bool = False,
) -> Query:
    """Return the query for the end `local` of a flow with `remote`."""
    return Query(
        netns=netns,
        protocol=protocol,
        local_address=pack_address(local[0]),
        local_port=local[1],
        remote_address=pack_address(remote[0]),
        remote_port=remote[1],
        ifindex=ifindex,
        outgoing=outgoing,
        fan_out=fan_out,
    )
