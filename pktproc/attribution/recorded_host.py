"""A recorded host as the join sees it: which of its namespaces had an address, and whose its ends were, at a time."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from cachetools import LRUCache

from pktproc.attribution.covering import Covering
from pktproc.attribution.engine import Query
from pktproc.attribution.eras import End
from pktproc.attribution.history import History, RecordedAddress, RecordedSocket
from pktproc.attribution.locality import is_broadcast_everywhere, is_loopback, is_multicast
from pktproc.attribution.records import Records
from pktproc.attribution.steps import Step, Steps, meet
from pktproc.attribution.testified import Testified
from pktproc.attribution.timeline import AFTERLIFE_NS, CONNECTED, Evidence, Timeline
from pktproc.model import Attribution, Flow

MAX_ADDRESSES = 1 << 14
# As so many sockets count what is known of a port and of an end, about 3 kB each; what has none counts as one.
MAX_PORT_SOCKETS = 1 << 15
MAX_END_SOCKETS = 1 << 14
# As so many uses counts what was told of an end, about 1 kB each; of which nothing was told, it counts as one.
MAX_END_USES = 1 << 15
# Of more namespaces those are left out that have no socket for a flow between addresses that all of them have.
MANY_NAMESPACES = 8

_NONE = Records((), 0)
_UNTOLD: Step[Attribution | None] = Step(None, None, None)
_Begun = tuple[int, tuple[int, End], tuple[int, End]] | None


class _Address(NamedTuple):
    homes: Steps[tuple[int, ...]]
    hearers: Steps[tuple[int, ...]]


class _End(NamedTuple):
    begun: _Begun
    sockets: int
    timeline: Timeline


class RecordedHost:
    """Answer from one `History`; a fact whose limits nobody saw is taken to have held for `tolerance_ns` more.

    `covering` says when recording ran.
    """

    def __init__(self, history: History, tolerance_ns: int) -> None:
        self._history = history
        self._tolerance_ns = tolerance_ns
        self.covering = Covering(tuple(history.coverage()), tolerance_ns)
        self._namespaces = tuple(sorted(history.namespaces()))
        self._ends: LRUCache[Query, _End] = LRUCache(MAX_END_SOCKETS, lambda end: min(end.sockets, MAX_END_SOCKETS))
        self._free: LRUCache[tuple[int, int, int], Records] = LRUCache(
            MAX_PORT_SOCKETS, lambda records: min(1 + len(records.all), MAX_PORT_SOCKETS)
        )
        self._addresses: LRUCache[bytes, _Address] = LRUCache(MAX_ADDRESSES)
        self._testimonies = tuple(history.testimonies())
        self._told: LRUCache[Query, tuple[Testified, ...]] = LRUCache(
            MAX_END_USES, lambda told: min(sum(map(len, told)) + 1, MAX_END_USES)
        )

    def homes(self, address: bytes, flow: Flow) -> Steps[tuple[int, ...]]:
        """Return which namespaces may have had an address of a flow, and when; all have the loopback addresses."""
        return self._everywhere(flow) if is_loopback(address) else self._known(address).homes

    def hearers(self, address: bytes, flow: Flow) -> Steps[tuple[int, ...]]:
        """Return which namespaces may have taken a flow's packets to a multicast or broadcast address, and when."""
        if is_multicast(address) or is_broadcast_everywhere(address):
            return self._everywhere(flow)
        return self._known(address).hearers

    def _everywhere(self, flow: Flow) -> Steps[tuple[int, ...]]:
        """Return all namespaces; of many that have no socket for a flow one stands for the others."""
        namespaces = self._namespaces
        if len(namespaces) > MANY_NAMESPACES:
            subject = flow.quoted or flow
            used: set[int] = set()
            for port in {subject.source_port, subject.destination_port}:
                used |= self._history.namespaces_with(subject.protocol, port)
            others = (netns for netns in namespaces if netns not in used)
            namespaces = (*sorted(used), *islice(others, 1))
        return Steps((), lambda _: namespaces)

    @property
    def is_witnessed(self) -> bool:
        """Say whether a witness told anything while this host was recorded."""
        return bool(self._testimonies)

    def testified(self, query: Query, time_ns: int) -> Step[Attribution | None]:
        """Return the answer that a witness gave for one end at a time, None for none, and how long it holds."""
        if not self._testimonies:
            return _UNTOLD
        told = self._told.get(query)
        if told is None:
            told = self._told[query] = tuple(Testified(query, testimony) for testimony in self._testimonies)
        steps = [one.at(time_ns) for one in told]
        return meet(next((step.value for step in steps if step.value), None), steps)

    def timeline(self, query: Query, begins: Sequence[tuple[int, End]]) -> Timeline:
        """Return the answers for one end; `begins` are the beginnings of connections between its ends."""
        if query.protocol in CONNECTED:
            query = query._replace(outgoing=False)  # a connection is the same both ways
        begun = (len(begins), begins[0], begins[-1]) if begins else None
        known = self._ends.get(query)
        if known is None or known.begun != begun:
            connected = self._connected(query)
            timeline = Timeline(query, self._evidence(query, connected), begins)
            known = self._ends[query] = _End(begun, 1 + len(connected) + len(begins), timeline)
        return known.timeline

    def _evidence(self, query: Query, connected: Sequence[RecordedSocket]) -> Evidence:
        port = (*query[:2], query.local_port)
        free = self._free.get(port)
        if free is None:
            records = self.covering.clipped_sockets(self._history.free(*port))
            free = self._free[port] = Records(records, self._tolerance_ns) if records else _NONE
        return Evidence(
            name=self._history.name,
            connected=Records(connected, self._tolerance_ns, AFTERLIFE_NS) if connected else _NONE,
            free=free,
            covering=self.covering,
            tolerance_ns=self._tolerance_ns,
            users=lambda first_ns, last_ns: self._history.users(*port, first_ns, last_ns),
        )

    def _connected(self, query: Query) -> Sequence[RecordedSocket]:
        """Return the sockets that are connected with just the ends of a query."""
        found = self._history.connected(
            query.netns, query.protocol, query.local_port, query.remote_address, query.remote_port
        )
        return self.covering.clipped_sockets([recorded for recorded in found if recorded.socket[:6] == query[:6]])

    def _known(self, address: bytes) -> _Address:
        known = self._addresses.get(address)
        if known is None:
            recorded = [one._replace(span=self.covering.clipped(one.span)) for one in self._history.addresses(address)]
            known = self._addresses[address] = _Address(
                homes=self._having([one for one in recorded if not one.broadcast]),
                hearers=self._having([one for one in recorded if one.broadcast]),
            )
        return known

    def _having(self, recorded: Sequence[RecordedAddress]) -> Steps[tuple[int, ...]]:
        tolerance_ns = self._tolerance_ns

        def having(time_ns: int) -> tuple[int, ...]:
            return tuple(sorted({one.netns for one in recorded if one.span.may_cover(time_ns, tolerance_ns)}))

        return Steps((cut for one in recorded for cut in one.span.changes(tolerance_ns)), having)
