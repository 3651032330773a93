"""When the bytes of each slot came: sparse sums for each interval in which a slot had packets."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pktproc.bandwidth.slots import Slots
from pktproc.packets.batch import Column

MAX_ENTRIES = 1 << 18
"""Pairs of interval and slot that are kept; beyond, earlier intervals know owners alone instead of flows.

If that does not help, intervals are joined in pairs, or the oldest are given up.
"""
_MERGE_ABOVE = 1 << 17
_DETAILED = 2
_DENSE = 4
"""Sums are made in a table of all pairs if that has at most so many places for each packet."""


class Entries(NamedTuple):
    """Sums of a slot in an interval: int64 columns of one length, in no order, pairs possibly several times."""

    interval: Column
    slot: Column
    bytes: Column
    packets: Column

    @classmethod
    def joined(cls, parts: list[Entries]) -> Entries:
        """Return the entries of several parts."""
        if not parts:
            return cls(*(np.zeros(0, np.int64) for _ in range(4)))
        return parts[0] if len(parts) == 1 else cls(*map(np.concatenate, zip(*parts, strict=True)))

    def where(self, wanted: Column) -> Entries:
        """Return some of the entries."""
        return self if wanted.all() else Entries(*(column[wanted] for column in self))

    def merged(self) -> Entries:
        """Return one entry for each pair."""
        if not len(self.slot):
            return self
        first, span = int(self.interval.min()), int(self.slot.max()) + 1
        keys, number = np.unique((self.interval - first) * span + self.slot, return_inverse=True)
        return Entries(keys // span + first, keys % span, _sums(number, self.bytes, len(keys)),
                       _sums(number, self.packets, len(keys)))  # fmt: skip


StandIns = Callable[[Column], Column]


class Intervals:
    """Collect entries; intervals are numbered from `start_ns` on and `width_ns` wide.

    The last one is kept in the slots' `open_*` columns until it is over. `keep` is how many of the latest intervals are
    kept at least, None for all; then they are made twice as wide where there is no room for more. `stand_ins` returns
    for slots the ones that stand for their owners, None where a view needs more than these. `first_kept` is the
    earliest interval of which nothing was given up, `first_detailed` the earliest whose entries know more than owners.
    """

    def __init__(self, slots: Slots, width_ns: int, keep: int | None, stand_ins: StandIns | None = None) -> None:
        self.width_ns = width_ns
        self.start_ns: int | None = None
        self._slots = slots
        self._keep = keep
        self._stand_ins = stand_ins
        self._open = 0
        self._parts: list[Entries] = []
        self._held = self._merged = 0
        self.first_kept = self.first_detailed = 0

    def start(self, time_ns: int) -> None:
        """Begin the first interval, unless there is one."""
        if self.start_ns is None:
            self.start_ns = time_ns

    def of(self, time_ns: int) -> int:
        """Return the number of the interval of a time."""
        return (time_ns - (self.start_ns or 0)) // self.width_ns

    def is_open(self, first_ns: int, last_ns: int) -> bool:
        """Say whether both times are in the interval that is not over, which is the one of `last_ns` from now on."""
        if self.of(last_ns) > self._open:
            self._close()
            self._open = self.of(last_ns)  # by the width of now, which closing may have changed
        return self.of(first_ns) == self.of(last_ns) == self._open

    def add(
        self, slot: Column, number_of: Column, sizes: Column, time_ns: Column, counts: Column | None = None
    ) -> None:
        """Add packets of any times: `slot[number_of]` is the slot of each, `sizes` its bytes.

        With `counts` an entry stands for so many packets.
        """
        interval = (time_ns - (self.start_ns or 0)) // self.width_ns
        first, count = int(interval.min()), len(slot)
        span = int(interval.max()) - first + 1
        keys = (interval - first) * count + number_of
        if span * count <= _DENSE * len(keys):
            packets = np.bincount(keys, minlength=span * count)
            met = np.flatnonzero(packets)
            if counts is not None:
                packets = np.bincount(keys, counts, span * count).astype(np.int64)
            packets, size = packets[met], np.bincount(keys, sizes, span * count)[met].astype(np.int64)
        else:
            met, number = np.unique(keys, return_inverse=True)
            packets = np.bincount(number) if counts is None else _sums(number, counts, len(met))
            size = _sums(number, sizes, len(met))
        self._keep_entries(Entries(met // count + first, slot[met % count], size, packets))

    def entries(self) -> Entries:
        """Return all entries, those of the open interval included."""
        self._close()
        self._parts = [Entries.joined(self._parts)]
        return self._parts[0]

    def move(self, to: Column) -> None:
        """Give the entries of each slot to the slot `to[slot]`."""
        self._close()
        joined = Entries.joined(self._parts)
        self._parts = [joined._replace(slot=to[joined.slot]).merged()]
        self._held = self._merged = len(self._parts[0].slot)

    def _close(self) -> None:
        slots = self._slots
        met = np.flatnonzero(slots.open_packets[: slots.count])
        if len(met):
            interval = np.full(len(met), self._open)
            self._keep_entries(Entries(interval, met, slots.open_bytes[met], slots.open_packets[met]))
            slots.open_packets[met] = slots.open_bytes[met] = 0

    def _keep_entries(self, entries: Entries) -> None:
        self._parts.append(entries)
        self._held += len(entries.slot)
        if self._held < max(_MERGE_ABOVE, 2 * self._merged):
            return
        entries = Entries.joined(self._parts)
        if self._keep is not None:
            entries = self._since(self._open - self._keep + 1, entries)
        if len(entries.slot) > MAX_ENTRIES and self._stand_ins is not None:
            entries = self._without_detail(entries, self._stand_ins)
        if len(entries.slot) > MAX_ENTRIES or self._stand_ins is None:
            entries = entries.merged()
        while len(entries.slot) > MAX_ENTRIES and int(entries.interval.max()) - int(entries.interval.min()) > 1:
            entries = self._coarser(entries)
        self._parts, self._held = [entries], len(entries.slot)
        self._merged = self._held

    def _without_detail(self, entries: Entries, stand_ins: StandIns) -> Entries:
        self.first_detailed = max(self._open - _DETAILED, self.first_detailed)
        earlier = entries.interval < self._open - _DETAILED
        of_owners = entries.where(earlier)
        of_owners = of_owners._replace(slot=stand_ins(of_owners.slot)).merged()
        return Entries.joined([of_owners, entries.where(~earlier)])

    def _since(self, first: int, entries: Entries) -> Entries:
        """Give up the intervals before one."""
        self.first_kept = max(first, self.first_kept)
        return entries.where(entries.interval >= first)

    def _coarser(self, entries: Entries) -> Entries:
        if self._keep is not None:
            return self._since(int(np.floor(np.median(entries.interval))) + 1, entries)
        self.width_ns *= 2
        self._open >>= 1
        self.first_detailed = -(-self.first_detailed // 2)
        return entries._replace(interval=entries.interval >> 1).merged()


def _sums(number: Column, values: Column, count: int) -> Column:
    sums = np.zeros(count, np.int64)
    np.add.at(sums, number, values)
    return sums
