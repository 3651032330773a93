"""What the screen of `pktproc top` is told, from a meter that counts in another thread."""

from __future__ import annotations

import time
from dataclasses import replace
from threading import Thread

from pktproc.bandwidth.views import Connections, View
from pktproc.cli.garbage import RareLooks
from pktproc.cli.quantities import NS_PER_S
from pktproc.cli.top_states import TcpStates
from pktproc.kernel.processes import ProcessReader
from pktproc.metering import LiveMeter
from pktproc.model import Process

MOST_ROWS = 5_000
"""Rows of a view; what is beyond is one row. More can be neither read nor made in a fraction of a second."""
MOST_CONNECTIONS = 2_000


class MeterSource:
    """Run a meter in a thread and answer the screen; what ends the meter too early is raised by the next answer."""

    def __init__(self, meter: LiveMeter, place: str, *, cmdline: bool) -> None:
        self.place = place
        self._meter = meter
        self._reader = ProcessReader(cmdline=cmdline)
        self._states = TcpStates(meter.live.engine.companion(meter.live.capture.namespaces))
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="meter", daemon=True)

    def start(self) -> None:
        """Begin to count."""
        self._meter.start(time.time_ns())
        self._thread.start()

    def close(self) -> None:
        """End the counting."""
        self._meter.stop()
        self._thread.join()
        self._states.close()

    def _run(self) -> None:
        looks = RareLooks()
        try:
            for _ in self._meter.steps():
                looks.look_if_due()
        except BaseException as error:  # noqa: BLE001 - told to the thread that asks
            self._error = error

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def view(self, by: tuple[str, ...], rate_s: float) -> View:
        """Return all groups as of now, with rates over the last `rate_s` as near as may be."""
        self._check()
        return self._meter.view(time.time_ns(), by=by, most=MOST_ROWS, rate_ns=round(rate_s * NS_PER_S))

    def connections(self, by: tuple[str, ...], key: tuple[str, ...], rate_s: float) -> Connections:
        """Return the conversations of a group, with the states that their sockets have now."""
        self._check()
        found = self._meter.connections_of(
            key, time.time_ns(), by=by, most=MOST_CONNECTIONS, rate_ns=round(rate_s * NS_PER_S)
        )
        return replace(found, shown=self._states.added_to(found.shown))

    def ancestors(self, process: Process) -> tuple[Process, ...]:
        """Return the processes above one that are still there."""
        found = (self._reader.read(one.pid) for one in process.ancestors)
        return tuple(
            above
            for above, known in zip(found, process.ancestors, strict=True)
            if above is not None and above.start_ticks == known.start_ticks
        )

    def reset(self) -> None:
        """Begin to count anew."""
        self._meter.reset(time.time_ns())
