"""A file of packets: all or nothing of each write, and errors that name the file."""

from __future__ import annotations

import os
import select
from types import TracebackType
from typing import Self

STANDARD_OUTPUT = "-"
_PERMISSIONS = 0o666
_STDOUT = 1


class Savefile:
    """Write to a file, which is made anew, or to standard output as `-`.

    Nothing is kept back in between, so that what was written is there whatever happens to this process. Raise OSError,
    with the file's name, as open(2) and write(2) do; `BrokenPipeError` once nobody reads a pipe any more.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._name = "standard output" if path == STANDARD_OUTPUT else path
        self._descriptor = _STDOUT if path == STANDARD_OUTPUT else _open(path)
        self._is_open = True

    def write(self, data: bytes) -> None:
        """Write all of `data`."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError as error:
                error.filename = self._name
                raise

    def close(self) -> None:
        """Close the file; standard output stays open."""
        if self._is_open and self._descriptor != _STDOUT:
            os.close(self._descriptor)
        self._is_open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _PERMISSIONS)
