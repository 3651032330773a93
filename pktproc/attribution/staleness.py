"""Which cached answers may have become void before their time, by port and by process."""

from __future__ import annotations

from itertools import takewhile

from pktproc.model import Attribution, Flow, ProcessId

# Twice as many as there are ports, which leaves some for the protocols that are seldom seen.
MAX_NOTES = 1 << 17


class Staleness:
    """Number changes of the world, so that an answer can tell whether something that it rests on changed since.

    `now` is the number of the latest change. When there are too many notes, everything may have changed.
    """

    def __init__(self) -> None:
        self.now = 0
        self._everything = 0
        self._ports: dict[tuple[int, int], int] = {}
        self._processes: dict[ProcessId, int] = {}

    def port(self, protocol: int, port: int) -> None:
        """Note that a socket on a port began or ended."""
        self.now += 1
        self._ports.pop((protocol, port), None)  # so that the latest come last
        self._ports[protocol, port] = self.now
        if len(self._ports) > MAX_NOTES:
            self.everything()

    def process(self, process: ProcessId) -> None:
        """Note that a process ended."""
        self.now += 1
        self._processes[process] = self.now
        if len(self._processes) > MAX_NOTES:
            self.everything()

    def everything(self) -> None:
        """Note that anything may have changed."""
        self.now += 1
        self._everything = self.now
        self._ports.clear()
        self._processes.clear()

    def ports_since(self, since: int) -> list[tuple[int, int]] | None:
        """Return the protocols and ports noted after number `since`, None if everything may have changed."""
        if since < self._everything:
            return None
        return [port for port, _ in takewhile(lambda note: note[1] > since, reversed(self._ports.items()))]

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
