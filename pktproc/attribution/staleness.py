"""Which cached answers may have become void before their time, by port and by process."""

from __future__ import annotations

from collections.abc import Callable

from cachetools import TTLCache

from pktproc.model import Attribution, Flow, ProcessId

NS_PER_S = 1_000_000_000
MAX_NOTES = 1 << 16
# Answers for whole flows are cached for less than this.
NOTE_TTL_NS = 3 * NS_PER_S


class Staleness:
    """Number changes of the world, so that an answer can tell whether something that it rests on changed since.

    `now` is the number of the latest change. `clock` returns monotonic nanoseconds.
    """

    def __init__(self, clock: Callable[[], int]) -> None:
        self.now = 0
        self._everything = 0
        self._ports: TTLCache[tuple[int, int], int] = TTLCache(MAX_NOTES, NOTE_TTL_NS, timer=clock)
        self._processes: TTLCache[ProcessId, int] = TTLCache(MAX_NOTES, NOTE_TTL_NS, timer=clock)

    def port(self, protocol: int, port: int) -> None:
        """Note that a socket on a port began or ended."""
        self.now += 1
        self._ports[protocol, port] = self.now

    def process(self, process: ProcessId) -> None:
        """Note that a process ended."""
        self.now += 1
        self._processes[process] = self.now

    def everything(self) -> None:
        """Note that anything may have changed."""
        self.now += 1
        self._everything = self.now

    def touches(self, since: int, flow: Flow, *ends: Attribution | None) -> bool:
        """Say whether something changed after number `since` that the answers for the ends of a flow rest on."""
        if since >= self.now:
            return False
        if since < self._everything:
            return True
        subject = flow.quoted or flow
        ports = ((subject.protocol, subject.source_port), (subject.protocol, subject.destination_port))
        if any(self._ports.get(port, 0) > since for port in ports):
            return True
        processes = (end.process.id for end in ends if end and end.process)
        return any(self._processes.get(process, 0) > since for process in processes)
