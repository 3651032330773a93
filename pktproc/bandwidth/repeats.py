"""The same packet seen on several interfaces, recognised so that it counts once.

A packet that crosses a bridge, a veth pair or a router passes several taps within a moment. Its IP header is the same
there but for the hops left and the checksums, and so is what follows. Equal packets on one interface are different
ones (sent again); the n-th on one interface is the n-th on another.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pktproc.model import Flow, Protocol
from pktproc.packets.batch import Column, PacketBatch
from pktproc.packets.columns import Columns

WITHIN_NS = 1_000_000_000
"""How far apart the sightings of one packet can be."""
MAX_PATHS = 1 << 17
"""Ends of flows of which it is known on which interface they were seen first; beyond, the oldest are forgotten."""
MAX_REMEMBERED = 1 << 16
"""Packets that are remembered; beyond, the oldest are forgotten."""

_WINDOW = 96
_LINK_BYTES = 14
_MULTIPLIERS = np.frombuffer(np.random.default_rng().bytes(8 * _WINDOW // 4 + 16), np.uint64) | np.uint64(1)
_CHECKSUM_AT = {int(Protocol.TCP): 16, int(Protocol.UDP): 6, int(Protocol.UDPLITE): 6, int(Protocol.ICMP): 2,
                int(Protocol.ICMPV6): 2}  # fmt: skip
_Path = tuple[object, ...]


class _First(NamedTuple):
    """On which interface a path was seen first, until when it is young, and how many paths there were before."""

    interface: tuple[int, int]
    until_ns: int
    order: int


class Repeats:
    """Tell which packets of a block were counted on another interface already; `forgotten` counts what had no room."""

    def __init__(self) -> None:
        self.forgotten = 0
        self._first: dict[_Path, _First] = {}
        self._several: set[_Path] = set()
        self._met = 0
        self._on_interface = _Counts()
        self._anywhere = _Counts()

    def learn(self, flows: list[Flow]) -> None:
        """Take note of flows that were counted before anybody asked."""
        for flow in flows:
            self._first.setdefault(_path(flow), _First(flow[:2], 0, self._met))
            self._met += 1

    def find(self, batch: PacketBatch, columns: Columns, flows: list[Flow], flow_of: Column, rows: Column) -> Column:
        """Return a bool for each of the rows: whether its packet was counted before."""
        now_ns = int(batch.time_ns[rows[-1]])
        suspects = self._suspects(batch, flows, now_ns)
        repeated = np.zeros(len(rows), bool)
        if suspects is None:
            return repeated
        among = np.flatnonzero(suspects[flow_of[rows]])
        if len(among):
            repeated[among] = self._repeated(batch, columns, rows[among], now_ns)
        return repeated

    def _suspects(self, batch: PacketBatch, flows: list[Flow], now_ns: int) -> Column | None:
        """Return the flows whose packets have to be looked at: seen on several interfaces, or too young to tell."""
        loopback = {(one.netns, one.ifindex) for one in batch.interfaces if one.loopback}
        asked = [(position, flow[:2], _path(flow)) for position, flow in enumerate(flows) if flow[:2] not in loopback]
        young: list[int] = []
        for position, interface, path in asked:
            first = self._first.get(path)
            if first is None:
                self._first[path] = first = _First(interface, now_ns + WITHIN_NS, self._met)
                self._met += 1
            elif first.interface != interface:
                self._several.add(path)
            if now_ns < first.until_ns:
                young.append(position)
        met = [position for position, _, path in asked if path in self._several] if self._several else []
        found = np.zeros(len(flows), bool)
        found[young + met] = True
        while len(self._first) > MAX_PATHS:
            oldest = next(iter(self._first))
            del self._first[oldest]
            self._several.discard(oldest)
        return found if young or met else None

    def is_single(self, flow: Flow, now_ns: int) -> bool:
        """Say whether a flow was seen on one interface, long enough to have been seen on others as well."""
        path = _path(flow)
        first = self._first.get(path)
        return first is not None and now_ns >= first.until_ns and path not in self._several

    def is_copy(self, flow: Flow) -> bool:
        """Say whether a flow or its answers, whichever came first, was first seen on another interface."""
        path = _path(flow)
        back = (path[0], *path[3:5], *path[1:3], *path[5:])
        known = [first for first in (self._first.get(path), self._first.get(back)) if first is not None]
        return bool(known) and min(known, key=lambda first: first.order).interface != flow[:2]

    def _repeated(self, batch: PacketBatch, columns: Columns, rows: Column, now_ns: int) -> Column:
        print_ = fingerprints(batch, columns, rows)
        interface = batch.interface[rows].astype(np.uint64) + np.uint64(1)
        here = print_ ^ (interface * np.uint64(0x9E3779B97F4A7C15))
        met, number = np.unique(here, return_inverse=True)
        before = self._on_interface.get(met)
        order = np.argsort(number, kind="stable")
        rank = np.empty(len(rows), np.int64)
        sizes = np.bincount(number, minlength=len(met))
        rank[order] = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        nth = before[number] + rank + 1
        self._on_interface.put(met, before + sizes, now_ns)
        anywhere, of = np.unique(print_, return_inverse=True)
        counted = self._anywhere.get(anywhere)
        which = print_ ^ (nth.astype(np.uint64) * np.uint64(0xC2B2AE3D27D4EB4F))
        first = np.zeros(len(rows), bool)
        first[np.unique(which, return_index=True)[1]] = True
        repeated: Column = ~first | (nth <= counted[of])
        np.maximum.at(counted, of, nth)
        self._anywhere.put(anywhere, counted, now_ns)
        self.forgotten += self._on_interface.prune(now_ns) + self._anywhere.prune(now_ns)
        return repeated


class _Counts:
    """A number for each key (uint64), forgotten some time after it was put."""

    def __init__(self) -> None:
        self._keys = np.zeros(0, np.uint64)
        self._values = np.zeros(0, np.int64)
        self._times = np.zeros(0, np.int64)

    def get(self, keys: Column) -> Column:
        """Return the values of keys, 0 for those that are not known."""
        if not len(self._keys):
            return np.zeros(len(keys), np.int64)
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[place] == keys, self._values[place], 0)

    def put(self, keys: Column, values: Column, time_ns: int) -> None:
        """Set the values of sorted, distinct keys."""
        place = np.searchsorted(self._keys, keys)
        known = np.zeros(len(keys), bool)
        inside = place < len(self._keys)
        known[inside] = self._keys[place[inside]] == keys[inside]
        self._values[place[known]], self._times[place[known]] = values[known], time_ns
        if not known.all():
            fresh = ~known
            self._keys = np.insert(self._keys, place[fresh], keys[fresh])
            self._values = np.insert(self._values, place[fresh], values[fresh])
            self._times = np.insert(self._times, place[fresh], time_ns)

    def prune(self, now_ns: int) -> int:
        """Forget what is old, and more if there is no room; return how many were forgotten too early."""
        if len(self._keys) <= MAX_REMEMBERED >> 3:
            return 0
        kept = self._times >= now_ns - WITHIN_NS
        early = int(kept.sum()) - MAX_REMEMBERED
        if early > 0:
            kept &= self._times >= np.partition(self._times[kept], early)[early]
        self._keys, self._values, self._times = self._keys[kept], self._values[kept], self._times[kept]
        return max(early, 0)


def _path(flow: Flow) -> _Path:
    return flow[3:10]


def fingerprints(batch: PacketBatch, columns: Columns, rows: Column) -> Column:
    """Return a uint64 for each packet, equal for equal packets, whatever the hops left and the checksums."""
    is_ip = columns.network[rows] != 0
    start = np.where(is_ip, columns.network_offset[rows], batch.offset[rows] + _LINK_BYTES)
    end = (batch.offset + batch.captured_bytes)[rows]
    at = start[:, None] + np.arange(_WINDOW)
    inside = (at < np.minimum(end, len(batch.data))[:, None]) & (at >= 0)
    window = np.where(inside, batch.data[np.where(inside, at, 0)], 0).astype(np.uint8)
    v4, v6 = columns.network[rows] == 4, columns.network[rows] == 6
    for rows_of, places in ((v4, (1, 8, 10, 11)), (v6, (7,))):
        for place in places:
            window[rows_of, place] = 0
    header_bytes = columns.transport_offset[rows] - start
    for protocol, offset in _CHECKSUM_AT.items():
        chosen = np.flatnonzero((columns.protocol[rows] == protocol) & (columns.transport_offset[rows] >= 0))
        for place in (offset, offset + 1):
            within = chosen[header_bytes[chosen] + place < _WINDOW]
            window[within, header_bytes[within] + place] = 0
    hashed = np.zeros(len(rows), np.uint64)
    for word, multiplier in zip(window.view(np.uint32).T, _MULTIPLIERS, strict=False):
        hashed += np.multiply(word, multiplier, dtype=np.uint64)
    return hashed ^ (hashed >> np.uint64(32))
