"""A file of packets: all or nothing of each write, and errors that name the file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from pktproc.errors import UsageError
from pktproc.output.stream import write_bytes

STANDARD_OUTPUT = "-"
"""Standard output in place of a file's name; where a file is read it stands for standard input."""

# As the umask has it, like tcpdump's files: what processes sent is no less secret than their command lines, so who may
# read the one may read the other. A store has command lines of all users without any traffic, and is its owner's alone.
_PERMISSIONS = 0o666
_STDIN, _STDOUT = 0, 1


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
        try:
            write_bytes(self._descriptor, data)
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


def check_is_not_read(output: str, sources: Iterable[str]) -> None:
    """Raise `UsageError` if a file that is to be written is one of those that are read meanwhile, by whatever name."""
    written = _identity(output, _STDOUT)
    for source in sources:
        if written is not None and written == _identity(source, _STDIN):
            raise UsageError(f"{output} is the file that is read: name another one to write")


def _identity(path: str, standard: int) -> tuple[int, int] | None:
    """Return what tells a regular file from all others, None for what is none."""
    try:
        status = os.fstat(standard) if path == STANDARD_OUTPUT else os.stat(path)  # noqa: PTH116 - alike
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None
