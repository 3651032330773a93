"""What the join asks of saved evidence: sockets, holders and addresses of a recorded host, each with its times.

All times are integer nanoseconds since the epoch, as packets have them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from pktproc.attribution.engine import Ends, Use
from pktproc.model import Process, Socket


class Span(NamedTuple):
    """When a fact was true, as far as looks at intervals can tell.

    It certainly was from `first_ns` to `last_ns`, when it was seen. It certainly was not until `after_ns`, when a look
    did not find it yet, and from `before_ns` on, when a look missed it or its end was heard; both are None where
    nothing is known. `last_ns` of what was still true at the end of the coverage is the end of that coverage. A socket
    of which only the end was heard has `first_ns`, `last_ns` and `before_ns` equal.
    """

    after_ns: int | None
    first_ns: int
    last_ns: int
    before_ns: int | None

    def covers(self, time_ns: int) -> bool:
        """Say whether the fact certainly was true at a time."""
        return self.first_ns <= time_ns <= self.last_ns

    def begin_ns(self, tolerance_ns: int) -> int:
        """Return from when on the fact may have been true; where nothing tells, `tolerance_ns` before it was seen."""
        return self.first_ns - tolerance_ns if self.after_ns is None else self.after_ns + 1

    def end_ns(self, tolerance_ns: int) -> int:
        """Return from when on the fact cannot have been true; where nothing tells, `tolerance_ns` after it was seen."""
        return self.last_ns + tolerance_ns + 1 if self.before_ns is None else self.before_ns

    def may_cover(self, time_ns: int, tolerance_ns: int) -> bool:
        """Say whether the fact may have been true at a time."""
        return self.begin_ns(tolerance_ns) <= time_ns < self.end_ns(tolerance_ns)

    def changes(self, tolerance_ns: int) -> tuple[int, ...]:
        """Return the times from which on `covers` or `may_cover` is different."""
        return self.first_ns, self.last_ns + 1, self.begin_ns(tolerance_ns), self.end_ns(tolerance_ns)


class Coverage(NamedTuple):
    """An interval in which recording ran, with engine `engine`; `hears_ends` says that no socket's end was missed.

    Looks were taken every `interval_ns`; 0 stands for a single look. `is_cut` says that there was more before, which
    has been dropped.
    """

    first_ns: int
    last_ns: int
    engine: str
    hears_ends: bool
    interval_ns: int
    is_cut: bool = False


class RecordedHolder(NamedTuple):
    """A process that held a socket, and when."""

    process: Process
    span: Span


class RecordedSocket(NamedTuple):
    """A socket with its time and its holders, who are unknown (empty) for one of which only the end was heard."""

    socket: Socket
    span: Span
    holders: tuple[RecordedHolder, ...]


class RecordedUse(NamedTuple):
    """Something that was done with the socket of a cookie, as a witness told it while recording ran.

    `use` has the time since the epoch, and `closed_ns` is when its socket was closed, None if that was not told.
    `ended_ns` is when the process of the use ended, None likewise.
    """

    cookie: int
    use: Use
    closed_ns: int | None
    ended_ns: int | None


class RecordedAddress(NamedTuple):
    """A time in which a network namespace had an address; `broadcast` marks a broadcast address of its networks."""

    netns: int
    span: Span
    broadcast: bool = False


class History(Protocol):
    """The saved evidence of one host. `name` is the evidence that answers carry."""

    name: str

    def hosts(self) -> frozenset[str]:
        """Return what tells the host, or its times between two boots; histories that have one in common are of one."""

    def coverage(self) -> Sequence[Coverage]:
        """Return the intervals in which recording ran, in order, without overlap."""

    def namespaces(self) -> frozenset[int]:
        """Return the network namespaces that were ever recorded."""

    def namespaces_with(self, protocol: int, local_port: int) -> frozenset[int]:
        """Return the namespaces that ever had a socket with a protocol and local port, or a raw one of the protocol."""

    def addresses(self, address: bytes) -> Sequence[RecordedAddress]:
        """Return when which namespaces had a 16-byte address, as their own or for broadcasts."""

    def connected(
        self, netns: int, protocol: int, local_port: int, remote_address: bytes, remote_port: int
    ) -> Sequence[RecordedSocket]:
        """Return the sockets of a namespace, at any time, with a protocol and local port and connected with an end."""

    def free(self, netns: int, protocol: int, local_port: int) -> Sequence[RecordedSocket]:
        """Return the sockets of a namespace, at any time, with a protocol and local port and connected with nobody.

        Raw sockets have their protocol as local port (see `pktproc.model.Socket`) and are there whatever the port; for
        ICMP both kinds are: those with the echo id `local_port`, and raw ones.
        """

    def users(
        self, netns: int, protocol: int, local_port: int, first_ns: int, last_ns: int
    ) -> frozenset[tuple[int, int]]:
        """Return (pid, start_ticks) of the processes that were first seen to hold a connection on a port in a time.

        Connections count that were first seen until `last_ns`, by processes that were first seen with them from
        `first_ns` on.
        """

    def testimonies(self) -> Sequence[Testimony]:
        """Return what witnesses in the kernel told while recording ran: one for each recording."""


class Testimony(Protocol):
    """What a witness told while recording ran. `name` is the evidence that answers carry."""

    name: str

    def witnessed(self) -> Sequence[tuple[int, int]]:
        """Return the times, from first to last, in which nothing that the witness should tell was missed, in order."""

    def uses(self, ends: Ends) -> Sequence[RecordedUse]:
        """Return the uses, in order of time, of all sockets that were ever used with just these ends."""
