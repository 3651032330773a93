"""Groups as the rows of a view, and the connections of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from pktproc.bandwidth.conversations import Conversations
from pktproc.bandwidth.dimensions import RECEIVED, Coder, Postings
from pktproc.bandwidth.grouping import Groups, course, figures, sums
from pktproc.bandwidth.intervals import Entries, Intervals
from pktproc.bandwidth.owners import Owner, OwnerTable
from pktproc.bandwidth.slots import Slots
from pktproc.bandwidth.views import Amount, Connection, Connections, Row
from pktproc.model import Process, Reason
from pktproc.packets.batch import Column

HISTORY = 60
OTHER_ROWS = "others"
"""The key, in every dimension, of the row that stands for all that a view leaves out."""
LATELY_NS = 10_000_000_000
"""A connection is open if it had a packet within this time."""
ORDERS = ("total", "sent", "received", "packets", "mean", "peak", "connections", "first", "last", "name")
"""What rows can be in order of: figures and the last packet from the largest down, the first one and names up."""
_NS_PER_S = 1_000_000_000
_BYTES = [0, 1, 6]


class Times(NamedTuple):
    """When a view is made: now, and how long it is since counting began; rates are of intervals `first` to `latest`."""

    now_ns: int
    elapsed_s: float
    width_ns: int
    first: int
    latest: int

    @classmethod
    def of(
        cls, intervals: Intervals, now_ns: int, elapsed_ns: int, whole: int, rate_ns: int, *, detailed: bool
    ) -> Self:
        """Return the times of a view; `whole` is the latest interval that is over.

        Rates are of so many intervals up to that one as come nearest to `rate_ns`, as far as they are known, where
        `detailed` by flow. Until one is over, all that there is has to do.
        """
        first = whole - max(round(rate_ns / intervals.width_ns), 1) + 1
        known = max(intervals.first_kept, intervals.first_detailed if detailed else 0)
        latest = whole if whole >= 0 else max(intervals.of(now_ns), 0)
        return cls(now_ns, elapsed_ns / _NS_PER_S, intervals.width_ns, min(max(first, known), latest), latest)

    @property
    def interval_s(self) -> float:
        """Return what peaks are taken over: an interval, or all the time if that is shorter."""
        width_s = self.width_ns / _NS_PER_S
        return min(width_s, self.elapsed_s) or width_s

    @property
    def mean_s(self) -> float:
        """Return what means are taken over: all the time, an interval if there was but a moment."""
        return self.elapsed_s or self.interval_s

    @property
    def rate_s(self) -> float:
        """Return what rates are taken over: these intervals, or all the time if that is shorter."""
        return min((self.latest - self.first + 1) * self.width_ns / _NS_PER_S, self.mean_s)


class Books(NamedTuple):
    """What rows are made from."""

    slots: Slots
    owners: OwnerTable
    conversations: Conversations
    entries: Entries


class RowMaker:
    """Make rows; with `remembers_peaks` those of intervals that are not kept any more are remembered by view."""

    def __init__(self, *, remembers_peaks: bool) -> None:
        self._remembers_peaks = remembers_peaks
        self._peaks: dict[tuple[str, ...], dict[tuple[str, ...], Column]] = {}

    def rows(
        self, books: Books, groups: Groups, times: Times, by: tuple[str, ...], *, most: int | None, sort: str
    ) -> tuple[Row, ...]:
        """Return a row for each group, in an order of `ORDERS`; beyond `most` all in one."""
        if not len(groups):
            return ()
        order = self._order(books, groups, times, sort)
        keys = [groups.key(number) for number in order[:most].tolist()]
        if most is not None and len(order) > most:
            keys.append((OTHER_ROWS,) * len(by))
        place = np.full(len(order), len(keys) - 1)
        place[order[:most]] = np.arange(len(order[:most]))
        groups = Groups(groups.postings, place[groups.number], groups.parts, [()] * len(keys))
        return self._make(books, groups, keys, times, by)

    def _order(self, books: Books, groups: Groups, times: Times, sort: str) -> Column:
        """Return the numbers of the groups in an order; equal ones as they would be by bytes."""
        slots, count = books.slots, len(groups)
        totals = _totals(slots, groups, count)
        by_bytes = np.argsort(-totals[_BYTES].sum(axis=0), kind="stable")
        if sort in ("total", "mean"):
            return by_bytes
        if sort == "name":
            return np.array(sorted(by_bytes.tolist(), key=lambda number: _lowered(groups.key(number))), np.int64)
        if sort == "peak":
            peaks = course(slots, groups, books.entries).peak(count)
            values = -_peak_rates(peaks, totals, times)[_BYTES].sum(axis=0)
        elif sort == "connections":
            values = -np.array(_connections(slots, groups, count, 0)[0])
        elif sort in ("first", "last"):
            first_ns, last_ns = _span(slots, groups, count)
            values = np.array(first_ns) if sort == "first" else -np.array(last_ns)
        else:
            values = -totals[{"sent": [0], "received": [1], "packets": [2, 3, 7]}[sort]].sum(axis=0)
        found: Column = by_bytes[np.argsort(values[by_bytes], kind="stable")]
        return found

    def _make(
        self, books: Books, groups: Groups, keys: list[tuple[str, ...]], times: Times, by: tuple[str, ...]
    ) -> tuple[Row, ...]:
        slots = books.slots
        totals, moved = _totals(slots, groups, len(keys)), course(slots, groups, books.entries)
        count = len(keys)
        peaks = self._peaks_of(by, keys, moved.peak(count))
        rates = moved.between(times.first, times.latest, count)
        peak_rates = _peak_rates(peaks, totals, times)
        length = min(HISTORY, max(times.latest + 1, 1))
        history = moved.history(times.latest, length, np.arange(count), count)
        opened, recent = _connections(slots, groups, count, times.now_ns - LATELY_NS)
        first_ns, last_ns = _span(slots, groups, count)
        who = _who(slots, books.owners, groups, count)
        rows = []
        for number, (key, moved_bytes) in enumerate(zip(keys, history.tolist(), strict=True)):
            process, reason = who[number]
            rows.append(
                Row(
                    key=key,
                    process=process,
                    reason=reason,
                    total=Amount(*totals[:, number].tolist()),
                    rate=_each_second(rates[:, number], times.rate_s),
                    mean=_each_second(totals[:, number], times.mean_s),
                    peak=Amount(*peak_rates[:, number].tolist()),
                    connections=opened[number],
                    open_connections=recent[number],
                    first_ns=first_ns[number],
                    last_ns=last_ns[number],
                    history=tuple(moved_bytes),
                )
            )
        return tuple(rows)

    def _peaks_of(self, by: tuple[str, ...], keys: list[tuple[str, ...]], peaks: Column) -> Column:
        if not self._remembers_peaks:
            return peaks
        known = self._peaks.get(by, {})
        for number, key in enumerate(keys):
            if key in known:
                np.maximum(peaks[:, number], known[key], out=peaks[:, number])
        self._peaks[by] = {key: peaks[:, number].copy() for number, key in enumerate(keys)}
        return peaks

    def connections(
        self, books: Books, coder: Coder, groups: Groups, number: int, times: Times, *, most: int
    ) -> Connections:
        """Return the conversations of one group, those that moved most first, at most `most` of them."""
        slots, conversations = books.slots, books.conversations
        mine = groups.number == number
        postings = Postings(*(column[mine] for column in groups.postings))
        coded = coder.code("connection", postings)
        alike = Groups(postings, coded.code, (coded,), [(code,) for code in range(coded.size)])
        totals = _totals(slots, alike, len(alike))
        rates = course(slots, alike, books.entries).between(times.first, times.latest, len(alike))
        first_ns, last_ns = _span(slots, alike, len(alike))
        example = np.zeros(len(alike), np.int64)
        example[alike.number] = np.arange(len(postings.slot))
        shown = Postings(*(column[example] for column in postings))
        (local, local_port), (remote, remote_port) = coder.local(shown), coder.remote(shown)
        known, interfaces = conversations.addresses, conversations.interfaces
        found = []
        for at in np.argsort(-totals[_BYTES].sum(axis=0), kind="stable")[:most].tolist():
            slot = int(shown.slot[at])
            found.append(
                Connection(
                    netns=interfaces[int(slots.interface[slot])].netns,
                    protocol=int(slots.protocol[slot]),
                    local_address=known[local[at]] if local[at] >= 0 else bytes(16),
                    local_port=max(int(local_port[at]), 0),
                    remote_address=known[remote[at]] if remote[at] >= 0 else bytes(16),
                    remote_port=max(int(remote_port[at]), 0),
                    state=None,
                    total=Amount(*totals[:, at].tolist()),
                    rate=_each_second(rates[:, at], times.rate_s),
                    first_ns=first_ns[at],
                    last_ns=last_ns[at],
                )
            )
        gone = np.unique(postings.slot[slots.folded[postings.slot]])
        return Connections(tuple(found), len(alike), int(slots.connections[gone].sum()))


def _totals(slots: Slots, groups: Groups, count: int) -> Column:
    slot = groups.postings.slot
    return figures(slots, groups.postings, groups.number, (slots.bytes[slot], slots.packets[slot]), count)


def _lowered(key: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text.lower() for text in key)


def _each_second(sums: Column, seconds: float) -> Amount:
    return Amount(*(sums / seconds).tolist())


def _peak_rates(peaks: Column, totals: Column, times: Times) -> Column:
    """Return for each second the largest figures of an interval, or of all the time where these are larger.

    They are where packets stand at both ends of a time that is no multiple of an interval.
    """
    found: Column = np.maximum(peaks / times.interval_s, totals / times.mean_s)
    return found


def _connections(slots: Slots, groups: Groups, count: int, since_ns: int) -> tuple[list[int], list[int]]:
    """Return how many connections each group had, and how many of them had packets lately.

    One with both ends in a group counts once.
    """
    slot, number = groups.postings.slot, groups.number
    received = groups.postings.side == RECEIVED
    sender = np.full(slots.count, -1)
    sender[slot[~received]] = number[~received]
    once = ~(received & (sender[slot] == number))
    begun = np.where(once, slots.connections[slot], 0)
    twin = slots.twin[slot]
    last_ns = np.maximum(slots.last_ns[slot], np.where(twin >= 0, slots.last_ns[twin], 0))
    open_now = (begun > 0) & (last_ns >= since_ns) & ~slots.folded[slot]
    opened, recent = np.zeros(count, np.int64), np.zeros(count, np.int64)
    np.add.at(opened, number, begun)
    np.add.at(recent, number, open_now)
    return opened.tolist(), recent.tolist()


def _span(slots: Slots, groups: Groups, count: int) -> tuple[list[int], list[int]]:
    first, last = np.full(count, np.iinfo(np.int64).max), np.full(count, np.iinfo(np.int64).min)
    np.minimum.at(first, groups.number, slots.first_ns[groups.postings.slot])
    np.maximum.at(last, groups.number, slots.last_ns[groups.postings.slot])
    return first.tolist(), last.tolist()


def _who(
    slots: Slots, owners: OwnerTable, groups: Groups, count: int
) -> Sequence[tuple[Process | None, Reason | None]]:
    """Return the one process of each group, or the reason of one where nobody is known, that of the most bytes."""
    span = len(owners.owners)
    pairs, place = np.unique(groups.number * span + groups.postings.owner, return_inverse=True)
    slot = groups.postings.slot
    last_ns = np.zeros(len(pairs), np.int64)
    np.maximum.at(last_ns, place.reshape(-1), slots.last_ns[slot])
    moved = sums(place.reshape(-1), slots.bytes[slot], len(pairs))
    found: list[_Who] = [_Who() for _ in range(count)]
    for pair, last, size in zip(pairs.tolist(), last_ns.tolist(), moved.tolist(), strict=True):
        number, owner = divmod(pair, span)
        found[number].meet(owners.owners[owner], last, size)
    return [who.answer() for who in found]


@dataclass(slots=True)
class _Who:
    """The owners of a group, as far as it is told: one process as it was last, or the reason of the most bytes."""

    process: Process | None = None
    is_one: bool = True
    last_ns: int = -1
    reason: Reason | None = None
    moved: int = -1
    owned: bool = False

    def meet(self, owner: Owner, last_ns: int, moved: int) -> None:
        process = owner.process
        if process is None:
            self.owned = self.owned or owner.reason is None
            if moved > self.moved and owner.reason is not None:
                self.reason, self.moved = owner.reason, moved
            self.is_one = False
            return
        self.owned = True
        self.is_one = self.is_one and (self.process is None or self.process.id == process.id)
        if last_ns > self.last_ns:
            self.process, self.last_ns = process, last_ns

    def answer(self) -> tuple[Process | None, Reason | None]:
        return self.process if self.is_one else None, None if self.owned else self.reason
