"""What a capture file brings, read by a thread of its own while the packets before are worked on."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

MAX_AHEAD = 1
"""Pieces that wait to be worked on beside the one that is read; a file's are of some 16 MB."""


class _End(Generic[Item]):
    """The end of what is read, and the error that it came by, if any."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error


def read_ahead(pieces: Iterable[Item]) -> Iterator[Item]:
    """Yield the pieces in order; raise what reading them raises, behind those that came before.

    Whoever gives up before the end waits for the piece that is being read, so that afterwards nobody reads any more.
    """
    ready: queue.Queue[Item | _End[Item]] = queue.Queue(MAX_AHEAD)
    given_up = threading.Event()
    thread = threading.Thread(target=_read, args=(pieces, ready, given_up), name="pktproc-read", daemon=True)
    thread.start()
    try:
        while not isinstance(piece := ready.get(), _End):
            yield piece
    finally:
        given_up.set()
        while not ready.empty():  # or the thread could wait for room
            ready.get()
        thread.join()
    if piece.error is not None:
        raise piece.error


def _read(pieces: Iterable[Item], ready: queue.Queue[Item | _End[Item]], given_up: threading.Event) -> None:
    error: Exception | None = None
    try:
        for piece in pieces:
            ready.put(piece)
            if given_up.is_set():
                return
    except Exception as raised:  # noqa: BLE001 - whatever it is, the one who waits for the piece is to have it
        error = raised
    ready.put(_End(error))
