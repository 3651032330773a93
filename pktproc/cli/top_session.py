"""One run of `pktproc top`: from the open capture to a terminal as it was before."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from pktproc.bandwidth.ledger import LAG_NS
from pktproc.capture.live import CaptureOptions
from pktproc.cli import garbage
from pktproc.cli.quantities import NS_PER_S
from pktproc.cli.signals import StopFlag, ended_by_signals
from pktproc.cli.talk import say
from pktproc.cli.top_batch import Batch
from pktproc.cli.top_options import TopOptions
from pktproc.cli.top_source import MeterSource
from pktproc.errors import PktprocError, UsageError
from pktproc.metering import Counting, LiveMeter
from pktproc.output.amounts import Units
from pktproc.output.escape import escape
from pktproc.output.stream import write_all

_MOST_STEPS = 60  # intervals, of a second at least, that the rates of a view are taken over
_LONGEST_REFRESH_NS = 60 * NS_PER_S  # to which keys can change it
_LEAST_KEPT_INTERVALS = 30  # more than a line's history has room for
# A view is made when the interval before it is whole: then its rates are of all that came since the view before.
_SETTLED_NS = LAG_NS + NS_PER_S // 20
_DIMENSIONS = {"program": "name"}


def run(options: TopOptions) -> None:
    """Show the screen until it is left, or print views until there were enough."""
    if options.batch:
        _run_batch(options)
    else:
        _check_terminal()
        _run_screen(options)


def _check_terminal() -> None:
    # Textual reads keys from standard input, and draws on standard error so that output can be piped.
    streams = (sys.stdin, sys.stdout, sys.stderr)
    if any(stream is None or not stream.isatty() for stream in streams):
        raise UsageError("the screen needs a terminal for input, output and errors: use --batch where there is none")


@contextmanager
def _metered(options: TopOptions) -> Iterator[LiveMeter]:
    capture = CaptureOptions(interfaces=options.interfaces, netns=options.netns, expression=options.expression)
    steps = min(-(-options.delay_ns // NS_PER_S), _MOST_STEPS)
    interval_ns = options.delay_ns // steps
    counting = Counting(
        by=_dimensions(options),
        layer=options.layer,
        interval_ns=interval_ns,
        keep=max(steps, _LONGEST_REFRESH_NS // interval_ns, _LEAST_KEPT_INTERVALS) + 1,
        per_interface=options.per_interface,
        selection=options.selection.selection(),
    )
    with LiveMeter(capture, counting, engine=options.engine, cmdline=options.cmdline) as meter:
        garbage.look_no_more()
        yield meter
        for shortfall in meter.live.shortfalls():
            say(shortfall)


def _dimensions(options: TopOptions) -> tuple[str, ...]:
    return (_DIMENSIONS.get(options.group, options.group),)


def _place(options: TopOptions) -> str:
    place = ", ".join(options.interfaces)
    return f"{place} in {', '.join(options.netns)}" if options.netns else place


def _run_screen(options: TopOptions) -> None:
    from pktproc.tui.app import TopApp  # noqa: PLC0415 - Textual, which nothing else needs
    from pktproc.tui.remote_names import RemoteNames  # noqa: PLC0415 - with the screen

    with _metered(options) as meter:
        source = MeterSource(meter, _place(options), cmdline=options.cmdline)
        app = TopApp(
            source,
            group=options.group,
            refresh_s=options.delay_ns / NS_PER_S,
            units=cast("Units", options.units),
            names=RemoteNames(on=not options.numeric),
        )
        source.start()
        try:
            error = app.run()
        finally:
            source.close()
        if error is not None:
            raise error
        if app.return_code:
            raise PktprocError("the screen broke down, see above")


def _run_batch(options: TopOptions) -> None:
    if sys.stdout is None:
        raise UsageError("standard output is closed: there is nowhere to print the views")
    end = StopFlag()
    with _metered(options) as meter, ended_by_signals(end.set):
        for note in meter.notes:
            say(note)
        source = MeterSource(meter, _place(options), cmdline=options.cmdline)
        source.start()
        try:
            say(f"listening on {escape(source.place)}, engine {meter.engine}")
            _print_views(options, source, end)
        finally:
            source.close()


def _print_views(options: TopOptions, source: MeterSource, end: StopFlag) -> None:
    """Print as many views as are wanted; one more when told to end, of what was counted since the last."""
    batch, by, delay_s = Batch(options), _dimensions(options), options.delay_ns / NS_PER_S
    due_ns = time.monotonic_ns() + _SETTLED_NS
    for _ in range(options.count) if options.count is not None else itertools.count():
        due_ns += options.delay_ns
        told = end.wait((due_ns - time.monotonic_ns()) / NS_PER_S)
        write_all(sys.stdout.fileno(), batch.text(source.view(by, delay_s)))
        if told:
            return
