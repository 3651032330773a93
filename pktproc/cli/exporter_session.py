"""One run of `pktproc exporter`: a capture that is counted, and a server that tells the counts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from prometheus_client import CollectorRegistry, start_http_server

from pktproc.bandwidth.views import View
from pktproc.capture.live import CaptureOptions
from pktproc.cli import garbage
from pktproc.cli.exporter_options import ExporterOptions, Listen
from pktproc.cli.signals import ended_by_signals
from pktproc.cli.talk import say
from pktproc.errors import PktprocError
from pktproc.kernel import privileges
from pktproc.metering import KEPT_INTERVALS, Counting, LiveMeter
from pktproc.output.escape import escape
from pktproc.output.metrics import BY, ViewMetrics


def run(options: ExporterOptions) -> None:
    """Count and serve until told to stop."""
    capture = CaptureOptions(interfaces=options.interfaces, netns=options.netns, expression=options.expression)
    counting = Counting(
        by=BY,
        layer=options.layer,
        keep=KEPT_INTERVALS,
        per_interface=options.per_interface,
        selection=options.selection.selection(),
    )
    with (
        LiveMeter(capture, counting, engine=options.engine, cmdline=False) as meter,
        ended_by_signals(meter.stop),
        _served(options, ViewMetrics(lambda: _look(meter), options.max_series)) as served,
    ):
        garbage.look_no_more()
        for note in meter.notes:
            say(note)
        meter.start(time.time_ns())
        place = f" in {', '.join(map(escape, options.netns))}" if options.netns else ""
        say(f"listening on {', '.join(map(escape, capture.interfaces))}{place}, engine {meter.engine}")
        say(f"serving http://{served}/metrics")
        looks = garbage.RareLooks()
        for _ in meter.steps():
            looks.look_if_due()
        for shortfall in meter.live.shortfalls():
            say(shortfall)


def _look(meter: LiveMeter) -> View:
    return replace(meter.view(time.time_ns()), notes=tuple(meter.live.shortfalls()))


@contextmanager
def _served(options: ExporterOptions, metrics: ViewMetrics) -> Iterator[Listen]:
    """Serve the metrics meanwhile, without privileges that are not wanted any more; give where."""
    if options.user:
        privileges.become(options.user)  # before there are threads: capabilities are each one's own
    listen, registry = options.listen, CollectorRegistry()
    registry.register(metrics)
    try:
        server, thread = start_http_server(listen.port, listen.address, registry)
    except OSError as error:
        raise PktprocError(
            f"cannot serve on {listen}: {error.strerror or error}; choose another address or port by --listen"
        ) from error
    try:
        yield listen._replace(port=server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
