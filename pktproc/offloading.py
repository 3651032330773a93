"""Flows whose packets the kernel counts, wired: beside each tap a flow cache, whose readings become blocks.

What a flow begins with is handed over as ever. Once it has had some packets and both its ends are known for good, its
packets are counted where they are tapped, until something happens to it. Whoever wants sums only is spared the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import NamedTuple

import numpy as np

from pktproc.attribution.answers import AttributedBatch, Weights
from pktproc.attribution.clocks import monotonic_offset_ns
from pktproc.attribution.recent import Recent
from pktproc.capture.live import CaptureOptions, LiveCapture
from pktproc.errors import EngineError
from pktproc.kernel.ebpf.flow_cache import FlowCache, Reading, can_count
from pktproc.model import Flow, Match, Protocol, Reason
from pktproc.packets.batch import Bytes, Column, PacketBatch
from pktproc.packets.flows import FlowTable
from pktproc.packets.linktypes import LINKTYPE_ETHERNET

_NS_PER_MS = 1_000_000
READ_EVERY_NS = 100 * _NS_PER_MS
"""How old sums get in the kernel."""
LEAST_INTERVAL_NS = 2 * READ_EVERY_NS
"""Intervals that are shorter are not kept apart: a reading would be of several."""
_MIN_PACKETS = 16
_WITHIN_NS = 10_000 * _NS_PER_MS
# What these say is that ends have changed hands or may have.
_UNSETTLED = frozenset({Reason.CLOSED, Reason.AMBIGUOUS, Reason.NOT_COVERED})
# Filters that take some packets of a connection and not others may keep from us where it begins and ends.
_BY_CONTENT = re.compile(r"[\[<>=]|\b(?:less|greater|len)\b")
_MAX_CANDIDATES = 1 << 14
# Each flow cache has 4 MB of counters.
_MAX_TAPS = 8


class _Boundary(NamedTuple):
    """One time by both clocks."""

    monotonic_ns: int
    wall_ns: int


class Counted(NamedTuple):
    """A reading as a block: of each entry two rows, of its first and its last packet, the last with all its weight."""

    batch: PacketBatch
    table: FlowTable
    weights: Weights


class Offloading:
    """Have packets counted at a `layer` (see `FlowCache`); raise `EngineError` where the kernel does not.

    `clock` returns monotonic nanoseconds and `wall_clock` those since the epoch.
    """

    def __init__(
        self,
        capture: LiveCapture,
        options: CaptureOptions,
        layer: str,
        clock: Callable[[], int],
        wall_clock: Callable[[], int],
    ) -> None:
        self._capture = capture
        self._clock, self._wall_clock = clock, wall_clock
        self._caches: dict[tuple[int, int], FlowCache] = {}
        self._candidates: Recent[Flow, int] = Recent(_MAX_CANDIDATES, _WITHIN_NS, clock)
        self._waiting: list[tuple[int, FlowCache, int, Flow]] = []
        self._offers = True
        self._hides_flags = _BY_CONTENT.search(options.expression) is not None
        self._read_ns = clock()
        self._start_ns = self._width_ns = 0
        self._boundary = _Boundary(0, 0)
        if len(capture.taps) > _MAX_TAPS:
            raise EngineError(f"more than {_MAX_TAPS} interfaces")
        with ExitStack() as opened:
            for tap in capture.taps:
                cache = opened.enter_context(
                    closing(FlowCache(layer, options.way, options.snaplen, clock, tap.expression))
                )
                tap.filter_with(cache.descriptor)
                self._caches[tap.netns, tap.ifindex] = cache
            self._opened = opened.pop_all()

    @property
    def packets(self) -> int:
        """Return how many packets the kernel has counted, as far as they were read."""
        return sum(cache.packets for cache in self._caches.values())

    def divide(self, start_ns: int, width_ns: int) -> None:
        """Keep apart what comes in intervals of a width from a time on, since the epoch."""
        self._start_ns, self._width_ns = start_ns, width_ns

    def offer(self, block: AttributedBatch, *, wanted: Callable[[Flow], bool]) -> None:
        """Leave those flows of an attributed block to the kernel from now on that it can count."""
        if block.weights is not None:
            self._take_back(block)
            return
        if len(self._caches) > 1:
            self._leave_elsewhere(block)
        if not self._offers:
            return
        packets = np.bincount(block.flow_of, minlength=len(block.flows)).tolist()
        linktype = block.batch.linktype[block.first].tolist()
        for position, flow in enumerate(block.flows):
            met = packets[position] + (self._candidates.get(flow) or 0)
            if met < _MIN_PACKETS:
                self._candidates[flow] = met
                continue
            if not self._is_settled(block, position) or linktype[position] != LINKTYPE_ETHERNET or not can_count(flow):
                continue
            cache = self._cache_of(flow)
            hides = self._hides_flags and flow.protocol == Protocol.TCP
            if cache is not None and not hides and flow not in cache and wanted(flow):
                self._put(cache, flow)

    def read(self, changed: Sequence[tuple[int, int]] | None) -> list[Counted]:
        """Return what the kernel has counted, if it is time to ask it; what was handed over must have been read before.

        `changed` are protocols and ports on which sockets have begun or ended, None for perhaps all of them: each
        packet of flows there is looked at again that do not tell it themselves.
        """
        touched = self._on_ports(changed)
        given_up = any(cache.has_given_up for cache in self._caches.values())
        if not touched and not given_up and self._clock() - self._read_ns < READ_EVERY_NS:
            return []
        found = self.read_now()
        for cache, flow in touched:
            cache.remove(flow)
            self._candidates[flow] = 0
        return found

    def read_now(self) -> list[Counted]:
        """Return what the kernel has counted."""
        now_ns = self._read_ns = self._clock()
        offset_ns = monotonic_offset_ns(self._clock, self._wall_clock)
        found = []
        for cache in self._caches.values():
            reading = cache.read(now_ns) if cache.is_in_use else None
            if reading is not None:
                found.append(self._block(reading, offset_ns))
        if self._width_ns and now_ns >= self._boundary.monotonic_ns:
            self._divide_anew(now_ns, now_ns - offset_ns)
        return found

    def start(self) -> None:
        """Begin to count flows of which all earlier packets have been attributed."""
        until_ns = self._capture.handed_over_ns
        ready = [entry for entry in self._waiting if entry[0] < until_ns]
        if ready:
            self._waiting = [entry for entry in self._waiting if entry[0] >= until_ns]
            for _, cache, number, flow in ready:
                cache.start(number, flow)

    def wait_ms(self, otherwise_ms: float) -> float:
        """Return how long the caller may sleep before it is time to read."""
        if not any(cache.is_in_use for cache in self._caches.values()):
            return otherwise_ms
        due_ns = self._read_ns + READ_EVERY_NS - self._clock()
        return max(0.0, min(otherwise_ms, due_ns / _NS_PER_MS))

    def stop(self) -> None:
        """Have everything handed over from now on."""
        for cache in self._caches.values():
            cache.hand_over_all()

    def close(self) -> None:
        """Unload the programs."""
        self._opened.close()

    def _put(self, cache: FlowCache, flow: Flow) -> None:
        try:
            number = cache.put(flow)
        except EngineError:  # older kernels refuse it once privileges are dropped
            self._offers = False
            return
        if number is not None:
            self._waiting.append((self._wall_clock(), cache, number, flow))

    def _leave_elsewhere(self, block: AttributedBatch) -> None:
        """Look at all packets of flows that come by another tap as well."""
        for flow in block.flows:
            own = self._cache_of(flow)
            for cache in self._caches.values():
                if cache is not own:
                    cache.leave(flow)

    def _on_ports(self, changed: Sequence[tuple[int, int]] | None) -> list[tuple[FlowCache, Flow]]:
        return [
            (cache, flow)
            for cache in self._caches.values()
            for port in (cache.ports() if changed is None else changed)
            for flow in cache.flows_on(port)
        ]

    def _take_back(self, block: AttributedBatch) -> None:
        """Look at each packet of flows again whose ends are not known any more."""
        for position, flow in enumerate(block.flows):
            if not self._is_settled(block, position):
                cache = self._cache_of(flow)
                if cache is not None:
                    cache.remove(flow)
                    self._candidates[flow] = 0

    def _is_settled(self, block: AttributedBatch, position: int) -> bool:
        """Say whether nothing better will be known of a flow's ends soon."""
        ends = block.source[position], block.destination[position]
        unsettled = any(end and (end.reason in _UNSETTLED or end.match is Match.SHARED) for end in ends)
        return position not in block.pending and not unsettled

    def _cache_of(self, flow: Flow) -> FlowCache | None:
        """Return the cache of the only tap that sees a flow."""
        everywhere, here = self._caches.get((flow.netns, 0)), self._caches.get((flow.netns, flow.ifindex))
        return (everywhere or here) if everywhere is None or here is None else None

    def _divide_anew(self, now_ns: int, wall_ns: int) -> None:
        ahead_ns = self._width_ns - (wall_ns - self._start_ns) % self._width_ns
        self._boundary = _Boundary(now_ns + ahead_ns, wall_ns + ahead_ns)
        for cache in self._caches.values():
            cache.divide_at(self._boundary.monotonic_ns, now_ns)

    def _block(self, reading: Reading, offset_ns: int) -> Counted:
        count = 2 * len(reading.flow_of)
        flow_of = np.repeat(reading.flow_of, 2)
        first = np.zeros(len(reading.flows), np.int64)
        first[flow_of[::-1]] = np.arange(count - 1, -1, -1)
        weights = Weights(np.zeros(count, np.int64), np.zeros(count, np.int64))
        weights.packets[1::2], weights.bytes[1::2] = reading.packets, reading.bytes
        # The two clocks are compared anew each time, which must not move anything over the boundary.
        time_ns = np.stack([reading.first_ns, reading.last_ns], axis=1).reshape(-1) - offset_ns
        boundary_ns = self._boundary.wall_ns
        after = np.repeat(reading.after, 2)
        time_ns = np.where(after, np.maximum(time_ns, boundary_ns), np.minimum(time_ns, boundary_ns - 1))
        places = [self._capture.place(flow.netns, flow.ifindex) for flow in reading.flows]
        nothing: Bytes = np.zeros(0, np.uint8)
        zero: Column = np.zeros(count, np.int64)
        batch = PacketBatch(
            data=nothing,
            offset=zero,
            captured_bytes=zero,
            wire_bytes=weights.bytes,
            time_ns=time_ns,
            interface=np.array(places, np.int64)[flow_of],
            packet_type=np.zeros(count, np.uint8),
            linktype=np.full(count, LINKTYPE_ETHERNET, np.uint16),
            interfaces=self._capture.interfaces,
        )
        table = FlowTable(flow_of, reading.flows, first, np.zeros(len(first), bool), [])
        return Counted(batch, table, weights)
