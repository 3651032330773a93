"""The walk of live packets, wired: capture -> decode and attribution -> answers in order."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Self

from pktproc.attribution.answers import AttributedBatch
from pktproc.attribution.attributor import BatchAttributor
from pktproc.attribution.backlog import GRACE_NS, Backlog
from pktproc.attribution.lookahead import LookAhead
from pktproc.capture.live import CaptureOptions, LiveCapture
from pktproc.capture.tap import Statistics
from pktproc.errors import CaptureError, PktprocError
from pktproc.kernel.engines import AUTO, open_engine, witness_of
from pktproc.offloading import Counted, Offloading
from pktproc.output.counting import counted
from pktproc.watch import Watch

_IDLE_MS = 200.0
# A thread that wants the interpreter asks for it so often. With 10 us the watch, which has priority, kept the processor
# that the walk would have given way on: both stood still for 20 ms now and then. With 100 us it comes too late.
_SWITCH_S = 0.00003
# A block costs about as much to handle as this many packets of it, so under load blocks are left to fill for a while.
_PACE_NS_PER_PACKET = 25_000
# With a witness no process is lost by waiting, so what takes its time (new flows) is done in larger portions.
_PACE_PER_COST = 4
# The ring has room for some hundred blocks, filled or not: if they take longer to fill it outlasts a longer stall.
_WITNESSED_TIMEOUT_MS = 20
_LONGEST_PACE_NS = 40_000_000
_NS_PER_MS = 1_000_000
_MS_PER_S = 1_000
_NS_PER_S = 1_000_000_000


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector off: to look through the sockets of a full host takes it a fifth of the start."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class LiveAttribution:
    """Capture packets and name their ends; iterate to get blocks in order, each with its answers.

    Iteration ends after `stop`. `notes` are what the user should know of the engine and the capture. With a
    `counted_layer`, `offloading` has the kernel count packets where it can, None where it cannot.
    """

    def __init__(
        self,
        options: CaptureOptions,
        *,
        engine: str = AUTO,
        cmdline: bool = True,
        grace_ns: int = GRACE_NS,
        counted_layer: str | None = None,
    ) -> None:
        self._stop_ns: int | None = None
        self._latest_ns = 0
        with _uncollected(), ExitStack() as opened:
            self.engine, notes = open_engine(engine, cmdline=cmdline)
            opened.enter_context(closing(self.engine))
            witness = witness_of(self.engine)
            notes += [limit for limit in self.engine.limits if limit not in notes]
            self._has_witness = witness is not None
            if witness:
                options = replace(options, timeout_ms=_WITNESSED_TIMEOUT_MS)
            self._timeout_ms = options.timeout_ms
            self.capture = opened.enter_context(closing(LiveCapture(options)))
            if not witness:  # which knows of first packets without any look-up
                self.capture.send_scouts()
            self.attributor = BatchAttributor(
                self.engine, self.capture.namespaces, time.monotonic_ns, time.time_ns, witness
            )
            self._backlog = Backlog(self.attributor, time.monotonic_ns, grace_ns)
            self.notes = notes + self.capture.notes + self._denials()
            self.offloading = self._offload(options, counted_layer, opened)
            # The watch has to get the interpreter from the walk within a fraction of a short process's life.
            opened.callback(sys.setswitchinterval, sys.getswitchinterval())
            sys.setswitchinterval(_SWITCH_S)
            companion = opened.enter_context(closing(self.engine.companion(self.capture.namespaces)))
            look_ahead = LookAhead(companion, time.monotonic_ns)
            for netns in self.capture.namespaces:
                self.attributor.rehearse(netns)
                look_ahead.rehearse(netns)
            self._watch = Watch(self.capture.posts, look_ahead)
            opened.callback(self._watch.stop)
            self._opened = opened.pop_all()

    def _denials(self) -> list[str]:
        denied, looked_at = self.attributor.index.owners.denied
        if not denied:
            return []
        lack = f"{denied} of {counted(looked_at, 'process')} may not be inspected, packets of theirs show ?permission"
        return [f"{lack}: run as root (it takes CAP_SYS_PTRACE and no fewer capabilities than theirs)"]

    def _offload(self, options: CaptureOptions, layer: str | None, opened: ExitStack) -> Offloading | None:
        if layer is None:
            return None
        try:
            return opened.enter_context(
                closing(Offloading(self.capture, options, layer, time.monotonic_ns, time.time_ns))
            )
        except PktprocError:
            return None

    def start(self) -> None:
        """Begin to look up first packets and to follow processes; once is enough, `blocks` does it as well."""
        self._watch.start()

    def stop(self, *, after_ns: int = 0) -> None:
        """End the iteration once what was captured until then has been handed over, at the earliest in `after_ns`."""
        stop_ns = time.monotonic_ns() + after_ns
        self._stop_ns = stop_ns if self._stop_ns is None else min(self._stop_ns, stop_ns)
        self.capture.interrupt()

    def statistics(self) -> Statistics:
        """Return how many packets passed the filters and how many of them the kernel dropped."""
        seen = self.capture.statistics()
        return seen._replace(received=seen.received + self.offloading.packets) if self.offloading else seen

    def blocks(self) -> Iterator[AttributedBatch | None]:
        """Yield blocks in order; None whenever there was nothing for a while, so that the caller can look around."""
        self.start()
        while self._stop_ns is None or time.monotonic_ns() < self._stop_ns:
            begin_ns = time.monotonic_ns()
            try:
                self.capture.wait(self._wait_ms())
            except CaptureError:
                yield from self._rest()
                raise
            taken_ns = time.monotonic_ns()
            count = self._take()
            yield from self._backlog.ready()
            if count == 0:
                yield None
            now_ns = time.monotonic_ns()
            pause_ns = self._pace_ns(count, now_ns - taken_ns) - (now_ns - begin_ns)
            if pause_ns > _NS_PER_MS:
                time.sleep(pause_ns / _NS_PER_S)
        yield from self._rest()

    def _pace_ns(self, count: int, cost_ns: int) -> int:
        """Return how long a block of so many packets that took so long to handle is to be from the next one."""
        pace_ns = count * _PACE_NS_PER_PACKET
        if count and self._has_witness:
            pace_ns = max(pace_ns, cost_ns * _PACE_PER_COST)
        return min(pace_ns, _LONGEST_PACE_NS)

    def _rest(self) -> Iterator[AttributedBatch]:
        """Yield what was captured until now."""
        end_ns = time.time_ns()
        if self.offloading:
            self.offloading.stop()
        time.sleep(2 * self._timeout_ms / _MS_PER_S)  # what was captured until now may still be in an open block
        while self._take() and self._latest_ns < end_ns:  # one read does not empty a ring that is well filled
            yield from self._backlog.ready()
        if self.offloading:
            self._push(self.offloading.read_now())
        while self._backlog:
            yield from self._backlog.ready()
            time.sleep(self._backlog.wait_ms(_IDLE_MS) / _MS_PER_S)

    def _wait_ms(self) -> float:
        idle_ms = _IDLE_MS
        if self._stop_ns is not None:
            idle_ms = max(0.0, min(idle_ms, (self._stop_ns - time.monotonic_ns()) / _NS_PER_MS))
        wait_ms = self._backlog.wait_ms(idle_ms)
        return self.offloading.wait_ms(wait_ms) if self.offloading else wait_ms

    def _push(self, readings: list[Counted]) -> None:
        for reading in readings:
            attributed = self.attributor.attribute(*reading)
            self._backlog.push(attributed, settled=not attributed.pending)

    def _take(self) -> int:
        batch = self.capture.read()
        if self.offloading:  # what was counted came before that for which flows were given up
            self._push(self.offloading.read(self.attributor.changed_ports()))
        self.attributor.hear()
        self.attributor.learn(self._watch.sightings())
        self._watch.follow(self.attributor.index.owners.fresh())
        self.attributor.learn((), self._watch.exits())  # of processes that were just met, too
        if batch is None:
            self._start_counting()
            return 0
        self._latest_ns = int(batch.time_ns[-1])
        attributed = self.attributor.attribute(batch)
        self.attributor.revise(attributed, self._watch.sightings())
        self._watch.follow(self.attributor.index.owners.fresh())
        self._backlog.push(attributed, settled=not attributed.pending)
        self._start_counting()
        return len(batch)

    def _start_counting(self) -> None:
        if self.offloading:
            self.offloading.start()

    def shortfalls(self) -> list[str]:
        """Return what did not go as it should so far, and what that means for the answers; empty if nothing."""
        found = [limit for limit in self.engine.limits if limit not in self.notes]
        if self._watch.trouble:
            found.append(f"first packets were not looked up at once any more: {self._watch.trouble}")
        overruns, cut = self.attributor.index.counts["overruns"], self.attributor.fragments.evictions
        untold = self.attributor.index.counts["lost"]
        if untold:
            instead = "what rested on them was looked up by netlink instead"
            found.append(f"{counted(untold, 'event')} of the kernel were lost; {instead}")
        if overruns:
            lost = counted(overruns, "time")
            found.append(f"notices of closed sockets were lost {lost}; everything was asked anew each time")
        if self._backlog.hurried:
            hurried = counted(self._backlog.hurried, "packet")
            found.append(f"{hurried} did not wait for a better answer: too many at once")
        if self._watch.forgotten:
            found.append(f"early look-ups that were not used, too many at once: {self._watch.forgotten}")
        if cut:
            found.append(f"fragmented datagrams forgotten before their end, whose rest shows ?not-covered: {cut}")
        return found

    def close(self) -> None:
        """Close the capture and the engine."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
