"""A host whose every fact is known, recorded into a store that is read back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from attribution.host import HOME, NS_PER_S, WALL_NS, Clock, End, Host
from pktproc.attribution.history import RecordedSocket
from pktproc.model import Process, Protocol, Socket, pack_address
from pktproc.snapshots.history import StoreHistory
from pktproc.snapshots.recorder import NOTICE_DELAY_NS, Recorder
from pktproc.snapshots.retention import Retention
from pktproc.snapshots.store import Store

OURS, THEIRS = "10.77.0.1", "10.77.0.2"
BEGIN_NS = 5_000 * NS_PER_S + WALL_NS
NOTICE_S = NOTICE_DELAY_NS / NS_PER_S


def at(seconds: float) -> int:
    """Return a time in ns since the epoch, by seconds since the first look."""
    return BEGIN_NS + round(seconds * NS_PER_S)


class DumpedHost(Host):
    """A host whose dumps may pass a socket over, and whose sockets can get other ends as connect(2) gives them."""

    def __init__(self, clock: Clock, *, hears_ends: bool, scan_ms: float) -> None:
        super().__init__(clock, hears_ends=hears_ends, scan_ms=scan_ms)
        self.passed_over: set[int] = set()

    def sockets(self, netns: int) -> list[Socket]:
        return [socket for socket in super().sockets(netns) if socket.cookie not in self.passed_over]

    def reconnect(self, socket: Socket, remote: End) -> Socket:
        """Give a datagram socket another remote end."""
        key = self._key(socket)
        self._table[key] = moved = socket._replace(remote_address=pack_address(remote[0]), remote_port=remote[1])
        return moved

    def execute(self, process: Process, name: str) -> Process:
        """Let a process run another program."""
        self._processes[process.pid] = changed = replace(process, name=name, exe=f"/usr/bin/{name}")
        return changed


class Bench:
    """Record a host once a second; `wait` lets time pass, `look` records at the next full second."""

    def __init__(
        self,
        path: Path,
        *,
        hears_ends: bool = True,
        scan_ms: float = 0,
        max_bytes: int | None = None,
        max_age_s: float | None = None,
    ) -> None:
        self.path = path
        self.clock = Clock()
        self.set_back_ns = 0
        self.host = DumpedHost(self.clock, hears_ends=hears_ends, scan_ms=scan_ms)
        self.store = Store(path)
        max_age_ns = None if max_age_s is None else round(max_age_s * NS_PER_S)
        self.retention = Retention(self.store, max_bytes=max_bytes, max_age_ns=max_age_ns)
        self.recorder = self.new_recorder()

    def new_recorder(self, interval_ns: int = NS_PER_S) -> Recorder:
        return Recorder(
            self.host,
            self.store,
            self.clock,
            lambda: self.clock.wall_ns() - self.set_back_ns,
            interval_ns=interval_ns,
            retention=self.retention,
        )

    def wait(self, seconds: float) -> None:
        """Let time pass, and hear of what ends."""
        self.clock.advance(seconds * 1000)
        self.recorder.hear()

    def look(self, seconds: float = 1.0) -> None:
        """Let time pass, hear and look."""
        self.wait(seconds)
        self.recorder.look()

    def end(self) -> None:
        self.recorder.close()
        self.store.close()

    def kill(self) -> None:
        """End as a killed recorder does: with nothing more written."""
        self.store.close()

    @contextmanager
    def history(self) -> Iterator[StoreHistory]:
        with closing(StoreHistory(self.path)) as history:
            yield history

    def recorded(self, socket: Socket) -> list[RecordedSocket]:
        """Return what the store has on the ends of a socket."""
        with self.history() as history:
            found = history.sockets(
                socket.netns, socket.protocol, socket.local_port, socket.remote_address, socket.remote_port
            )
            return [one for one in found if one.socket[:6] == socket[:6]]

    def only(self, socket: Socket) -> RecordedSocket:
        (recorded,) = self.recorded(socket)
        return recorded

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what any other program that knows SQLite reads."""
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(query).fetchall()

    def connect(self, holder: Any, port: int = 40000, remote_port: int = 80, **more: Any) -> Socket:
        return self.host.open(holder, (OURS, port), (THEIRS, remote_port), **more)

    def listen(self, holder: Any, port: int = 80, **more: Any) -> Socket:
        return self.host.open(holder, ("0.0.0.0", port), **more)

    def bind(self, holder: Any, port: int = 5000, **more: Any) -> Socket:
        return self.host.open(holder, ("0.0.0.0", port), protocol=Protocol.UDP, **more)


__all__ = ["BEGIN_NS", "HOME", "NOTICE_S", "OURS", "THEIRS", "Bench", "at"]
