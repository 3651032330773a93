"""Packets counted for their processes, wired: capture or file -> attribution -> ledger -> views."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

import numpy as np

from pktproc.attribution.answers import AttributedBatch
from pktproc.attribution.process_selection import ProcessSelection
from pktproc.attribution.replay import DEFAULT_TOLERANCE_NS
from pktproc.attribution.selection import ProcessSieve
from pktproc.bandwidth.ledger import LAG_NS, NS_PER_S, Ledger
from pktproc.bandwidth.owners import Namers
from pktproc.bandwidth.views import Connections, Series, View
from pktproc.capture.filter import ANY
from pktproc.capture.live import CaptureOptions
from pktproc.kernel.engines import AUTO
from pktproc.kernel.processes import ProcessReader
from pktproc.live import LiveAttribution
from pktproc.offline import OfflineAttribution
from pktproc.offloading import LEAST_INTERVAL_NS
from pktproc.output.names import network_type, transport, user_name

SNAPLEN = 256
"""Bytes of each packet that are captured: counting needs heads alone, whose lengths tell the rest."""
KEPT_INTERVALS = 120
"""Intervals that are kept for a screen: what its sparklines show, twice over."""

_NAMELESS = "the file carries no processes: name its packets by a store (-s) that was recorded when they were captured"


@dataclass(frozen=True, slots=True)
class Counting:
    """Say what is counted: see `Ledger`. `keep` is None for a report, which is about all of the time."""

    by: tuple[str, ...] = ("process",)
    layer: str = "wire"
    interval_ns: int = NS_PER_S
    keep: int | None = None
    per_interface: bool = False
    selection: ProcessSelection = field(default_factory=ProcessSelection)


def namers() -> Namers:
    """Return what names users and protocols."""
    return Namers(user=lambda uid: user_name(uid) or str(uid), protocol=_protocol_name)


def _protocol_name(protocol: int, ethertype: int) -> str:
    if protocol < 0:
        return network_type(0, ethertype) or "not-ip"
    return transport(protocol) or str(protocol)


def _ledger(counting: Counting, *, lag_ns: int, several_interfaces: bool = False) -> Ledger:
    return Ledger(
        counting.by,
        layer=counting.layer,
        interval_ns=counting.interval_ns,
        keep=counting.keep,
        repeats=not counting.per_interface,
        several_interfaces=several_interfaces,
        lag_ns=lag_ns,
        namers=namers(),
    )


class LiveMeter:
    """Capture the heads of packets, name their ends and count; others may ask for views while one thread runs it.

    Raise what `LiveAttribution` and `Ledger` raise.
    """

    def __init__(
        self, capture: CaptureOptions, counting: Counting, *, engine: str = AUTO, cmdline: bool = True
    ) -> None:
        self._lock = threading.Lock()
        self._end_ns: int | None = None
        self._interval_ns = counting.interval_ns
        layer = counting.layer if counting.interval_ns >= LEAST_INTERVAL_NS else None
        capture = replace(capture, snaplen=min(capture.snaplen, SNAPLEN))
        several = ANY in capture.interfaces or len(capture.interfaces) * max(len(capture.netns), 1) > 1
        self.ledger = _ledger(counting, lag_ns=LAG_NS, several_interfaces=several)
        self._sieve = ProcessSieve(counting.selection, ProcessReader(cmdline=False).read)
        with ExitStack() as opened:
            self.live = opened.enter_context(
                LiveAttribution(capture, engine=engine, cmdline=cmdline, counted_layer=layer)
            )
            self._opened = opened.pop_all()

    @property
    def engine(self) -> str:
        """Return the name of the engine that names processes."""
        return self.live.engine.name

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what the user should know of engine and capture."""
        return tuple(self.live.notes)

    def start(self, now_ns: int) -> None:
        """Begin to count: `now_ns`, since the epoch, begins the first interval."""
        with self._lock:
            self._begin(now_ns)
        self.live.start()

    def run(self) -> None:
        """Count until `stop`."""
        for _ in self.steps():
            pass

    def steps(self) -> Iterator[int]:
        """Count until `stop`; yield the number of packets of each block, and 0 if nothing came for a while."""
        for block in self.live.blocks():
            if block is not None:
                self._take(block)
            yield 0 if block is None else block.packets

    def stop(self, *, after_ns: int = 0) -> None:
        """End `run` once what was captured until then has been counted, at the earliest in `after_ns`."""
        end_ns = time.time_ns() + after_ns
        self._end_ns = end_ns if self._end_ns is None else min(self._end_ns, end_ns)
        self.live.stop(after_ns=after_ns)

    @property
    def end_ns(self) -> int:
        """Return the time, since the epoch, until which packets were wanted; what came is still counted after it."""
        return time.time_ns() if self._end_ns is None else self._end_ns

    def view(
        self,
        now_ns: int,
        *,
        by: Sequence[str] | None = None,
        most: int | None = None,
        sort: str = "total",
        rate_ns: int = 0,
    ) -> View:
        """Return the rows of now, `now_ns` since the epoch, with rates over about `rate_ns`: see `Ledger.view`."""
        with self._lock:
            self.ledger.note_dropped(self.live.statistics().dropped)
            return self.ledger.view(
                now_ns, by=by, most=most, sort=sort, rate_ns=rate_ns, engine=self.engine, notes=self.notes
            )

    def connections_of(
        self,
        key: tuple[str, ...],
        now_ns: int,
        *,
        by: Sequence[str] | None = None,
        most: int = 1000,
        rate_ns: int = 0,
    ) -> Connections:
        """Return the conversations of a row."""
        with self._lock:
            return self.ledger.connections_of(key, now_ns, by=by, most=most, rate_ns=rate_ns)

    def series(self, view: View) -> Series:
        """Return the course of each row of a view."""
        with self._lock:
            return self.ledger.series(view)

    def reset(self, now_ns: int) -> None:
        """Forget what was counted and begin again."""
        with self._lock:
            self.ledger.note_dropped(self.live.statistics().dropped)
            self._begin(now_ns)

    def _take(self, block: AttributedBatch) -> None:
        rows = None if self._sieve.takes_everything else self._sieve.rows(block)
        with self._lock:
            self.ledger.add(block, rows)
        if self.live.offloading:
            self.live.offloading.offer(block, wanted=self.ledger.is_on_one_interface)

    def _begin(self, now_ns: int) -> None:
        self.ledger.reset(now_ns)
        if self.live.offloading:
            self.live.offloading.divide(now_ns, self._interval_ns)

    def close(self) -> None:
        """Close the capture and the engine."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FileMeter:
    """Read a capture file, name the ends of its packets and count; see `OfflineAttribution` for what it raises."""

    def __init__(
        self,
        source: str,
        counting: Counting,
        *,
        stores: Sequence[str] = (),
        expression: str = "",
        skew_ns: int = 0,
        tolerance_ns: int = DEFAULT_TOLERANCE_NS,
    ) -> None:
        self.ledger = _ledger(counting, lag_ns=0)
        self._sieve = ProcessSieve(counting.selection, lambda _: None)
        self._has_stores = bool(stores)
        self.offline = OfflineAttribution(
            source,
            stores,
            expression=expression,
            skew_ns=skew_ns,
            tolerance_ns=tolerance_ns,
            interfaces_apart=True,
        )

    def run(self) -> None:
        """Count all packets; raise `FormatError` behind the last whole one of a broken file."""
        for _ in self.steps():
            pass

    def steps(self) -> Iterator[int]:
        """Count all packets and yield the number of those of each block."""
        for block in self.offline.blocks():
            rows = block.rows
            if not self._sieve.takes_everything:
                rows = np.intersect1d(rows, self._sieve.rows(block.attributed), assume_unique=True)
            self.ledger.add(block.attributed, rows)
            yield len(rows)

    def view(self, *, by: Sequence[str] | None = None, most: int | None = None, sort: str = "total") -> View:
        """Return the rows, as of the last packet."""
        view = self.ledger.view(by=by, most=most, sort=sort, engine="file", notes=tuple(self.offline.warnings()))
        if not self._has_stores and view.rows and all(row.reason is not None for row in view.rows):
            view = replace(view, notes=(*view.notes, _NAMELESS))
        return view

    def series(self, view: View) -> Series:
        """Return the course of each row of a view."""
        return self.ledger.series(view)

    def close(self) -> None:
        """Close the file and the stores."""
        self.offline.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
