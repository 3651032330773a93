"""The evidence of a store as the join asks for it."""

from __future__ import annotations

import os
from collections.abc import Sequence

from cachetools import LRUCache

from pktproc.attribution.history import Coverage, RecordedAddress, RecordedSocket
from pktproc.snapshots.reader import StoreReader

MAX_PORTS = 1 << 16
MAX_USED_PORTS = 1 << 10

# Each is one search in the index socket_by_ends.
_CONNECTED = "s.netns = ? AND s.protocol = ? AND s.local_port = ? AND s.remote_port = ? AND s.remote_address = ?"
_FREE = "s.netns = ? AND s.protocol = ? AND s.local_port = ? AND s.remote_port = 0 AND s.raw = 0"
_RAW = "s.netns = ? AND s.protocol = ? AND s.local_port = ?2 AND s.remote_port = 0 AND s.raw = 1"
_USERS = (
    "SELECT DISTINCT p.pid, p.start_ticks FROM socket s JOIN holder h ON h.socket = s.id JOIN process p"
    " ON p.id = h.process WHERE s.netns = ? AND s.protocol = ? AND s.local_port = ? AND s.remote_port <> 0"
)


class StoreHistory:
    """Answer from the store at `path`, as it is when this is made; it may be recorded into meanwhile.

    `name` is the evidence that answers carry.
    """

    def __init__(self, path: str | os.PathLike[str], *, name: str = "snapshot") -> None:
        self.name = name
        self._reader = StoreReader(path)
        self._free: LRUCache[tuple[int, int, int], Sequence[RecordedSocket]] = LRUCache(MAX_PORTS)
        self._raw: dict[tuple[int, int], Sequence[RecordedSocket]] = {}
        self._users: LRUCache[tuple[int, int, int], frozenset[tuple[int, int]]] = LRUCache(MAX_USED_PORTS)

    def close(self) -> None:
        """Close the store."""
        self._reader.close()

    def coverage(self) -> Sequence[Coverage]:
        """Return the intervals in which recording ran, in order, without overlap."""
        return self._reader.coverage

    def namespaces(self) -> frozenset[int]:
        """Return the network namespaces that were ever recorded."""
        return frozenset(row[0] for row in self._reader.rows("SELECT DISTINCT netns FROM address")) | frozenset(
            self._namespaces_of_sockets()
        )

    def _namespaces_of_sockets(self) -> list[int]:
        """Step from one namespace to the next in the index, instead of reading all of it."""
        found: list[int] = []
        query = "SELECT min(netns) FROM socket WHERE netns > ?"
        while (row := self._reader.rows(query, (found[-1] if found else -1,))) and row[0][0] is not None:
            found.append(row[0][0])
        return found

    def addresses(self, address: bytes) -> Sequence[RecordedAddress]:
        """Return when which namespaces had a 16-byte address, as their own or for broadcasts."""
        return self._reader.addresses(address)

    def sockets(
        self, netns: int, protocol: int, local_port: int, remote_address: bytes, remote_port: int
    ) -> Sequence[RecordedSocket]:
        """Return the sockets of a namespace, at any time, that have a protocol and local port.

        Of connected ones only those whose remote end is the given one. Raw sockets take all of their protocol, so they
        are there whatever the port.
        """
        found: list[RecordedSocket] = []
        if remote_port:
            ends = (netns, protocol, local_port, remote_port, remote_address)
            found += self._reader.sockets(_CONNECTED, ends)
        found += self._free_sockets(netns, protocol, local_port)
        found += self._raw_sockets(netns, protocol)
        return found

    def _free_sockets(self, netns: int, protocol: int, local_port: int) -> Sequence[RecordedSocket]:
        place = (netns, protocol, local_port)
        found = self._free.get(place)
        if found is None:
            found = self._free[place] = self._reader.sockets(_FREE, place)
        return found

    def _raw_sockets(self, netns: int, protocol: int) -> Sequence[RecordedSocket]:
        found = self._raw.get((netns, protocol))
        if found is None:
            found = self._raw[netns, protocol] = self._reader.sockets(_RAW, (netns, protocol))
        return found

    def users(self, netns: int, protocol: int, local_port: int) -> frozenset[tuple[int, int]]:
        """Return (pid, start_ticks) of all processes that ever held a connected socket on a local port."""
        place = (netns, protocol, local_port)
        users = self._users.get(place)
        if users is None:
            users = self._users[place] = frozenset((pid, ticks) for pid, ticks in self._reader.rows(_USERS, place))
        return users
