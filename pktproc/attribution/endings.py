"""What is known of sockets that ended: which, and on which addresses something ended a moment ago."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from pktproc.attribution.engine import Ends, ends_of
from pktproc.attribution.recent import Recent
from pktproc.model import ProcessId, Socket, SocketId

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

MAX_ENDED = 1 << 15
# TIME_WAIT lasts 60 s (TCP_TIMEWAIT_LEN, include/net/tcp.h); late packets come within it.
PAST_TTL_NS = 90 * NS_PER_S
# Notices overtake packets that wait in a block of the capture, and the walk may be behind by some blocks.
RECENT_NS = 50 * NS_PER_MS

# Of the end of a process and of its sockets is heard in either order, a moment apart.
TOGETHER_NS = 20 * NS_PER_MS


class Exit(NamedTuple):
    """The end of a process, which happened shortly before it was heard of at `heard_ns` (monotonic)."""

    process: ProcessId
    heard_ns: int


class Endings:
    """Remember the sockets and processes that ended; `clock` returns monotonic nanoseconds."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._ended: Recent[SocketId, int] = Recent(MAX_ENDED, PAST_TTL_NS, clock)
        self._exits: Recent[ProcessId, int] = Recent(MAX_ENDED, PAST_TTL_NS, clock)
        self._recent: Recent[Ends, frozenset[SocketId]] = Recent(MAX_ENDED, RECENT_NS, clock)

    def note(self, sockets: Iterable[Socket]) -> None:
        """Take note of sockets that ended."""
        now = self._clock()
        for socket in sockets:
            self._ended[socket.id] = now
            ends = ends_of(socket)
            self._recent[ends] = self.recent(ends) | {socket.id}

    def has_ended(self, socket: SocketId) -> bool:
        """Say whether the end of a socket was heard of, within the last 90 s."""
        return socket in self._ended

    def recent(self, ends: Ends) -> frozenset[SocketId]:
        """Return the sockets with these ends that ended within the last 50 ms."""
        return self._recent.get(ends) or frozenset()

    def at_once(self, process: ProcessId, sockets: Iterable[SocketId]) -> bool:
        """Say whether a process and a socket ended together, so that it was among those who held it to the end.

        The kernel closes files on the way to the end of a process (do_exit in kernel/exit.c).
        """
        exit_ns = self.exit_ns(process)
        return exit_ns is not None and any(
            abs((self._ended.get(socket) or 0) - exit_ns) <= TOGETHER_NS for socket in sockets
        )

    def note_exit(self, ended: Exit) -> None:
        """Take note of a process that ended; what is heard again does not make it later."""
        if ended.process not in self._exits:
            self._exits[ended.process] = ended.heard_ns

    def exit_ns(self, process: ProcessId) -> int | None:
        """Return when the end of a process was heard of, None if it was not."""
        return self._exits.get(process)
