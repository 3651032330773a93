"""`pktproc summary` without the terminal."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace

from pktproc.bandwidth.views import Row, View
from pktproc.capture.live import CaptureOptions
from pktproc.errors import UsageError
from pktproc.metering import Counting, FileMeter, LiveMeter

_NS_PER_S = 1_000_000_000

Path = str | os.PathLike[str]


def summary(
    source: Path | None = None,
    stores: Path | Sequence[Path] = (),
    *,
    by: str | Sequence[str] = ("process",),
    iface: str | Sequence[str] = "any",
    netns: Sequence[str] = (),
    duration: float | None = None,
    filter: str = "",  # noqa: A002 - scapy's name for it
    layer: str = "wire",
    interval: float = 1.0,
    per_interface: bool = False,
    skew: float = 0.0,
    tolerance: float = 2.0,
    engine: str = "auto",
    cmdline: bool = True,
) -> View:
    """Return who moved how many bytes: of a capture file `source`, or live for `duration` seconds where that is None.

    `stores` are one or several paths of what `pktproc record` or `snapshot` saved, `by` one or several of `process`,
    `name`, `exe`, `cmdline`, `user`, `container`, `unit`, `remote`, `remote-port`, `protocol`, `interface` and
    `connection`. `filter` is a pcap-filter(7) expression, `layer` one of `wire`, `ip` and `payload`, `interval` what
    peaks are taken over (seconds). Raise `FormatError`, `StoreError` and `UsageError` for bad input.
    """
    counting = Counting(
        by=(by,) if isinstance(by, str) else tuple(by),
        layer=layer,
        interval_ns=round(interval * _NS_PER_S),
        per_interface=per_interface,
    )
    if source is None:
        interfaces = (iface,) if isinstance(iface, str) else tuple(iface)
        capture = CaptureOptions(interfaces=interfaces, netns=tuple(netns), expression=filter)
        return _live(capture, counting, duration, engine=engine, cmdline=cmdline)
    paths = [stores] if isinstance(stores, (str, os.PathLike)) else list(stores)
    with FileMeter(
        os.fspath(source),
        counting,
        stores=[os.fspath(path) for path in paths],
        expression=filter,
        skew_ns=round(skew * _NS_PER_S),
        tolerance_ns=round(tolerance * _NS_PER_S),
    ) as meter:
        meter.run()
        view = meter.view()
    return view if cmdline else replace(view, rows=tuple(map(_without_cmdline, view.rows)))


def _live(capture: CaptureOptions, counting: Counting, duration: float | None, *, engine: str, cmdline: bool) -> View:
    if duration is None:
        raise UsageError("give a capture file as source, or for a live one its duration in seconds")
    with LiveMeter(capture, counting, engine=engine, cmdline=cmdline) as meter:
        meter.start(time.time_ns())
        meter.stop(after_ns=round(duration * _NS_PER_S))
        meter.run()
        return meter.view(meter.end_ns)


def _without_cmdline(row: Row) -> Row:
    return row if row.process is None else replace(row, process=replace(row.process, cmdline=None))
