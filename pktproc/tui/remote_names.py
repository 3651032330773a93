"""Names of remote addresses, looked up beside everything else."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from queue import Empty, Full, Queue
from threading import Lock, Thread

from cachetools import TTLCache

from pktproc.model import format_address

Resolver = Callable[[str], str | None]

_MOST_NAMES = 16_384  # more than a screen and its neighbours show
_MOST_WAITING = 256  # those that wait longer are asked for again when they are shown again
_LIFE_S = 600
_THREADS = 4
_IDLE_S = 10.0


def ask_system(address: str) -> str | None:
    """Return the host name that the system's resolver has for an address, None if it has none."""
    try:
        return socket.getnameinfo((address, 0), socket.NI_NAMEREQD)[0]
    except (OSError, UnicodeError):
        return None


class RemoteNames:
    """Remember host names for 10 minutes; `name` answers at once with what is known.

    Threads that wait for the resolver are daemons: a resolver that hangs never keeps the program from ending. They end
    when there is nothing to ask for. `on` says whether addresses have names at all. `found` is called, by
    such a thread, when there are new names and none is waited for.
    """

    def __init__(
        self, resolve: Resolver = ask_system, *, on: bool = True, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.on = on
        self.found: Callable[[], None] = _nothing
        self._resolve = resolve
        self._names: TTLCache[bytes, str | None] = TTLCache(_MOST_NAMES, _LIFE_S, clock)
        self._asked: set[bytes] = set()
        self._waiting: Queue[bytes] = Queue(_MOST_WAITING)
        self._threads = 0
        self._lock = Lock()

    def name(self, address: bytes) -> str | None:
        """Return the name of an address if it is known, and have it looked up if it is not."""
        if not self.on:
            return None
        with self._lock:
            if address in self._names:
                return self._names[address]
            self._ask(address)
        return None

    def known(self, address: bytes) -> str | None:
        """Return the name of an address if it is known."""
        if not self.on:
            return None
        with self._lock:
            return self._names.get(address)

    def _ask(self, address: bytes) -> None:
        if address in self._asked:
            return
        try:
            self._waiting.put_nowait(address)
        except Full:
            return
        self._asked.add(address)
        if self._threads < min(_THREADS, len(self._asked)):
            self._threads += 1
            Thread(target=self._work, name="remote-names", daemon=True).start()

    def _work(self) -> None:
        while True:
            try:
                address = self._waiting.get(timeout=_IDLE_S)
            except Empty:
                with self._lock:
                    if self._waiting.empty():
                        self._threads -= 1
                        return
                continue
            name = self._resolve(format_address(address))
            with self._lock:
                self._names[address] = name
                self._asked.discard(address)
                done = not self._asked
            if done:
                self.found()


def _nothing() -> None:
    pass
