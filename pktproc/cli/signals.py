"""Ctrl-C and SIGTERM as a normal end."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")
_MS_PER_S = 1_000


@contextmanager
def ended_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM call `stop`; a second one ends the process at once."""

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, signal.SIG_DFL)
        stop()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopFlag:
    """Tell a loop to stop, also from the handler of a signal.

    There `threading.Event` could wait forever for its own lock, which the thread that the signal came to holds.
    """

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def set(self) -> None:
        """Tell the loop to stop."""
        os.eventfd_write(self._descriptor, 1)

    def is_set(self) -> bool:
        """Say whether the loop was told to stop."""
        return self.wait(0)

    def wait(self, timeout: float) -> bool:
        """Wait until the loop is told to stop, at most for `timeout` seconds; return whether it was."""
        return bool(self._poll.poll(max(timeout, 0) * _MS_PER_S))


class Interruption:
    """Let signals, which call `stop`, end the work on what is read piece by piece; `came` says that one did.

    Work on a piece goes on to its end, since a write that is broken off leaves half a packet. Reading is broken off at
    once: a pipe may never bring another piece.
    """

    def __init__(self) -> None:
        self.came = False
        self._is_reading = False

    def stop(self) -> None:
        """End the reading, at once or after the piece that is worked on."""
        self.came = True
        if self._is_reading:
            raise KeyboardInterrupt

    def until(self, pieces: Iterable[Item]) -> Iterator[Item]:
        """Yield what is read until a signal comes."""
        source = iter(pieces)
        while (piece := self._next(source)) is not None:
            yield piece

    def _next(self, source: Iterator[Item]) -> Item | None:
        try:
            self._is_reading = True
            piece = None if self.came else next(source, None)
            self._is_reading = False
        except KeyboardInterrupt:
            return None
        finally:
            self._is_reading = False
        return piece
