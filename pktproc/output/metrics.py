"""The figures of a view as Prometheus metrics, in counters that never run backwards.

Names and units follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric

from pktproc.bandwidth.views import Amount, Row, View
from pktproc.output.escape import escape

BY = ("name", "user")
"""What the views that are exported have to be grouped by."""

DEFAULT_MAX_SERIES = 200
OTHER = "other"

_WAYS = ("sent", "received", "passed")


class _Key(NamedTuple):
    """The labels of a series: of a program and its user, or of the reason why nobody is known."""

    program: str
    user: str
    reason: str


class ViewMetrics:
    """Collect what `look` returns, a view by `BY`, as a collector of `prometheus_client` does.

    Programs get series of their own in the order in which they are met; once there are `max_series`, all further ones
    are told together, as the program `other`. Bytes that were named only after they had been told as unattributed stay
    there until as many others have joined them, since a counter cannot run backwards. Scrapes wait for each other.
    """

    def __init__(self, look: Callable[[], View], max_series: int = DEFAULT_MAX_SERIES) -> None:
        self._look = look
        self._max_series = max_series
        self._told: dict[_Key, dict[str, float]] = {}
        self._programs = 0
        self._lock = threading.Lock()

    def describe(self) -> list[Metric]:
        """Return nothing: what there is shows when it is asked for, not at registration."""
        return []

    def collect(self) -> list[Metric]:
        """Return all metrics as of now."""
        with self._lock:
            return list(self._collected(self._look()))

    def _collected(self, view: View) -> Iterator[Metric]:
        beyond = self._take(view.rows)
        yield from self._attributed()
        yield from self._unattributed()
        yield from _captured(view)
        yield InfoMetricFamily("pktproc_engine", "Where the names come from.", {"engine": view.engine})
        yield GaugeMetricFamily(
            "pktproc_open_connections",
            "Connections that had packets lately.",
            sum(row.open_connections for row in view.rows),
        )
        yield GaugeMetricFamily(
            "pktproc_programs_beyond_limit", "Programs and users that are told together as 'other'.", beyond
        )
        yield GaugeMetricFamily(
            "pktproc_shortfalls",
            "Things that did not go as they should; pktproc names them when it ends.",
            len(view.notes),
        )

    def _take(self, rows: Sequence[Row]) -> int:
        """Bring what has been told up to date; return how many rows have no series of their own."""
        beyond, others = 0, dict.fromkeys(_figures(Amount()), 0.0)
        for row in rows:
            key = _key(row)
            if key in self._told or key.reason or self._programs < self._max_series:
                self._raise(key, _figures(row.total))
            else:
                beyond += 1
                others = {name: figure + others[name] for name, figure in _figures(row.total).items()}
        if beyond:
            self._raise(_Key(OTHER, OTHER, ""), others)
        return beyond

    def _raise(self, key: _Key, figures: dict[str, float]) -> None:
        told = self._told.get(key)
        if told is None:
            self._told[key] = figures
            self._programs += not key.reason
        else:
            for name, figure in figures.items():
                told[name] = max(told[name], figure)

    def _attributed(self) -> Iterator[Metric]:
        for unit in ("bytes", "packets"):
            family = CounterMetricFamily(
                f"pktproc_{unit}", f"{unit.capitalize()} of programs.", labels=("program", "user", "direction")
            )
            for key, figures in self._told.items():
                if not key.reason:
                    for way in _WAYS[:2]:
                        family.add_metric((key.program, key.user, way), figures[f"{way}_{unit}"])
            yield family
        local = CounterMetricFamily(
            "pktproc_local_bytes",
            "The part of pktproc_bytes_total whose other end is on this host; it counts at both ends.",
            labels=("program", "user", "direction"),
        )
        for key, figures in self._told.items():
            if not key.reason:
                for way in _WAYS[:2]:
                    local.add_metric((key.program, key.user, way), figures[f"local_{way}_bytes"])
        yield local

    def _unattributed(self) -> Iterator[Metric]:
        for unit in ("bytes", "packets"):
            family = CounterMetricFamily(
                f"pktproc_unattributed_{unit}",
                f"{unit.capitalize()} of ends that nobody is known for, by the reason.",
                labels=("reason", "direction"),
            )
            for key, figures in self._told.items():
                if key.reason:
                    for way in _WAYS:
                        family.add_metric((key.reason, way), figures[f"{way}_{unit}"])
            yield family


def _key(row: Row) -> _Key:
    if row.reason is not None:
        return _Key("", "", row.reason.value)
    program, user = row.key
    return _Key(escape(program), escape(user), "")


def _figures(amount: Amount) -> dict[str, float]:
    return {name: float(figure) for name, figure in amount._asdict().items()}


def _captured(view: View) -> Iterator[Metric]:
    captured = view.captured
    twice = sum(row.total.local_received_bytes for row in view.rows)
    for name, text, figure in (
        ("captured_bytes", "Bytes seen.", captured.bytes),
        ("captured_packets", "Packets seen.", captured.packets),
        ("both_ends_local_bytes", "The part of captured bytes that both a sender and a receiver here have.", twice),
        ("duplicate_bytes", "Bytes of packets seen on another interface before.", captured.duplicate_bytes),
        ("duplicate_packets", "Packets seen on another interface before.", captured.duplicate_packets),
        ("dropped_packets", "Packets that the kernel dropped before they were seen.", captured.dropped_packets),
    ):
        yield CounterMetricFamily(f"pktproc_{name}", text, value=figure)
