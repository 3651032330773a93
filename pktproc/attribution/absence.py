"""Whether no socket was there, or one has come and gone before it was asked for."""

from __future__ import annotations

from collections.abc import Callable

from cachetools import TTLCache

from pktproc.attribution.endings import MAX_ENDED, PAST_TTL_NS
from pktproc.attribution.engine import Ended, Ends, Query, ends_of, possible_ends
from pktproc.model import Protocol

# The kernel tells of the ends of these alone (sock_diag_broadcast_destroy in net/core/sock_diag.c).
_TOLD = frozenset({Protocol.TCP, Protocol.UDP})


class Absence:
    """Remember when the ends of sockets were heard; `clock` returns monotonic nanoseconds.

    With `hears_ends` a socket that lived at a packet's time and could not be found is one whose end was heard since.
    Without notices, nothing tells it from one that never was, since any look comes after the packet.
    """

    def __init__(self, clock: Callable[[], int], *, hears_ends: bool) -> None:
        self._clock = clock
        self._hears_ends = hears_ends
        self._heard: TTLCache[Ends, int] = TTLCache(MAX_ENDED, PAST_TTL_NS, timer=clock)
        self._lost_ns: int | None = None

    def note(self, ended: Ended) -> None:
        """Take note of ends that were heard, and of some that were lost."""
        now = self._clock()
        for socket in ended.sockets:
            self._heard[ends_of(socket)] = now
        if ended.lost:
            self._lost_ns = now

    def is_proven(self, query: Query, since_ns: int) -> bool:
        """Say whether no socket that fits a query can have ended between a time and now."""
        return self._hears_ends and query.protocol in _TOLD and not self.is_refuted(query, since_ns)

    def is_refuted(self, query: Query, since_ns: int) -> bool:
        """Say whether the end of a socket that fits a query was heard since a time, or may have been missed."""
        if self._lost_ns is not None and self._lost_ns >= since_ns:
            return True
        return any(self._heard.get(ends, since_ns - 1) >= since_ns for ends in possible_ends(query))
