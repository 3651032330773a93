"""Slots summed into the rows of a view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pktproc.bandwidth.dimensions import PASSED, RECEIVED, SENT, Coded, Coder, Postings, combine
from pktproc.bandwidth.intervals import Entries
from pktproc.bandwidth.slots import Slots
from pktproc.bandwidth.views import Amount
from pktproc.packets.batch import Column

FIGURES = Amount._fields
_SENT_BYTES, _RECEIVED_BYTES, _SENT_PACKETS, _RECEIVED_PACKETS = 0, 1, 2, 3
_LOCAL_SENT, _LOCAL_RECEIVED, _PASSED_BYTES, _PASSED_PACKETS = 4, 5, 6, 7
_BYTES = (_SENT_BYTES, _RECEIVED_BYTES, _PASSED_BYTES)


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of some postings: `number` (int64) has each posting's; `codes` are those of each group."""

    postings: Postings
    number: Column
    parts: Sequence[Coded]
    codes: list[tuple[int, ...]]

    def __len__(self) -> int:
        return len(self.codes)

    def key(self, group: int) -> tuple[str, ...]:
        """Return the texts of a group."""
        return tuple(part.text(code) for part, code in zip(self.parts, self.codes[group], strict=True))


def group(coder: Coder, slots: Slots, by: Sequence[str]) -> Groups:
    """Group all postings of the ledger by some dimensions."""
    postings = Postings.of(slots)
    parts = [coder.code(dimension, postings) for dimension in by]
    number, codes = combine(parts)
    return Groups(postings, number, parts, codes)


def figures(slots: Slots, postings: Postings, number: Column, amounts: tuple[Column, Column], count: int) -> Column:
    """Return the sums of postings by `number`, (8, count) int64 in the order of `Amount`.

    `amounts` are bytes and packets of each. A posting counts at its own side, and as local too where the slot's other
    end is here.
    """
    found = np.zeros((len(FIGURES), count), np.int64)
    for side, of_bytes, of_packets, of_local in (
        (SENT, _SENT_BYTES, _SENT_PACKETS, _LOCAL_SENT),
        (RECEIVED, _RECEIVED_BYTES, _RECEIVED_PACKETS, _LOCAL_RECEIVED),
        (PASSED, _PASSED_BYTES, _PASSED_PACKETS, None),
    ):
        here = np.flatnonzero(postings.side == side)
        if not len(here):
            continue
        slot, place = postings.slot[here], number[here]
        size, packets = amounts[0][here], amounts[1][here]
        found[of_bytes], found[of_packets] = sums(place, size, count), sums(place, packets, count)
        if of_local is not None:
            local = np.flatnonzero((slots.source_owner[slot] >= 0) & (slots.destination_owner[slot] >= 0))
            found[of_local] = sums(place[local], size[local], count)
    return found


def sums(number: Column, values: Column, count: int) -> Column:
    """Return the int64 sums of values by number, exact."""
    if int(values.sum()) < _EXACT_IN_FLOATS:
        return np.bincount(number, values, count).astype(np.int64)
    found = np.zeros(count, np.int64)
    np.add.at(found, number, values)
    return found


_EXACT_IN_FLOATS = 1 << 53
_DENSE = 1 << 20


@dataclass(frozen=True, slots=True)
class Course:
    """What the groups moved in each interval: sorted pairs of group and interval with their figures (8, n) int64."""

    group: Column
    interval: Column
    figures: Column

    def peak(self, count: int) -> Column:
        """Return for each group the largest of each figure in one interval, (8, count)."""
        found = np.zeros((len(self.figures), count), np.int64)
        for row, column in zip(found, self.figures, strict=True):
            np.maximum.at(row, self.group, column)
        return found

    def between(self, first: int, last: int, count: int) -> Column:
        """Return the sums of the figures of some intervals, both ends included, by group, (8, count)."""
        found = np.zeros((len(self.figures), count), np.int64)
        chosen = (self.interval >= first) & (self.interval <= last)
        for row, column in zip(found, self.figures, strict=True):
            np.add.at(row, self.group[chosen], column[chosen])
        return found

    def history(self, last: int, length: int, wanted: Column, count: int) -> Column:
        """Return the bytes of some groups in the intervals up to `last`, (wanted, length) int64."""
        place = np.full(count, -1)
        place[wanted] = np.arange(len(wanted))
        chosen = (self.interval > last - length) & (self.interval <= last) & (place[self.group] >= 0)
        found = np.zeros((len(wanted), length), np.int64)
        size = self.figures[list(_BYTES)].sum(axis=0)
        found[place[self.group[chosen]], self.interval[chosen] - (last - length + 1)] = size[chosen]
        return found


def course(slots: Slots, groups: Groups, entries: Entries) -> Course:
    """Return what groups moved in each interval, by the entries of the slots."""
    first = int(entries.interval.min()) if len(entries.slot) else 0
    span = int(entries.interval.max()) - first + 1 if len(entries.slot) else 1
    chosen, sides, keys = [], [], []
    for side in (SENT, RECEIVED, PASSED):
        mine = groups.postings.side == side
        if not mine.any():
            continue
        number = np.full(slots.count, -1)
        number[groups.postings.slot[mine]] = groups.number[mine]
        of_entry = number[entries.slot]
        counted = np.flatnonzero(of_entry >= 0)
        chosen.append(counted)
        sides.append(np.full(len(counted), side))
        keys.append(of_entry[counted] * span + entries.interval[counted] - first)
    if not keys:
        nothing = np.zeros(0, np.int64)
        return Course(nothing, nothing, np.zeros((len(FIGURES), 0), np.int64))
    entry, key = np.concatenate(chosen), np.concatenate(keys)
    posted = Postings(entries.slot[entry], np.concatenate(sides), entry)
    amounts = entries.bytes[entry], entries.packets[entry]
    size = len(groups) * span
    if size <= _DENSE:
        found = figures(slots, posted, key, amounts, size)
        met = np.flatnonzero(found[[_SENT_PACKETS, _RECEIVED_PACKETS, _PASSED_PACKETS]].any(axis=0))
        found = found[:, met]
    else:
        met, place = np.unique(key, return_inverse=True)
        found = figures(slots, posted, place.reshape(-1), amounts, len(met))
    return Course(met // span, met % span + first, found)
