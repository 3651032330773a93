"""Sockets and addresses, look by look: only what is new, gone or changed since the last one reaches the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from pktproc.attribution.engine import Addresses, Witness, ends_of
from pktproc.model import DATAGRAM, Socket
from pktproc.snapshots.holders import HolderLog
from pktproc.snapshots.store import Store
from pktproc.snapshots.tracked import TrackedSocket
from pktproc.snapshots.use_log import UseLog

_ESTABLISHED, _SYN_RECV, _TIME_WAIT, _CLOSE_WAIT = 1, 3, 6, 8  # net/tcp_states.h
# Without an inode these wait for a process to accept them, while others without one are on their way out.
_UNACCEPTED = frozenset({_ESTABLISHED, _SYN_RECV, _CLOSE_WAIT})

_Key = object


class Look(NamedTuple):
    """The time in which one namespace was looked at."""

    begin_ns: int
    end_ns: int


class Heard(NamedTuple):
    """The end of a socket that the kernel told: after `since_ns`, when it had not been told yet, until `until_ns`."""

    socket: Socket
    since_ns: int
    until_ns: int


@dataclass(slots=True)
class _Space:
    """The sockets of a namespace by cookie, or by inode and ends; None stands for one that is not worth following.

    `ports` counts its datagram sockets by protocol and port, once that was asked for after a look.
    """

    looked_ns: int | None = None
    sockets: dict[_Key, TrackedSocket | None] = field(default_factory=dict)
    missed: set[_Key] = field(default_factory=set)
    addresses: dict[tuple[bytes, bool], tuple[int, int]] = field(default_factory=dict)
    ports: Counter[tuple[int, int]] | None = None


class Census:
    """Keep in the store which sockets and addresses each namespace has.

    A socket is gone when two looks in a row have missed it, because a dump can pass one over while others come and go
    (inet_diag_dump_icsk counts its place in a changing list); the first of both is when it was missed.
    """

    def __init__(self, store: Store, holders: HolderLog, witness: Witness | None = None) -> None:
        self._store = store
        self._holders = holders
        self._spaces: dict[int, _Space] = {}
        self.uses = UseLog(witness, store, holders, self._is_alone)
        self.count = self.unseen_count = 0

    @property
    def namespaces(self) -> frozenset[int]:
        """Return the namespaces that were looked at and are still there."""
        return frozenset(self._spaces)

    def looked_ns(self, netns: int) -> int:
        """Return when a namespace was last looked at, 0 if it never was."""
        space = self._spaces.get(netns)
        return space.looked_ns or 0 if space else 0

    def write_uses(self) -> None:
        """Write down what a witness told since the last call."""
        self.uses.write(self._find)

    def _find(self, netns: int, cookie: int) -> TrackedSocket | None:
        space = self._spaces.get(netns)
        return space.sockets.get(cookie) if space else None

    def _is_alone(self, tracked: TrackedSocket) -> bool:
        """Say whether the last look found no other datagram socket on a port."""
        socket = tracked.socket
        space = self._spaces.get(socket.netns)
        if space is None:
            return False
        if space.ports is None:
            known = (one.socket for one in space.sockets.values() if one and one.socket.protocol in DATAGRAM)
            space.ports = Counter((one.protocol, one.local_port) for one in known)
        return space.ports[socket.protocol, socket.local_port] == 1

    def look(self, netns: int, sockets: Iterable[Socket], addresses: Addresses, look: Look) -> None:
        """Take in what a look at a namespace found."""
        space = self._spaces.setdefault(netns, _Space())
        known, seen, late = space.sockets, set(), []
        for socket in sockets:
            key = socket.cookie or _nameless(socket)
            if key not in known:
                late.append((key, socket))
            else:
                tracked = known[key]
                if tracked and tracked.socket is not socket and tracked.socket != socket:
                    if socket.state == _TIME_WAIT:
                        continue  # missed, that is
                    self._change(space, key, tracked, socket, look)
            seen.add(key)
        for key, socket in late:
            if key not in known:  # a dump can also show one twice
                known[key] = self._meet(space, socket, look)
        self._miss(space, known.keys() - seen, look)
        self._compare_addresses(netns, space, addresses, look)
        space.looked_ns = look.begin_ns
        space.ports = None

    def hear(self, heard: Heard) -> None:
        """Take in the end of a socket; of one that no look found and no witness told of it is all that is known."""
        socket = heard.socket
        told = self.uses.ended(socket.cookie)
        space = self._spaces.get(socket.netns)
        if space is None or not socket.local_port:
            return
        tracked = space.sockets.pop(socket.cookie, told or socket)
        space.missed.discard(socket.cookie)
        if isinstance(tracked, TrackedSocket):
            # Where a look has missed it meanwhile, it may have ended before that look, or been passed over by it.
            last_ns = tracked.missed[0] if tracked.missed else max(space.looked_ns or 0, heard.since_ns)
            if tracked.row is None:
                tracked.row = self._store.add_socket(tracked.socket, tracked.after_ns, tracked.first_ns)
            self._end(tracked, last_ns, heard.until_ns)
        elif tracked is not None:
            at_ns = heard.until_ns
            self._store.add_socket(socket, space.looked_ns, at_ns, at_ns, at_ns)
            self.unseen_count += 1

    def drop(self, netns: int) -> None:
        """Take note that a namespace cannot be looked at any more; what became of its sockets is not known."""
        space = self._spaces.pop(netns)
        for tracked in space.sockets.values():
            if tracked:
                self._end(tracked, *(tracked.missed or (space.looked_ns or 0, None)))
        for row, first_ns in space.addresses.values():
            self._store.end_address(row, max(first_ns, space.looked_ns or 0), None)

    def finish(self) -> None:
        """End what the last look missed."""
        for space in self._spaces.values():
            for key in space.missed:
                tracked = space.sockets.pop(key)
                if tracked and tracked.missed:
                    self._end(tracked, *tracked.missed)
            space.missed.clear()

    def _meet(self, space: _Space, socket: Socket, look: Look) -> TrackedSocket | None:
        if not socket.inode:
            return TrackedSocket(socket, space.looked_ns, look.end_ns) if socket.state in _UNACCEPTED else None
        told = self.uses.told.get(socket.cookie)
        if told and told.row is not None and not told.is_over:
            return self._recognise(told, socket)
        tracked = TrackedSocket(socket, space.looked_ns, look.end_ns)
        if not socket.cookie and (waiting := space.sockets.get(_nameless(socket._replace(inode=0)))):
            tracked.after_ns, tracked.first_ns = waiting.after_ns, waiting.first_ns
        self._record(tracked)
        return tracked

    def _recognise(self, told: TrackedSocket, socket: Socket) -> TrackedSocket:
        """Take in that a look found a socket that a witness has told of."""
        assert told.row is not None
        told.socket = socket
        self._store.describe_socket(told.row, socket)
        self._holders.want(told)
        return told

    def _record(self, tracked: TrackedSocket) -> None:
        tracked.row = self._store.add_socket(tracked.socket, tracked.after_ns, tracked.first_ns)
        self.count += 1
        self._holders.want(tracked)

    def _change(self, space: _Space, key: _Key, tracked: TrackedSocket, socket: Socket, look: Look) -> None:
        """Take in that a socket has other ends, was accepted or is held no longer, or only has another state."""
        inode = tracked.socket.inode
        if ends_of(socket) != ends_of(tracked.socket):
            self._end(tracked, space.looked_ns or 0, look.end_ns)
            space.sockets[key] = self._meet(space, socket, look)
            return
        tracked.socket = socket
        if socket.inode and tracked.row is None:
            self._record(tracked)
        elif socket.inode and not inode:
            self._recognise(tracked, socket)
        elif inode and not socket.inode:
            self._holders.release(tracked, inode, look.end_ns)

    def _miss(self, space: _Space, missing: set[_Key], look: Look) -> None:
        for key in space.missed - missing:
            tracked = space.sockets[key]
            if tracked:
                tracked.missed = None
        space.missed &= missing
        for key in missing:
            tracked = space.sockets[key]
            if tracked is None or tracked.missed:
                del space.sockets[key]
                space.missed.discard(key)
            else:
                tracked.missed = (space.looked_ns or 0, look.end_ns)
                space.missed.add(key)
                continue
            if tracked and tracked.missed:
                self._end(tracked, *tracked.missed)

    def _end(self, tracked: TrackedSocket, last_ns: int, before_ns: int | None) -> None:
        if tracked.is_over:  # its end was told, to the nanosecond
            return
        last_ns = max(last_ns, tracked.first_ns)
        if before_ns is not None:
            last_ns = min(last_ns, before_ns)
        if tracked.row is None:
            if tracked.socket.state == _SYN_RECV:
                return  # a flood of these would drive all else out of the store
            tracked.row = self._store.add_socket(tracked.socket, tracked.after_ns, tracked.first_ns)
        self._store.end_socket(tracked.row, last_ns, before_ns)
        self._holders.release(tracked, tracked.socket.inode, before_ns)

    def _compare_addresses(self, netns: int, space: _Space, addresses: Addresses, look: Look) -> None:
        found = {(address, False) for address in addresses.local} | {(address, True) for address in addresses.broadcast}
        for known in space.addresses.keys() - found:
            row, first_ns = space.addresses.pop(known)
            self._store.end_address(row, max(first_ns, space.looked_ns or 0), look.end_ns)
        for address, broadcast in found - space.addresses.keys():
            row = self._store.add_address(
                netns, address, broadcast=broadcast, after_ns=space.looked_ns, first_ns=look.end_ns
            )
            space.addresses[address, broadcast] = row, look.end_ns


def _nameless(socket: Socket) -> _Key:
    """Return what identifies a socket of which no cookie is known."""
    return socket.inode, ends_of(socket), socket.raw
