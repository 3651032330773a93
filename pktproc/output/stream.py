"""Bytes to a descriptor, all of them: a signal, a full pipe or one that does not block may cut a write short."""

from __future__ import annotations

import os
import select


def write_bytes(descriptor: int, data: bytes) -> None:
    """Write all of `data`; wait where the descriptor does not block by itself. Raise OSError as write(2) does."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


def write_all(descriptor: int, text: str) -> None:
    """Write text as UTF-8; Python's unbuffered streams would lose what is left of it. See `write_bytes`."""
    write_bytes(descriptor, text.encode("utf-8", "backslashreplace"))
