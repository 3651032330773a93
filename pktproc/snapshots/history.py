"""The evidence of a store as the join asks for it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from cachetools import LRUCache

from pktproc.attribution.engine import Ends
from pktproc.attribution.history import Coverage, RecordedAddress, RecordedSocket, RecordedUse, Testimony
from pktproc.errors import StoreError
from pktproc.snapshots.reader import StoreReader

MAX_PORTS = 1 << 14
MAX_USED_PORTS = 1 << 10

# Each is one search in the index socket_by_ends.
_CONNECTED = "s.netns = ? AND s.protocol = ? AND s.local_port = ? AND s.remote_port = ? AND s.remote_address = ?"
_FREE = "s.netns = ? AND s.protocol = ? AND s.local_port = ? AND s.remote_port = 0 AND s.raw = 0"
_RAW = "s.netns = ? AND s.protocol = ? AND s.local_port = ?2 AND s.remote_port = 0 AND s.raw = 1"
_USERS = (
    "SELECT DISTINCT p.pid, p.start_ticks FROM socket s JOIN holder h ON h.socket = s.id JOIN process p"
    " ON p.id = h.process WHERE s.netns = ? AND s.protocol = ? AND s.local_port = ? AND s.remote_port <> 0"
    " AND h.first >= ? AND s.first <= ?"
)
_WITH = (
    "SELECT value FROM json_each(?1) WHERE"
    " EXISTS (SELECT 1 FROM socket WHERE netns = value AND protocol = ?2 AND local_port IN (?2, ?3))"
)


class StoreHistory:
    """Answer from the store at `path`, as it is when this is made; it may be recorded into meanwhile.

    `name` is the evidence that answers carry.
    """

    def __init__(self, path: str | os.PathLike[str], *, name: str = "snapshot") -> None:
        self.name = name
        self._reader = StoreReader(path)
        self._raw: dict[tuple[int, int], Sequence[RecordedSocket]] = {}
        self._users: LRUCache[tuple[int, ...], frozenset[tuple[int, int]]] = LRUCache(MAX_USED_PORTS)
        self._with: LRUCache[tuple[int, int], frozenset[int]] = LRUCache(MAX_PORTS)
        self._namespaces: frozenset[int] | None = None

    def close(self) -> None:
        """Close the store."""
        self._reader.close()

    def hosts(self) -> frozenset[str]:
        """Return the ids of the boots that were recorded, and what identifies the file, by whatever name."""
        try:
            file = self._reader.path.stat()
        except OSError as error:
            raise StoreError(f"{self._reader.path}: {error.strerror}") from error
        boots = (str(row[0]) for row in self._reader.rows("SELECT boot_id FROM host"))
        return frozenset([f"{file.st_dev}:{file.st_ino}", *boots])

    def coverage(self) -> Sequence[Coverage]:
        """Return the intervals in which recording ran, in order, without overlap."""
        return self._reader.coverage

    def namespaces(self) -> frozenset[int]:
        """Return the network namespaces that were ever recorded."""
        if self._namespaces is None:
            rows = self._reader.rows("SELECT DISTINCT netns FROM address")
            self._namespaces = frozenset(row[0] for row in rows) | frozenset(self._namespaces_of_sockets())
        return self._namespaces

    def namespaces_with(self, protocol: int, local_port: int) -> frozenset[int]:
        """Return the namespaces that ever had a socket with a protocol and local port, or a raw one of the protocol."""
        found = self._with.get((protocol, local_port))
        if found is None:
            values = (json.dumps(sorted(self.namespaces())), protocol, local_port)
            found = self._with[protocol, local_port] = frozenset(row[0] for row in self._reader.rows(_WITH, values))
        return found

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
        """Return all sockets that packets between two ends may belong to, at any time; see `connected` and `free`."""
        connected = self.connected(netns, protocol, local_port, remote_address, remote_port)
        return [*connected, *self.free(netns, protocol, local_port)]

    def connected(
        self, netns: int, protocol: int, local_port: int, remote_address: bytes, remote_port: int
    ) -> Sequence[RecordedSocket]:
        """Return the sockets of a namespace, at any time, with a protocol and local port and connected with an end."""
        if not remote_port:
            return []
        return self._reader.sockets(_CONNECTED, (netns, protocol, local_port, remote_port, remote_address))

    def free(self, netns: int, protocol: int, local_port: int) -> Sequence[RecordedSocket]:
        """Return the sockets of a namespace, at any time, with a protocol and local port and connected with nobody.

        Raw sockets take all of their protocol, so they are there whatever the port.
        """
        return [*self._reader.sockets(_FREE, (netns, protocol, local_port)), *self._raw_sockets(netns, protocol)]

    def _raw_sockets(self, netns: int, protocol: int) -> Sequence[RecordedSocket]:
        found = self._raw.get((netns, protocol))
        if found is None:
            found = self._raw[netns, protocol] = self._reader.sockets(_RAW, (netns, protocol))
        return found

    def testimonies(self) -> Sequence[Testimony]:
        """Return this, if a witness told anything while it was recorded."""
        return [self] if self._reader.witnessed else []

    def witnessed(self) -> Sequence[tuple[int, int]]:
        """Return the times in which nothing that a witness should tell was missed, in order."""
        return self._reader.witnessed

    def uses(self, ends: Ends) -> Sequence[RecordedUse]:
        """Return the uses, in order of time, of all sockets that were ever used with just these ends."""
        return self._reader.uses(ends)

    def users(
        self, netns: int, protocol: int, local_port: int, first_ns: int, last_ns: int
    ) -> frozenset[tuple[int, int]]:
        """Return (pid, start_ticks) of the processes that were first seen to hold a connection on a port in a time."""
        place = (netns, protocol, local_port, first_ns, last_ns)
        users = self._users.get(place)
        if users is None:
            users = self._users[place] = frozenset((pid, ticks) for pid, ticks in self._reader.rows(_USERS, place))
        return users
