"""The thread that must not be late: it looks first packets up at once, and hears of processes that end."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TypeVar

from pktproc.attribution.clocks import monotonic_offset_ns
from pktproc.attribution.endings import Exit
from pktproc.attribution.lookahead import LookAhead, Sighting, still_theirs
from pktproc.capture.live import ScoutPost
from pktproc.errors import PktprocError
from pktproc.kernel import privileges
from pktproc.kernel.exits import ExitWatch
from pktproc.kernel.processes import ProcessReader
from pktproc.model import Process

Item = TypeVar("Item")

# So often is looked whether scouts may take more again; all else wakes the thread.
_POLL_S = 0.2
# Scouts are read again after each look, to see whether it came too late; a flood of connections has no end to that.
_MOST_LOOKS = 8
# What nobody fetched is dropped, the oldest first: sightings and exits only make answers earlier and safer.
_MOST_KEPT = 1 << 12


class Watch:
    """Run a `LookAhead` on what scouts hear and follow processes, in a thread of its own.

    `trouble` says why it gave up, if it did. `forgotten` counts sightings that nobody fetched in time.
    """

    def __init__(self, posts: Sequence[ScoutPost], look_ahead: LookAhead) -> None:
        self.trouble: str | None = None
        self.forgotten = 0
        self._posts = {post.scout.fileno(): post for post in posts}
        self._look_ahead = look_ahead
        self._exit_watch = ExitWatch(ProcessReader(cmdline=False))
        self._sightings: deque[Sighting] = deque(maxlen=_MOST_KEPT)
        self._exits: deque[Exit] = deque(maxlen=_MOST_KEPT)
        self._stopping = threading.Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._epoll = select.epoll()
        for descriptor in (*self._posts, self._exit_watch.fileno(), self._wake):
            self._epoll.register(descriptor, select.EPOLLIN)
        self._thread = threading.Thread(target=self._run, name="pktproc-watch", daemon=True)

    def start(self) -> None:
        """Begin to listen; once is enough."""
        if not self._thread.ident:
            self._thread.start()

    def stop(self) -> None:
        """End the thread, wait for it and close everything."""
        self._stopping.set()
        os.eventfd_write(self._wake, 1)
        if self._thread.is_alive():
            self._thread.join()
        self._epoll.close()
        self._exit_watch.close()
        os.close(self._wake)

    def follow(self, processes: Iterable[Process]) -> None:
        """Hear when these processes end."""
        self._exit_watch.follow(processes)

    def sightings(self) -> list[Sighting]:
        """Return what was seen of first packets since the last call."""
        return _emptied(self._sightings)

    def exits(self) -> list[Exit]:
        """Return which processes ended since the last call, up to this very moment."""
        self._note_exits()
        return _emptied(self._exits)

    def _run(self) -> None:
        try:
            privileges.hurry()
            while not self._stopping.is_set():
                ready = self._epoll.poll(_POLL_S if self._posts else None)
                self._note_exits()
                now_ns = time.monotonic_ns()
                for descriptor, _ in ready:
                    if descriptor in self._posts:
                        self._hear(self._posts[descriptor], now_ns)
                for post in self._posts.values():
                    post.scout.widen(now_ns)
        except (PktprocError, OSError) as error:
            self.trouble = str(error)

    def _hear(self, post: ScoutPost, now_ns: int) -> None:
        offset_ns = monotonic_offset_ns(time.monotonic_ns, time.time_ns)
        heard = post.scout.read(post.tap.netns, post.tap.ifindexes, now_ns)
        for look in range(1, _MOST_LOOKS + 1):
            found = self._look_ahead.sightings((flow, wall_ns + offset_ns) for flow, wall_ns in heard)
            heard = post.scout.read(post.tap.netns, post.tap.ifindexes, now_ns) if look < _MOST_LOOKS else []
            found = still_theirs(found, heard)
            self.forgotten += max(0, len(self._sightings) + len(found) - _MOST_KEPT)
            self._sightings += found
            if not heard:
                return

    def _note_exits(self) -> None:
        now_ns = time.monotonic_ns()
        self._exits += [Exit(process, now_ns) for process in self._exit_watch.ended()]


def _emptied(items: deque[Item]) -> list[Item]:
    return [items.popleft() for _ in range(len(items))]
