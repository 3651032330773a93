"""Savefiles one after another, by size, by time and by number, with the names that tcpdump(1) gives them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from pktproc.errors import UsageError
from pktproc.output.savefile import Savefile

_SIZE = re.compile(r"([0-9]{1,12})(?:([kmg])b?)?", re.ASCII | re.IGNORECASE)
_UNITS = {"": 1_000_000, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(frozen=True, slots=True)
class Rotation:
    """When to go on to the next file, as tcpdump's `-C`, `-G` and `-W` have it; None for never.

    A file ends before the first packet that finds more than `file_bytes` bytes in it, or that comes `seconds` or more
    after the file's beginning. `files` with `file_bytes` makes a ring of so many files; with `seconds` alone writing
    ends after so many; with both it only makes the numbers in the names as wide.
    """

    file_bytes: int | None = None
    seconds: int | None = None
    files: int | None = None


def parse_size(text: str) -> int:
    """Return the bytes that `-C` means: millions, or units of 2^10, 2^20 and 2^30 behind which stands k, m or g.

    The suffixes (also kb, mb, gb, in either case) are those of tcpdump 4.99.5. Raise `UsageError` for anything else.
    """
    found = _SIZE.fullmatch(text)
    size = int(found[1]) * _UNITS[(found[2] or "").lower()] if found else 0
    if size <= 0:
        raise UsageError(f"-C {text}: give a file size in millions of bytes, or with a suffix such as 500k, 64m, 2g")
    return size


class RotatingFile:
    """Write to one file after another; whoever writes asks `turn` before each packet that may begin the next.

    `path` may hold conversions of strftime(3), which are replaced by the local time at which a file begins if the
    rotation has `seconds`. Raise OSError, with the file's name, as open(2) and write(2) do.
    """

    def __init__(self, path: str, rotation: Rotation, clock: Callable[[], float] = time.time) -> None:
        self._template = path
        self._rotation = rotation
        self._clock = clock
        self._number = 0
        self._by_time = 1
        self._began_s = int(clock())
        self._written_bytes = 0
        self._file = Savefile(self._name())

    @property
    def path(self) -> str:
        """Return the name of the file that is written now."""
        return self._file.path

    @property
    def finished(self) -> bool:
        """Say whether the last file's time is over, so that nothing more is to be written."""
        files = self._rotation.files
        return files is not None and self._rotation.file_bytes is None and self._by_time >= files and self._is_over()

    @property
    def room_bytes(self) -> int | None:
        """Return how many more bytes may come before a packet so that this still goes into the same file."""
        limit = self._rotation.file_bytes
        return None if limit is None else max(limit - self._written_bytes, -1)

    def turn(self) -> bool:
        """Go on to the next file if it is time for it; return whether it was."""
        room_bytes = self.room_bytes
        if self._is_over():
            self._began_s = int(self._clock())
            self._by_time += 1
            self._number = 0
        elif room_bytes is not None and room_bytes < 0:
            self._number += 1
            if self._rotation.files is not None and self._number >= self._rotation.files:
                self._number = 0
        else:
            return False
        self._file.close()
        self._file = Savefile(self._name())
        self._written_bytes = 0
        return True

    def write(self, data: bytes) -> None:
        """Write all of `data` to the file that is written now."""
        self._file.write(data)
        self._written_bytes += len(data)

    def close(self) -> None:
        """Close the file; nothing is written after that."""
        self._file.close()

    def _is_over(self) -> bool:
        seconds = self._rotation.seconds
        return seconds is not None and int(self._clock()) - self._began_s >= seconds

    def _name(self) -> str:
        """Return a file's name (`MakeFilename` in tcpdump.c): the number follows where size decides."""
        name = self._template
        if self._rotation.seconds is not None:
            name = time.strftime(name, time.localtime(self._began_s))
        width = _width(self._rotation.files)
        if self._rotation.file_bytes is None or (self._number == 0 and width == 0):
            return name
        return f"{name}{self._number:0{width}d}" if width else f"{name}{self._number}"


def _width(files: int | None) -> int:
    """Return how many digits the largest number of a ring has; a ring of one needs none."""
    return len(str(files - 1)) if files is not None and files > 1 else 0
