"""One run of `pktproc summary`: from the open capture to the report."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import cast

import click

from pktproc.bandwidth.views import Series, View
from pktproc.capture.live import CaptureOptions
from pktproc.cli import garbage
from pktproc.cli.progress import Progress
from pktproc.cli.signals import Interruption, ended_by_signals
from pktproc.cli.summary_options import SummaryOptions
from pktproc.cli.talk import say
from pktproc.errors import FormatError, PktprocError, UsageError
from pktproc.metering import Counting, FileMeter, LiveMeter
from pktproc.output.amounts import Units
from pktproc.output.counting import counted
from pktproc.output.escape import escape
from pktproc.output.stream import write_all
from pktproc.output.usage_export import csv_report, json_report
from pktproc.output.usage_table import UNLIMITED, table

_NS_PER_S = 1_000_000_000
_DEFAULT_INTERVAL_NS = _NS_PER_S


def run(options: SummaryOptions) -> None:
    """Count and print the report, then what else is to say on stderr."""
    if sys.stdout is None:
        raise UsageError("standard output is closed: there is nowhere to print the report")
    draw = _drawer(options)
    counting = Counting(
        by=options.by,
        layer=options.layer,
        interval_ns=options.interval_ns or _DEFAULT_INTERVAL_NS,
        per_interface=options.per_interface,
        selection=options.selection.selection(),
    )
    if options.source is None:
        _run_live(options, counting, draw)
    else:
        _run_file(options, counting, draw)


Draw = Callable[[View, Series], None]


def _drawer(options: SummaryOptions) -> Draw | None:
    """Return what draws the plot; raise `UsageError` before anything else is done if the library is missing."""
    if options.plot is None:
        return None
    from pktproc.output import usage_plot  # noqa: PLC0415 - slow to import, and an extra

    path = options.plot
    usage_plot.check()
    return lambda view, series: usage_plot.draw(path, view, series)


def _run_live(options: SummaryOptions, counting: Counting, draw: Draw | None) -> None:
    capture = CaptureOptions(interfaces=options.interfaces, netns=options.netns, expression=options.expression)
    with (
        LiveMeter(capture, counting, engine=options.engine, cmdline=options.cmdline) as meter,
        ended_by_signals(meter.stop),
    ):
        garbage.look_no_more()
        for note in meter.notes:
            say(note)
        place = f" in {', '.join(map(escape, options.netns))}" if options.netns else ""
        meter.start(time.time_ns())
        say(f"listening on {', '.join(map(escape, capture.interfaces))}{place}, engine {meter.engine}")
        if options.duration_ns is not None:
            meter.stop(after_ns=options.duration_ns)
        meter.run()
        statistics = meter.live.statistics()
        view = meter.view(meter.end_ns, most=options.most, sort=options.sort)
        _report(options, view, lambda: meter.series(view), draw)
        _close(
            view,
            counted(statistics.received, "packet received by filter"),
            counted(statistics.dropped, "packet dropped by kernel"),
        )
        for shortfall in (*meter.live.shortfalls(), *_own_notes(view, meter.notes)):
            say(shortfall)


def _run_file(options: SummaryOptions, counting: Counting, draw: Draw | None) -> None:
    interruption = Interruption()
    with FileMeter(
        cast("str", options.source),
        counting,
        stores=options.stores,
        expression=options.expression,
        skew_ns=round(options.skew_s * _NS_PER_S),
        tolerance_ns=round(options.tolerance_s * _NS_PER_S),
    ) as meter:
        garbage.look_no_more()
        broken: PktprocError | None = None
        total_bytes = meter.offline.capture.total_bytes
        with Progress(total_bytes) as progress, ended_by_signals(interruption.stop):
            try:
                for _ in interruption.until(meter.steps()):
                    progress.reach(meter.offline.capture.bytes_read)
            except FormatError as error:
                broken = error
        view = meter.view(most=options.most, sort=options.sort)
        _report(options, view, lambda: meter.series(view), draw)
        _close(view)
        for note in view.notes:
            say(note)
        if interruption.came:
            say(f"told to stop: these are not all packets of {escape(str(options.source))}")
        if broken is not None:
            raise broken


def _report(options: SummaryOptions, view: View, series: Callable[[], Series], draw: Draw | None) -> None:
    """Print the report and draw the plot."""
    if draw is not None:
        draw(view, series())
    course = series() if options.interval_ns is not None and options.format != "table" else None
    if options.format == "json":
        text = json_report(view, course, cmdline=options.cmdline)
    elif options.format == "csv":
        text = csv_report(view, course)
    else:
        text = _table(options, view)
    write_all(sys.stdout.fileno(), text)


def _table(options: SummaryOptions, view: View) -> str:
    is_terminal = sys.stdout.isatty()
    width = UNLIMITED
    if is_terminal or os.environ.get("COLUMNS", "").isdecimal():
        width = max(_columns(), 20)
    colour = is_terminal and options.colour
    return table(
        view, width=width, units=cast("Units", options.units), curves=options.interval_ns is not None, colour=colour
    )


def _columns() -> int:
    told = os.environ.get("COLUMNS", "")
    return int(told) if told.isdecimal() and int(told) else os.get_terminal_size(sys.stdout.fileno()).columns


def _close(view: View, *lines: str) -> None:
    captured = view.captured
    text = [counted(captured.packets, "packet counted"), *lines]
    if captured.duplicate_packets:
        text.append(counted(captured.duplicate_packets, "packet seen again on another interface, not counted"))
    click.echo("\n".join(text), err=True)


def _own_notes(view: View, told: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(note for note in view.notes if note not in told)
