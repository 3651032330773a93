"""Sockets of a dump, arranged so that a query meets only those that may fit it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from pktproc.attribution.engine import Ends, Query, asked_ends, ends_of
from pktproc.model import UNSPECIFIED, UNSPECIFIED_V4, Protocol, Socket

_ICMP = frozenset({Protocol.ICMP, Protocol.ICMPV6})  # ping sockets take what has their id, connected or not


class SocketTable:
    """Find sockets of one namespace and protocol by both ends, and those without a remote end by their port."""

    def __init__(self, sockets: Iterable[Socket]) -> None:
        self._connected: dict[Ends, list[Socket]] = defaultdict(list)
        self._free: dict[int, list[Socket]] = defaultdict(list)
        self._raw: list[Socket] = []
        for socket in sockets:
            if socket.raw:
                self._raw.append(socket)
            elif socket.remote_address in (UNSPECIFIED, UNSPECIFIED_V4) or socket.protocol in _ICMP:
                self._free[socket.local_port].append(socket)
            else:
                self._connected[ends_of(socket)].append(socket)

    def candidates(self, query: Query) -> list[Socket]:
        """Return the sockets that may fit a query."""
        connected = self._connected.get(asked_ends(query), [])
        return connected + self._free.get(query.local_port, []) + self._raw
