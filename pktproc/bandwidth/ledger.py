"""The ledger: bytes and packets of attributed blocks, by flow and interval, summed into views when asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pktproc.attribution.answers import AttributedBatch
from pktproc.bandwidth import folding
from pktproc.bandwidth.block_sums import Headers, by_flow
from pktproc.bandwidth.conversations import Conversations
from pktproc.bandwidth.dimensions import DIMENSIONS, REMOTE_DIMENSIONS, Coder
from pktproc.bandwidth.grouping import Groups, course, group
from pktproc.bandwidth.intervals import Intervals
from pktproc.bandwidth.layers import LAYERS, layer_bytes
from pktproc.bandwidth.lost_detail import LostDetail
from pktproc.bandwidth.owners import Namers, OwnerTable
from pktproc.bandwidth.repeats import Repeats
from pktproc.bandwidth.rows import ORDERS, Books, RowMaker, Times
from pktproc.bandwidth.slots import Slots
from pktproc.bandwidth.views import NO_CONNECTIONS, Captured, Connections, Point, Series, View
from pktproc.errors import UsageError
from pktproc.model import Flow
from pktproc.packets.batch import Column
from pktproc.packets.headers import TCP_ACK, TCP_RST, TCP_SYN

NS_PER_S = 1_000_000_000
TCP_FIN = 0x01
FOLD_ABOVE = 1 << 14
"""Slots beyond which flows that ended are folded, unless a view is of connections."""
LAG_NS = 200_000_000
"""How long after its end a live interval may still get packets: blocks wait to be filled and for their answers."""


class Ledger:
    """Fold attributed blocks.

    `by` are the dimensions that views are wanted by; others can be asked for, except that `connection` shows what was
    folded as one. `layer` is one of `layers.LAYERS`. Intervals are `interval_ns` long and begin at `start_ns`, or with
    the first packet where that is None; `keep` is how many are kept at least, None for all. With `repeats`, a packet
    that was seen on several interfaces counts once; `several_interfaces` says that there may be some although the first
    blocks have one. `lag_ns` is how long an interval may still get packets after it is over. Raise `UsageError` for an
    unknown dimension or layer.
    """

    def __init__(
        self,
        by: Sequence[str] = ("process",),
        *,
        layer: str = "wire",
        interval_ns: int = NS_PER_S,
        start_ns: int | None = None,
        keep: int | None = None,
        repeats: bool = True,
        several_interfaces: bool = False,
        lag_ns: int = 0,
        namers: Namers | None = None,
    ) -> None:
        self.by = checked(by)
        if layer not in LAYERS:
            raise UsageError(f"no layer {layer!r}: choose one of {', '.join(LAYERS)}")
        self.layer = layer
        self.namers = namers or Namers()
        self._interval_ns, self._keep, self._lag_ns = interval_ns, keep, lag_ns
        self._seeks_repeats, self._several_interfaces = repeats, several_interfaces
        self._dropped = self._dropped_before = 0
        self.reset(start_ns)

    def reset(self, start_ns: int | None = None) -> None:
        """Forget everything; the next packets are the first."""
        self._slots, self._owners = Slots(), OwnerTable(self.namers)
        self._conversations = Conversations(self._slots, self._owners)
        self._coder = Coder(self._slots, self._owners, self._conversations, self.namers)
        self._stand_ins = folding.StandIns(self._slots)
        by_remote = any(dimension in REMOTE_DIMENSIONS for dimension in self.by)
        self._intervals = Intervals(self._slots, self._interval_ns, self._keep, None if by_remote else self._stand_ins)
        self._repeats: Repeats | None = None
        self._rows = RowMaker(remembers_peaks=self._keep is not None)
        self._captured, self._lost = Captured(), LostDetail()
        self._dropped_before = self._dropped
        self._first_ns: int | None = None
        self._last_ns = 0
        self._fold_above = FOLD_ABOVE
        if start_ns is not None:
            self._first_ns = start_ns
            self._intervals.start(start_ns)

    @property
    def captured(self) -> Captured:
        """Return what was counted so far."""
        return self._captured._replace(dropped_packets=self._dropped - self._dropped_before)

    def note_dropped(self, packets: int) -> None:
        """Take note of how many packets the kernel has dropped in all until now."""
        self._dropped = packets

    def add(self, attributed: AttributedBatch, rows: Column | None = None) -> None:
        """Count the packets of a block, or some of its rows (int64, ascending)."""
        batch, columns, flow_of = attributed.batch, attributed.columns, attributed.flow_of
        if not len(batch) or (rows is not None and not len(rows)):
            return
        chosen: Column | slice = slice(None) if rows is None or len(rows) == len(batch) else rows
        if attributed.weights is not None:
            self._fold(attributed, attributed.weights.bytes, chosen, attributed.weights.packets)
            return
        sizes = layer_bytes(batch, columns, self.layer)
        repeats = self._repeats_of(batch.interfaces)
        if repeats is not None:
            counted = np.arange(len(batch)) if rows is None else rows
            again = repeats.find(batch, columns, attributed.flows, flow_of, counted)
            if again.any():
                self._note_repeats(sizes[counted[again]])
                chosen = counted[~again]
                if not len(chosen):
                    return
        self._fold(attributed, sizes, chosen)

    def is_on_one_interface(self, flow: Flow) -> bool:
        """Say whether it is certain by now that no packets of a flow that was counted are seen anywhere else."""
        return self._repeats is None or self._repeats.is_single(flow, self._last_ns)

    def view(
        self,
        now_ns: int | None = None,
        *,
        by: Sequence[str] | None = None,
        most: int | None = None,
        sort: str = "total",
        rate_ns: int = 0,
        engine: str = "",
        notes: tuple[str, ...] = (),
    ) -> View:
        """Return the rows of this moment in an order of `rows.ORDERS`; with `most` the rest is one row, `others`.

        `now_ns` is the time of now; it is that of the last packet if that is later, or this is None. Rates are of so
        many of the latest whole intervals as come nearest to `rate_ns`, of one at least, as far as they are known.
        """
        dimensions = self.by if by is None else checked(by)
        if sort not in ORDERS:
            raise UsageError(f"cannot sort by {sort!r}: choose from {', '.join(ORDERS)}")
        groups = group(self._coder, self._slots, dimensions)
        times = self._times(now_ns, rate_ns, detailed=not set(dimensions).isdisjoint(REMOTE_DIMENSIONS))
        return View(
            time_ns=times.now_ns,
            elapsed_s=times.elapsed_s,
            interval_s=times.interval_s,
            rate_s=times.rate_s,
            by=dimensions,
            layer=self.layer,
            rows=self._rows.rows(self._books(), groups, times, dimensions, most=most, sort=sort),
            groups=len(groups),
            captured=self.captured,
            engine=engine,
            notes=(*notes, *self._notes(), *self._lost.notes(dimensions)),
        )

    def connections_of(
        self,
        key: tuple[str, ...],
        now_ns: int | None = None,
        *,
        by: Sequence[str] | None = None,
        most: int = 1000,
        rate_ns: int = 0,
    ) -> Connections:
        """Return the conversations of the row with a key, those that moved most first, at most `most`."""
        dimensions = self.by if by is None else checked(by)
        groups = group(self._coder, self._slots, dimensions)
        times = self._times(now_ns, rate_ns, detailed=True)
        for number in range(len(groups)):
            if groups.key(number) == key:
                return self._rows.connections(self._books(), self._coder, groups, number, times, most=most)
        return NO_CONNECTIONS

    def series(self, view: View) -> Series:
        """Return the course of each row of a view that was made just now."""
        groups = group(self._coder, self._slots, view.by)
        number_of = {row.key: number for number, row in enumerate(view.rows)}
        row = np.array([number_of.get(groups.key(number), len(view.rows) - 1) for number in range(len(groups))])
        if not len(row):
            return {}
        groups = Groups(groups.postings, row[groups.number], groups.parts, [()] * len(view.rows))
        found = course(self._slots, groups, self._intervals.entries())
        time_ns = found.interval * self._intervals.width_ns + (self._intervals.start_ns or 0)
        points = map(Point, *(column.tolist() for column in (time_ns, *found.figures[[0, 1, 6]])))
        courses: dict[tuple[str, ...], list[Point]] = {row.key: [] for row in view.rows}
        for number, point in zip(found.group.tolist(), points, strict=True):
            courses[view.rows[number].key].append(point)
        return {key: tuple(points) for key, points in courses.items()}

    def _books(self) -> Books:
        return Books(self._slots, self._owners, self._conversations, self._intervals.entries())

    def _times(self, now_ns: int | None, rate_ns: int, *, detailed: bool) -> Times:
        first_ns = self._first_ns or 0
        now = max(self._last_ns, first_ns if now_ns is None else now_ns)
        whole = self._intervals.of(now - self._lag_ns) - (now_ns is not None)
        return Times.of(self._intervals, now, max(now - first_ns, 0), whole, rate_ns, detailed=detailed)

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if self._repeats is not None and self._repeats.forgotten:
            notes.append(f"{self._repeats.forgotten} packets may count twice: too many at once on several interfaces")
        if self._intervals.width_ns != self._interval_ns:
            notes.append(f"intervals were joined to {self._intervals.width_ns / NS_PER_S:g} s: too many to keep")
        return tuple(notes)

    def _repeats_of(self, interfaces: Sequence[object]) -> Repeats | None:
        if self._repeats is None and self._seeks_repeats and (self._several_interfaces or len(interfaces) > 1):
            self._repeats = Repeats()
            self._repeats.learn(self._conversations.flows())
        return self._repeats

    def _note_repeats(self, sizes: Column) -> None:
        captured = self._captured
        self._captured = captured._replace(
            duplicate_bytes=captured.duplicate_bytes + int(sizes.sum()),
            duplicate_packets=captured.duplicate_packets + len(sizes),
        )

    def _fold(
        self, attributed: AttributedBatch, sizes: Column, rows: Column | slice, counts: Column | None = None
    ) -> None:
        """Count some rows of a block; with `counts` a row stands for so many packets."""
        batch, columns = attributed.batch, attributed.columns
        headers = Headers(attributed.flow_of[rows], columns.tcp_flags[rows], batch.time_ns[rows])
        sizes = sizes[rows]
        counts = None if counts is None else counts[rows]
        sums = by_flow(headers, sizes, counts, len(attributed.flows))
        first_ns, last_ns = int(sums.first_ns.min()), int(sums.last_ns.max())
        self._intervals.start(first_ns)
        self._first_ns = first_ns if self._first_ns is None else min(first_ns, self._first_ns)
        self._last_ns = max(self._last_ns, last_ns)
        self._captured = self._captured._replace(
            bytes=self._captured.bytes + int(sums.bytes.sum()),
            packets=self._captured.packets + int(sums.packets.sum()),
        )
        slot = self._slots_of(attributed, sums.met, sums.first_ns, headers)
        slots = self._slots
        np.add.at(slots.packets, slot, sums.packets)
        np.add.at(slots.bytes, slot, sums.bytes)
        np.minimum.at(slots.first_ns, slot, sums.first_ns)
        np.maximum.at(slots.last_ns, slot, sums.last_ns)
        if self._intervals.is_open(first_ns, last_ns):
            np.add.at(slots.open_packets, slot, sums.packets)
            np.add.at(slots.open_bytes, slot, sums.bytes)
        else:
            place = np.zeros(len(attributed.flows), np.int64)
            place[sums.met] = np.arange(len(slot))
            self._intervals.add(slot, place[headers.flow_of], sizes, headers.time_ns, counts)
        if slots.used > self._fold_above:
            self._fold_ended()

    def _slots_of(self, attributed: AttributedBatch, met: Column, first_ns: Column, headers: Headers) -> Column:
        """Return the slots of the flows `met`, and take note of how their connections begin and end."""
        flow_of, tcp_flags, time_ns = headers
        positions = met.tolist()
        marked = np.flatnonzero(tcp_flags & (TCP_SYN | TCP_RST | TCP_FIN))
        began: frozenset[int] = frozenset()
        opening = marked[(tcp_flags[marked] & (TCP_SYN | TCP_ACK)) == TCP_SYN]
        if len(opening):
            began = frozenset(flow_of[opening].tolist())
        copies = self._repeats.is_copy if self._repeats is not None else None
        found = self._conversations.find(attributed, positions, first_ns.tolist(), began, copies)
        slot = np.array(found, np.int64)
        if len(marked):
            place = np.zeros(len(attributed.flows), np.int64)
            place[met] = slot
            if len(opening):
                self._slots.syn_ns[place[flow_of[opening]]] = time_ns[opening]
            closing = marked[(tcp_flags[marked] & (TCP_RST | TCP_FIN)) != 0]
            self._slots.ended[place[flow_of[closing]]] = True
        return slot

    def _fold_ended(self) -> None:
        """Fold what ended, then the oldest, until there is room; give old processes to `others`."""
        slots = self._slots
        self._stand_ins.forget()
        by_connection = "connection" in self.by
        if not by_connection:
            self._fold_slots(folding.ended(slots, self._last_ns), remotes=True)
        if slots.used > folding.MAX_SLOTS:
            self._fold_slots(folding.oldest(slots, slots.used // 2), remotes=True)
        if slots.used > folding.MAX_SLOTS // 2:
            folded = np.flatnonzero(slots.folded[: slots.count])
            if len(folded) > folding.MAX_SLOTS // 4:
                self._fold_slots(folded, remotes=False)
        if len(self._owners) > folding.MAX_OWNERS:
            given = folding.give_to_others(slots, self._owners)
            if given is not None:
                self._intervals.move(given[0])
                self._lost = self._lost.and_processes(given[1])
        self._owners.release(folding.unowned(slots, self._owners))
        self._fold_above = min(max(FOLD_ABOVE, 2 * slots.used), max(folding.MAX_SLOTS, slots.used + FOLD_ABOVE))

    def _fold_slots(self, chosen: Column, *, remotes: bool) -> None:
        if len(chosen):
            self._lost = self._lost.and_slots(self._slots, chosen, remotes=remotes)
            self._conversations.forget(chosen.tolist())
            self._intervals.move(folding.fold(self._slots, chosen, remotes=remotes))


def checked(by: Sequence[str]) -> tuple[str, ...]:
    """Return the dimensions to group by; raise `UsageError` for none or an unknown one."""
    for dimension in by:
        if dimension not in DIMENSIONS:
            raise UsageError(f"cannot group by {dimension!r}: choose from {', '.join(DIMENSIONS)}")
    if not by:
        raise UsageError(f"nothing to group by: choose from {', '.join(DIMENSIONS)}")
    return tuple(dict.fromkeys(by))
