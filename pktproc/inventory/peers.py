"""Who is at the other end of a socket, where both ends are on this host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from pktproc.inventory.naming import is_universal
from pktproc.inventory.rows import (
    AF_UNIX,
    AF_VSOCK,
    CONNECTION_KINDS,
    DATAGRAM_KINDS,
    INET,
    UNLISTED,
    Holder,
    Peer,
    Row,
)
from pktproc.inventory.states import CLOSED, LISTENING, TIME_WAIT
from pktproc.model import V4_MAPPED_PREFIX

HoldersOf = Callable[[int], tuple[Holder, ...]]
_Ends = tuple[str, bytes, int, bytes, int]
_LOOPBACK = bytes(15) + b"\x01"
_NO_ROWS: list[Row] = []


class Peers:
    """Find the other ends among all rows of a look; `holders_of` names who holds an inode."""

    def __init__(self, rows: Iterable[Row], holders_of: HoldersOf) -> None:
        self._holders_of = holders_of
        self._unix: dict[int, Row] = {}
        self._connected: dict[_Ends, Row] = {}
        self._doubles: dict[_Ends, list[Row]] = defaultdict(list)
        self._bound: dict[tuple[int, str, bytes, int], list[Row]] = defaultdict(list)
        for row in rows:
            self._take(row)

    def _take(self, row: Row) -> None:
        family, kind = row[2], row[1]
        if family == AF_UNIX:
            if row.inode:
                self._unix[row.inode] = row
        elif family in INET and row[9]:
            ends = (kind, *row[6:10])
            if self._connected.setdefault(ends, row) is not row:
                self._doubles[ends].append(row)
        elif kind in DATAGRAM_KINDS:
            self._bound[row.netns, kind, row.local, row.local_port].append(row)

    def of(self, row: Row) -> Peer | None:
        """Return the other end of a socket, None if it is elsewhere, none, or not certain."""
        family = row[2]
        if family == AF_UNIX:
            return self._unix_peer(row)
        if family not in INET or not row[9]:
            return None
        found = self._mirror(row) or self._receiver(row)
        return None if found is None else Peer(found.inode, self._holders_of(found.inode), found)

    def _unix_peer(self, row: Row) -> Peer | None:
        inode = row.remote_port
        if not inode:
            return None
        return Peer(inode, self._holders_of(inode), self._unix.get(inode))

    def _mirror(self, row: Row) -> Row | None:
        """Return the socket that has the same two ends the other way round.

        One in the same namespace is it; of other namespaces it is only if there is no other.
        """
        kind = row[1]
        if kind not in CONNECTION_KINDS and kind not in DATAGRAM_KINDS:
            return None
        ends = (kind, row[8], row[9], row[6], row[7])
        first = self._connected.get(ends)
        if first is None:
            return None
        others = self._doubles.get(ends, _NO_ROWS)
        if first[0] == row[0] and not others:
            return first
        candidates = [first, *others]
        here = [candidate for candidate in candidates if candidate.netns == row.netns]
        if here:
            return _only(here)
        return None if is_loopback(row.remote) else _only(candidates)

    def _receiver(self, row: Row) -> Row | None:
        """Return the only socket without a peer of its own that takes what a connected datagram socket sends."""
        if row[1] not in DATAGRAM_KINDS:
            return None
        exact = self._bound.get((row.netns, row.kind, row.remote, row.remote_port), _NO_ROWS)
        found = exact
        if not exact and is_loopback(row.remote):
            wildcards = (bytes(16), V4_MAPPED_PREFIX + bytes(4))
            found = [
                candidate
                for wildcard in wildcards
                for candidate in self._bound.get((row.netns, row.kind, wildcard, row.remote_port), _NO_ROWS)
                if _takes(candidate, row)
            ]
        return found[0] if len(found) == 1 else None


def _only(candidates: list[Row]) -> Row | None:
    """Return the last row if all are of one socket: SCTP's have one for itself and one for each association."""
    return candidates[-1] if len({row.key for row in candidates}) == 1 else None


def _takes(candidate: Row, sender: Row) -> bool:
    if sender.remote.startswith(V4_MAPPED_PREFIX):
        return not candidate.attributes.v6_only
    return candidate.family != 2


def is_loopback(address: bytes) -> bool:
    """Say whether an address is one of the loopback interface: 127.0.0.0/8 or ::1."""
    return address == _LOOPBACK or (address.startswith(V4_MAPPED_PREFIX) and address[12] == 127)


def has_other_end(row: Row) -> bool:
    """Say whether a socket is connected to another one, here or elsewhere."""
    if row.family == AF_UNIX:
        return bool(row.remote_port)
    if row.kind == UNLISTED or row.state in (LISTENING, TIME_WAIT):
        return False
    if row.family == AF_VSOCK:
        return row.state != CLOSED
    return row.family in INET and not is_universal(row.remote)
