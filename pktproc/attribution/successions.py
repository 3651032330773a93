"""Since when a pair of ends has had its present owner: addresses and ports pass from one process to the next."""

from __future__ import annotations

from collections.abc import Callable

from pktproc.attribution.clocks import monotonic_offset_ns
from pktproc.attribution.engine import Ends, Query, asked_ends
from pktproc.attribution.recent import Recent
from pktproc.model import DATAGRAM, Process

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

MAX_ENDS = 1 << 15
# A block that holds packets of two owners of the same ends is handled within this time.
CHANGE_TTL_NS = NS_PER_S
# How far off the times of packets may be by the monotonic clock.
CLOCK_ERROR_NS = NS_PER_MS // 10
# So long the difference of the clocks is taken for the same; a wall clock is seldom set.
OFFSET_TTL_NS = 10 * NS_PER_MS
# The kernel tells when a process started in ticks of 10 ms (USER_HZ).
START_GRAIN_NS = 10 * NS_PER_MS
_EPHEMERAL_PORTS = range(32768, 61000)  # net.ipv4.ip_local_port_range by default; chosen at random, so never soon again


class Successions:
    """Remember which ends opened a connection or changed hands, and when.

    `clock` returns monotonic nanoseconds, which all times in here are, and `wall_clock` those since the epoch.
    """

    def __init__(self, clock: Callable[[], int], wall_clock: Callable[[], int]) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._offset = 0
        self._offset_until_ns = -1
        self._clients: Recent[Ends, bool] = Recent(MAX_ENDS, CHANGE_TTL_NS, clock)
        self._changed: Recent[Ends, int] = Recent(MAX_ENDS, CHANGE_TTL_NS, clock)

    def _offset_ns(self) -> int:
        now = self._clock()
        if now > self._offset_until_ns:
            self._offset = monotonic_offset_ns(self._clock, self._wall_clock)
            self._offset_until_ns = now + OFFSET_TTL_NS
        return self._offset

    def opens(self, query: Query) -> None:
        """Take note that an end on this host opens a connection."""
        self._clients[asked_ends(query)] = True

    def changed(self, ends: Ends, since_ns: int) -> None:
        """Take note that packets before a time may be an earlier owner's."""
        self._changed[ends] = max(since_ns, self._changed.get(ends) or since_ns)

    def mixes_owners(self, query: Query, packet_ns: int) -> bool:
        """Say whether a block whose first packet is of `packet_ns` may hold packets of an earlier owner of the ends."""
        return packet_ns < (self._changed.get(asked_ends(query)) or 0)

    def comes_later(self, process: Process | None, query: Query, packet_ns: int) -> bool:
        """Say whether the owner in a cached answer may be a later one than a packet's: sightings overtake blocks."""
        return self.mixes_owners(query, packet_ns) or (
            process is not None and self.may_be_younger(process, query, packet_ns)
        )

    def may_be_younger(self, process: Process, query: Query, packet_ns: int) -> bool:
        """Say whether a packet may be older than the process that now has its port.

        A port of a program's own choice can be taken again within a millisecond, sooner than any notice comes. Of TCP
        that concerns clients alone: a server's connection can belong to a child that was born to serve it. On ports
        that the kernel gives only what is younger for certain counts, or most young clients would have no answer.
        """
        if query.protocol not in DATAGRAM and asked_ends(query) not in self._clients:
            return False
        sent_ns = packet_ns - self._offset_ns()
        if query.local_port in _EPHEMERAL_PORTS:
            return process.start_ns - CLOCK_ERROR_NS > sent_ns
        return process.start_ns + START_GRAIN_NS > sent_ns
