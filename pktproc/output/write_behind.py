"""A savefile that is written by a thread of its own, so that the next packets are named while the last are written."""

from __future__ import annotations

import threading
from collections import deque

from pktproc.output.savefile import Savefile

MAX_WAITING_BYTES = 8 << 20
"""Bytes that may wait to be written: what keeps both threads busy; `write` blocks where a reader or disk is slower."""


class WriteBehind:
    """Write to a `Savefile` in order, a moment later.

    An error of writing is raised by each `write` and `flush` after it, by `close` only if by none of these.
    """

    def __init__(self, file: Savefile) -> None:
        self._file = file
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._ends = False
        self._error: OSError | None = None
        self._is_told = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="pktproc-write", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Have all of `data` written."""
        with self._changed:
            while self._waiting_bytes > MAX_WAITING_BYTES and self._error is None:
                self._changed.wait()
            self._check()
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until everything is written."""
        with self._changed:
            while self._waiting_bytes and self._error is None:
                self._changed.wait()
            self._check()

    def close(self) -> None:
        """Wait until everything is written and close the file."""
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        self._thread.join()
        self._file.close()
        if self._error is not None and not self._is_told:
            raise self._error

    def _check(self) -> None:
        if self._error is not None:
            self._is_told = True
            raise self._error

    def _run(self) -> None:
        while data := self._next():
            try:
                self._file.write(data)
            except OSError as error:
                with self._changed:
                    self._error = error
                    self._waiting.clear()
                    self._changed.notify_all()
                return
            with self._changed:
                self._waiting_bytes -= len(data)
                self._changed.notify_all()

    def _next(self) -> bytes:
        """Return all that waits, empty at the end."""
        with self._changed:
            while not self._waiting and not self._ends:
                self._changed.wait()
            data = b"".join(self._waiting)
            self._waiting.clear()
            return data
