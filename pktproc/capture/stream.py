"""The bytes of a file, or of what comes in at standard input, decompressed where they are compressed."""

from __future__ import annotations

import io
import os
import select
import stat
import time
from types import TracebackType
from typing import Self

from pktproc.capture.compression import MAGIC_BYTES, Members, compression_of
from pktproc.errors import CaptureError, FormatError

STANDARD_INPUT = "-"
_READ_BYTES = 1 << 16
_TAKE_BYTES = 1 << 16
LINGER_S = 0.05
"""How long bytes that have come through a pipe wait for company."""


class InputStream:
    """Read a path, or standard input for `-`.

    `total_bytes` is the size of the file as it lies there, None where it has none that is known; `bytes_read` how much
    of that was read. Raise `CaptureError` for what cannot be opened or read, `FormatError` with the path and with the
    position in the decompressed stream for broken compression.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.bytes_read = 0
        self._given = 0
        self._is_ended = False
        self._defect: FormatError | None = None
        try:
            self._file = io.FileIO(0, closefd=False) if path == STANDARD_INPUT else io.FileIO(path)
            status = os.fstat(self._file.fileno())
        except (OSError, ValueError) as error:
            message = f"cannot open {path}: {_reason(error)}{_cure(error)}"
            raise CaptureError(message) from error
        is_sized = path != STANDARD_INPUT and stat.S_ISREG(status.st_mode)
        self.total_bytes = status.st_size if is_sized else None
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLIN)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        self._start = b""
        while len(self._start) < MAGIC_BYTES and (data := self._read()):
            self._start += data
        compression = compression_of(self._start)
        self._members = None
        if compression is not None:
            self._members = Members(compression)
            self._members.feed(self._start)

    def fill(self, target: memoryview) -> int:
        """Read into a buffer and return how many bytes came, 0 only at the end.

        A pipe may fill it in part: what has come is given out `LINGER_S` later. Everything before a defect is given
        out before the error is raised.
        """
        if self._defect is not None:
            raise self._defect
        filled, came, deadline = 0, 1, time.monotonic() + LINGER_S
        try:
            while came and filled < len(target) and (not filled or self._is_ready(deadline)):
                came = self._read_into(target[filled:])
                filled += came
                if filled == came:
                    deadline = time.monotonic() + LINGER_S
        except FormatError as error:
            self._defect = FormatError(f"{self.path}: {error}", path=self.path, offset=self._given + filled)
            if not filled:
                raise self._defect from error
        self._given += filled
        return filled

    def close(self) -> None:
        """Close the file; standard input stays open."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_ready(self, deadline: float) -> bool:
        """Tell whether there is more to read before the deadline."""
        if self._members is not None and not self._members.needs_input:
            return True
        wait_ms = max(deadline - time.monotonic(), 0) * 1000
        return bool(self._poll.poll(wait_ms))

    def _read_into(self, target: memoryview) -> int:
        if self._members is not None:
            return self._decompress_into(target, self._members)
        if self._start:
            came = min(len(self._start), len(target))
            target[:came] = self._start[:came]
            self._start = self._start[came:]
            return came
        if self._is_ended:
            return 0
        try:
            while (came := self._file.readinto(target)) is None:
                self._poll.poll()
        except OSError as error:
            raise self._unreadable(error) from error
        self.bytes_read += came
        self._is_ended = not came
        return came

    def _decompress_into(self, target: memoryview, members: Members) -> int:
        while not (made := members.take(min(len(target), _TAKE_BYTES))):
            data = self._read()
            if not data:
                members.finish()
                return 0
            members.feed(data)
        target[: len(made)] = made
        return len(made)

    def _read(self) -> bytes:
        if self._is_ended:
            return b""
        try:
            while (data := self._file.read(_READ_BYTES)) is None:
                self._poll.poll()
        except OSError as error:
            raise self._unreadable(error) from error
        self.bytes_read += len(data)
        self._is_ended = not data
        return data

    def _unreadable(self, error: OSError) -> CaptureError:
        return CaptureError(f"cannot read {self.path}: {_reason(error)}")


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _cure(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "; check the name and the folder"
    return "; give a capture file in it" if isinstance(error, IsADirectoryError) else ""
