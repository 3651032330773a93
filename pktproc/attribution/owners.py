"""Who owns the sockets that fit a query: holders of now, owners past close, users of ports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from cachetools import LRUCache, TTLCache

from pktproc.attribution.endings import PAST_TTL_NS
from pktproc.attribution.engine import Engine, Holdings, Query
from pktproc.attribution.matching import TCP_LISTEN, Selection
from pktproc.attribution.ownership import HolderIndex
from pktproc.attribution.recent import Recent
from pktproc.model import Attribution, Match, Process, ProcessId, Protocol, Reason, Socket, SocketId

MAX_PAST = 1 << 15
MAX_USERS = 8
MAX_NAMED = 1 << 12
INJECTORS_TTL_NS = 5_000_000_000

_NAME = "pktproc"
_ICMP = frozenset({Protocol.ICMP, Protocol.ICMPV6})
_HALF_OPEN = frozenset({1, 3})  # ESTABLISHED, SYN_RECV with inode 0: not accepted yet (net/tcp_states.h)


class Owners:
    """Turn sockets into attributions; `clock` returns monotonic nanoseconds."""

    def __init__(self, engine: Engine, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._holders = HolderIndex(engine, clock)
        self._last: Recent[SocketId, tuple[Process, ...]] = Recent(MAX_PAST, PAST_TTL_NS, clock)
        self._could_inject: TTLCache[int, tuple[Process, ...]] = TTLCache(MAX_USERS, INJECTORS_TTL_NS, timer=clock)
        self._named: LRUCache[tuple[ProcessId, Match], Attribution] = LRUCache(MAX_NAMED)
        self._users: LRUCache[tuple[int, int, int], dict[ProcessId, Process]] = LRUCache(MAX_PAST)

    @property
    def denied(self) -> tuple[int, int]:
        """Return how many processes the last look at everyone could not inspect, and of how many."""
        return self._holders.denied, self._holders.looked_at

    def warm(self, namespaces: Iterable[int]) -> None:
        """Learn all sockets of the namespaces and their holders, so that those that end soon are known afterwards."""
        sockets = [socket for netns in namespaces for socket in self._engine.sockets(netns) if socket.inode]
        self._holders.learn_all(sockets)
        for socket in sockets:
            held = self._owners_of(socket)
            if socket.state == TCP_LISTEN:
                for process in held[:MAX_USERS]:
                    self.note_user(socket.netns, socket.protocol, socket.local_port, process)

    def learn(self, sockets: list[Socket]) -> None:
        """Find the holders of sockets; known users of their ports are the likeliest."""
        users = {socket.inode: self._users.get((*socket[:2], socket.local_port)) for socket in sockets}
        self._holders.learn(sockets, {inode: tuple(known.values()) for inode, known in users.items() if known})

    def take(self, found: Holdings) -> None:
        """Take in what a look at processes found elsewhere."""
        self._holders.take(found)

    def forget(self, process: ProcessId) -> None:
        """Let go of what a process that ended has held."""
        self._holders.forget(process)

    def fresh(self) -> list[Process]:
        """Return the processes that were found to hold sockets since the last call."""
        return self._holders.fresh()

    def last(self, socket: SocketId) -> tuple[Process, ...]:
        """Return who was last known to hold a socket."""
        return self._last.get(socket) or ()

    def note_user(self, netns: int, protocol: int, port: int, process: Process) -> None:
        """Take note of who uses a port: it is likely to hold the next connection there too."""
        users = self._users.setdefault((netns, protocol, port), {})
        users[process.id] = process
        if len(users) > MAX_USERS:
            del users[next(iter(users))]

    def attribute(self, query: Query, selection: Selection, *, opens: bool, steady: bool) -> Attribution:
        """Name the owner of the selected sockets, or say why there is none.

        `opens` says that a connection just began, `steady` that the same sockets have fitted for a while.
        """
        if selection.match is Match.LISTENER:
            return self._attribute_accepted(query, selection, opens=opens)
        if selection.sockets and selection.sockets[0].raw:
            return self._attribute_raw(query, selection, steady=steady)
        if selection.match is None and query.outgoing:
            injectors = self._injectors(query.netns)
            return Attribution(reason=Reason.NO_SOCKET, evidence=self._engine.name, holders=injectors, final=False)
        return self._attribute(selection, fan_out=query.fan_out)

    def _injectors(self, netns: int) -> tuple[Process, ...]:
        """Return who else could have sent a packet that no socket fits."""
        known = self._could_inject.get(netns)
        if known is None:
            sockets = [socket for socket in self._engine.injectors(netns) if socket.inode]
            self._holders.learn(sockets, {})
            holders = {holder.id: holder for socket in sockets for holder in self._holders.known(socket.inode)}
            known = tuple(holder for holder in holders.values() if not _only_reads(holder))[:MAX_USERS]
            self._could_inject[netns] = known
        return known

    def _attribute_accepted(self, query: Query, selection: Selection, *, opens: bool) -> Attribution:
        """Name the owner of a connection that nobody has accepted yet, or that was over before it could be asked for.

        It is the listener's while it opens. Once it is over, it is that of the only process that could accept it,
        unless connections on this port are known to belong to others: a server that hands each one to a child.
        """
        connections = [socket for socket in selection.sockets if socket.state != TCP_LISTEN]
        if any(self._owners_of(socket) for socket in connections):
            return self._attribute(Selection(Match.EXACT, connections), fan_out=False)
        listeners = [socket for socket in selection.sockets if socket.state == TCP_LISTEN]
        attribution = self._attribute(Selection(Match.LISTENER, listeners), fan_out=False)
        if opens or any(socket.state in _HALF_OPEN for socket in connections):
            return attribution
        process = attribution.process
        users = self._users.get((query.netns, query.protocol, query.local_port), {})
        if process and attribution.match is Match.LISTENER and users.keys() <= {process.id}:
            return attribution
        return Attribution(reason=Reason.CLOSED, evidence=self._engine.name, holders=attribution.holders, final=False)

    def _attribute(self, selection: Selection, *, fan_out: bool) -> Attribution:
        evidence = self._engine.name
        if selection.match is None:
            return Attribution(reason=Reason.NO_SOCKET, evidence=evidence, final=False)
        owners = [self._owners_of(socket) for socket in selection.sockets]
        if len(owners) == 1 == len(owners[0]):
            return self._sole_owner(owners[0], selection.match)
        if not any(owners):
            reason, final = self._holders.why_not(selection.sockets)
            return Attribution(reason=reason, evidence=evidence, final=final)
        named = name_owners(owners, selection.match, evidence, fan_out=fan_out)
        return replace(named, final=False) if _may_pass_on(selection, named) else named

    def _sole_owner(self, owner: tuple[Process, ...], match: Match) -> Attribution:
        """Name a process; of tens of thousands of flows, many have the same."""
        key = owner[0].id, match
        named = self._named.get(key)
        if named is None or named.process is not owner[0]:
            named = self._named[key] = Attribution(owner[0], match, self._engine.name, holders=owner)
        return named

    def _attribute_raw(self, query: Query, selection: Selection, *, steady: bool) -> Attribution:
        """Name the user of a raw socket, which nothing ties to a packet but its protocol.

        For ICMP echo that is not enough, since programs like ping come and go: its id must be the pid, as ping has it
        where it uses raw sockets (iputils ping.c), or the same process must have been the only candidate for a while.
        """
        owners = dict.fromkeys(process for socket in selection.sockets for process in self._owners_of(socket))
        if query.protocol not in _ICMP:
            candidates = tuple(owners)
        else:
            port = query.local_port
            candidates = tuple(process for process in owners if process.pid & 0xFFFF == port) or tuple(owners)
            if candidates and candidates[0].pid & 0xFFFF != port and not (steady and len(owners) == 1):
                return Attribution(reason=Reason.AMBIGUOUS, evidence=self._engine.name, holders=candidates, final=False)
        if len(candidates) == 1:
            return Attribution(candidates[0], Match.BOUND, self._engine.name, holders=candidates)
        if not candidates:
            reason, final = self._holders.why_not(selection.sockets)
            return Attribution(reason=reason, evidence=self._engine.name, final=final)
        return Attribution(reason=Reason.AMBIGUOUS, evidence=self._engine.name, holders=candidates)

    def _owners_of(self, socket: Socket) -> tuple[Process, ...]:
        """Return who holds a socket now, or who held it last if no file holds it any more."""
        if not socket.inode:
            return self.last(socket.id)
        held = self._holders.known(socket.inode)
        if held:
            self._last[socket.id] = held
        return held


def _only_reads(process: Process) -> bool:
    """Say whether a process with packet sockets is another pktproc, which never sends by them.

    It is known by its name, or by its command line where an interpreter was called.
    """
    arguments = process.cmdline or ()
    return process.name == _NAME or arguments[1:3] == ("-m", _NAME)


def _may_pass_on(selection: Selection, named: Attribution) -> bool:
    """Say whether a connection that nobody has accepted yet may soon have fewer owners than its listener."""
    return selection.match is Match.LISTENER and (named.process is None or named.match is Match.SHARED)


def name_owners(owners: Sequence[tuple[Process, ...]], match: Match, evidence: str, *, fan_out: bool) -> Attribution:
    """Name the owners of sockets that fit equally well, some of which may be unknown (empty), but not all.

    Sockets of different owners are `ambiguous`, unless the packet reaches all of them (`fan_out`).
    """
    holders = tuple(dict.fromkeys(process for owner in owners for process in owner))
    if not all(owners) or (len({frozenset(owner) for owner in owners}) > 1 and not fan_out):
        return Attribution(reason=Reason.AMBIGUOUS, evidence=evidence, holders=holders)
    if len(holders) > 1:
        return Attribution(holders[0], Match.SHARED, evidence, holders=holders)
    return Attribution(holders[0], match, evidence, holders=holders)
