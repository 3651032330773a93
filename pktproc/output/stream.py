"""Text to a descriptor, all of it: Python's unbuffered streams lose what a signal or a full pipe leaves unwritten."""

from __future__ import annotations

import os
import select


def write_all(descriptor: int, text: str) -> None:
    """Write text as UTF-8; wait where the descriptor does not block by itself. Raise OSError as write(2) does."""
    rest = memoryview(text.encode("utf-8", "backslashreplace"))
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
