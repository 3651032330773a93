"""Recording, wired: an engine looked at by a recorder at intervals, into a store."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Protocol, Self

from pktproc.kernel.engines import AUTO, open_engine, witness_of
from pktproc.kernel.netlink_engine import NetlinkEngine
from pktproc.output.counting import counted
from pktproc.refusals import with_cures
from pktproc.snapshots.recorder import Counts, Recorder
from pktproc.snapshots.retention import Retention
from pktproc.snapshots.store import Store

NS_PER_S = 1_000_000_000
# Ends of sockets are waited for so long at a time, and read together when one has come.
_HEARING_S = 0.1
_GATHERING_S = 0.1
_LONGEST_SLEEP_S = 0.2


class Stop(Protocol):
    """Says when to stop; `threading.Event` does, but not for the handler of a signal."""

    def is_set(self) -> bool:
        """Say whether it is time."""

    def wait(self, timeout: float) -> bool:
        """Wait until it is time, at most for `timeout` seconds; return whether it is."""


class Recording:
    """Record this host into the store at `path`, which is made if there is none.

    `interval_ns` is the time between two looks, 0 for a single one. `notes` are what the user should know of the
    engine.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        engine: str = AUTO,
        cmdline: bool = True,
        interval_ns: int = 0,
        max_bytes: int | None = None,
        max_age_ns: int | None = None,
    ) -> None:
        self._interval_ns = interval_ns
        with ExitStack() as opened:
            with with_cures():
                self.store = opened.enter_context(closing(Store(path)))
            self.engine, self.notes = open_engine(engine, cmdline=cmdline, witness=interval_ns > 0)
            opened.enter_context(closing(self.engine))
            self._retention = Retention(self.store, max_bytes=max_bytes, max_age_ns=max_age_ns)
            self._recorder = Recorder(
                self.engine,
                self.store,
                time.monotonic_ns,
                time.time_ns,
                interval_ns=interval_ns,
                retention=self._retention,
                namespaces=self.engine.namespaces_in_turns,
                cost_clock=time.thread_time_ns,
                witness=witness_of(self.engine),
            )
            self._opened = opened.pop_all()

    @property
    def counts(self) -> Counts:
        """Return how much was recorded so far."""
        return self._recorder.counts

    def look(self) -> None:
        """Look once."""
        self._recorder.look()

    def run(self, stop: Stop, *, duration_ns: int | None = None) -> None:
        """Look at every interval until told to stop or for a time, and a last time then."""
        begin_ns = next_ns = time.monotonic_ns()
        end_ns = None if duration_ns is None else begin_ns + duration_ns
        while not stop.is_set() and (end_ns is None or next_ns < end_ns):
            self._recorder.look()
            missed = (time.monotonic_ns() - next_ns) // self._interval_ns
            next_ns += (missed + 1) * self._interval_ns
            self._listen(stop, next_ns if end_ns is None else min(next_ns, end_ns))
        self._recorder.look()

    def _listen(self, stop: Stop, until_ns: int) -> None:
        """Hear of ends of sockets until a time."""
        while not stop.is_set() and (left_s := (until_ns - time.monotonic_ns()) / NS_PER_S) > 0:
            if isinstance(self.engine, NetlinkEngine) and self.engine.hears_ends:
                begin_ns = time.time_ns()
                if self.engine.wait_for_ends(min(left_s, _HEARING_S)):
                    stop.wait(min(left_s, _GATHERING_S))
                    self._recorder.hear()
                else:
                    self._recorder.heard_nothing(begin_ns)
            else:
                stop.wait(min(left_s, _LONGEST_SLEEP_S))

    def shortfalls(self) -> list[str]:
        """Return what did not go as it should so far, and what that means for the evidence; empty if nothing."""
        found = [limit for limit in self.engine.limits if limit not in self.notes]
        holders = self._recorder.holders
        if holders.denied:
            lack = f"{holders.denied} of {counted(holders.looked_at, 'process')} may not be inspected"
            cure = "run as root (it takes CAP_SYS_PTRACE and no fewer capabilities than theirs)"
            found.append(f"{lack}, sockets of theirs are recorded without them: {cure}")
        if self._recorder.postponed > self.counts.looks:
            times = counted(self._recorder.postponed, "time")
            found.append(f"looks at single namespaces were put off {times}: too many namespaces")
        if self._recorder.deaf_times:
            found.append(f"notices of closed sockets were lost {counted(self._recorder.deaf_times, 'time')}")
        if self._recorder.untold:
            lost = counted(self._recorder.untold, "event of a socket or a process")
            found.append(f"the kernel could not tell {lost}: what went on then is known from looks alone")
        if self._retention.cramped:
            found.append("what is still true takes more than --max-size by itself")
        return found

    def close(self) -> None:
        """End the recording and close everything."""
        try:
            self._recorder.close()
        finally:
            self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._opened.close()
