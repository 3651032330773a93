"""A recorded host as the join sees it: which of its namespaces had an address, and whose its ends were, at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cachetools import LRUCache

from pktproc.attribution.engine import Query
from pktproc.attribution.eras import End
from pktproc.attribution.history import History, RecordedAddress
from pktproc.attribution.locality import is_broadcast_everywhere, is_loopback, is_multicast
from pktproc.attribution.steps import Steps
from pktproc.attribution.timeline import CONNECTED, Evidence, Timeline

MAX_ADDRESSES = 1 << 14
# About 3 kB each.
MAX_TIMELINES = 1 << 14


class _Address(NamedTuple):
    homes: Steps[tuple[int, ...]]
    hearers: Steps[tuple[int, ...]]


class RecordedHost:
    """Answer from one `History`; a fact whose limits nobody saw is taken to have held for `tolerance_ns` more.

    `covered` says when recording ran.
    """

    def __init__(self, history: History, tolerance_ns: int) -> None:
        self._history = history
        self._tolerance_ns = tolerance_ns
        self._coverage = tuple(history.coverage())
        namespaces = tuple(sorted(history.namespaces()))
        self._everywhere = Steps((), lambda _: namespaces)
        ends = (t for c in self._coverage for t in (c.first_ns - tolerance_ns, c.last_ns + tolerance_ns + 1))
        self.covered = Steps(ends, self._is_covered)
        self._timelines: LRUCache[Query, tuple[tuple[int, tuple[int, End]] | None, Timeline]] = LRUCache(MAX_TIMELINES)
        self._addresses: LRUCache[bytes, _Address] = LRUCache(MAX_ADDRESSES)

    def homes(self, address: bytes) -> Steps[tuple[int, ...]]:
        """Return which namespaces may have had an address, and when; all of them have the loopback addresses."""
        return self._everywhere if is_loopback(address) else self._known(address).homes

    def hearers(self, address: bytes) -> Steps[tuple[int, ...]]:
        """Return which namespaces may have taken packets to a multicast or broadcast address, and when."""
        if is_multicast(address) or is_broadcast_everywhere(address):
            return self._everywhere
        return self._known(address).hearers

    def timeline(self, query: Query, begins: Sequence[tuple[int, End]]) -> Timeline:
        """Return the answers for one end; `begins` are the beginnings of connections between its ends."""
        if query.protocol in CONNECTED:
            query = query._replace(outgoing=False)  # a connection is the same both ways
        begun = (len(begins), begins[-1]) if begins else None
        known = self._timelines.get(query)
        if known is None or known[0] != begun:
            known = self._timelines[query] = begun, self._timeline(query, begins)
        return known[1]

    def _timeline(self, query: Query, begins: Sequence[tuple[int, End]]) -> Timeline:
        sockets = self._history.sockets(
            query.netns, query.protocol, query.local_port, query.remote_address, query.remote_port
        )
        evidence = Evidence(
            name=self._history.name,
            sockets=sockets,
            coverage=self._coverage,
            tolerance_ns=self._tolerance_ns,
            users=lambda: self._history.users(query.netns, query.protocol, query.local_port),
        )
        return Timeline(query, evidence, begins)

    def _known(self, address: bytes) -> _Address:
        known = self._addresses.get(address)
        if known is None:
            recorded = self._history.addresses(address)
            known = self._addresses[address] = _Address(
                homes=self._holders([one for one in recorded if not one.broadcast]),
                hearers=self._holders([one for one in recorded if one.broadcast]),
            )
        return known

    def _holders(self, recorded: Sequence[RecordedAddress]) -> Steps[tuple[int, ...]]:
        tolerance_ns = self._tolerance_ns

        def holders(time_ns: int) -> tuple[int, ...]:
            return tuple(sorted({one.netns for one in recorded if one.span.may_cover(time_ns, tolerance_ns)}))

        return Steps((cut for one in recorded for cut in one.span.changes(tolerance_ns)), holders)

    def _is_covered(self, time_ns: int) -> bool:
        return any(
            one.first_ns - self._tolerance_ns <= time_ns <= one.last_ns + self._tolerance_ns for one in self._coverage
        )
