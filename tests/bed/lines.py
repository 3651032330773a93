"""A child's output stream, collected by a thread, and conditions to wait for on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import IO


class Lines:
    """Collect the lines of a byte stream until it ends.

    Undecodable bytes become surrogates. Only `\\n` ends a line.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._ended = False
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._collect, daemon=True)
        self._thread.start()

    def _collect(self) -> None:
        for line in self._stream:
            with self._condition:
                self._lines.append(line.decode(errors="surrogateescape").removesuffix("\n"))
                self._condition.notify_all()
        with self._condition:
            self._ended = True
            self._condition.notify_all()
        self._stream.close()

    def so_far(self) -> list[str]:
        """Return the lines that arrived until now."""
        with self._condition:
            return list(self._lines)

    def to_the_end(self, timeout: float) -> list[str]:
        """Return all lines once the stream has ended; raise TimeoutError when it does not within `timeout` seconds."""
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise TimeoutError(f"the stream did not end within {timeout} s")
        return self.so_far()

    def beyond(self, count: int, timeout: float) -> list[str]:
        """Wait for lines after the first `count` and return them; none when the stream ends or time runs out."""
        with self._condition:
            self._condition.wait_for(lambda: len(self._lines) > count or self._ended, timeout)
            return self._lines[count:]

    def find(self, wanted: Callable[[str], bool], count: int, timeout: float) -> bool:
        """Wait until `count` lines are wanted ones; return False when the stream ends or time runs out before."""
        deadline = time.monotonic() + timeout
        seen = found = 0
        while found < count:
            fresh = self.beyond(seen, max(0, deadline - time.monotonic()))
            if not fresh:
                return False
            seen += len(fresh)
            found += sum(map(wanted, fresh))
        return True
