"""The front door to capture files: whatever the format and the compression, batches of packets come out."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from pktproc.capture.file_batch import FileBatch, Origin, SectionInterface
from pktproc.capture.pcap_file import PcapDecoder, is_pcap
from pktproc.capture.pcapng_file import PcapngDecoder, is_pcapng
from pktproc.capture.stream import InputStream
from pktproc.errors import FormatError
from pktproc.packets.batch import Bytes

__all__ = ["CaptureFile", "FileBatch", "Origin", "SectionInterface", "open_capture"]

_CHUNK_BYTES = 1 << 24
_MAGIC_BYTES = 4


class _Decoder(Protocol):
    """A format's codec; `position` is where in the file the next record begins."""

    @property
    def position(self) -> int: ...

    def decode(self, data: Bytes, *, is_last: bool) -> Iterator[FileBatch]: ...


class CaptureFile:
    """A capture file that is being read; iterate it once.

    Raise `FormatError` behind the last whole packet before a defect, with its position in the decompressed file, and
    `CaptureError` where the file can be read no further.
    """

    def __init__(self, stream: InputStream, chunk_bytes: int) -> None:
        self._stream, self._chunk_bytes = stream, chunk_bytes
        self._buffer = np.empty(chunk_bytes, np.uint8)
        self._filled, self._is_ended = 0, False
        while self._filled < _MAGIC_BYTES and not self._is_ended:
            self._fill()
        self._decoder = self._decoder_for(self._buffer[: min(self._filled, _MAGIC_BYTES)].tobytes())

    @property
    def path(self) -> str:
        """Return the path, `-` for standard input."""
        return self._stream.path

    @property
    def total_bytes(self) -> int | None:
        """Return the size of the file as it lies on disk, None where that is not known."""
        return self._stream.total_bytes

    @property
    def bytes_read(self) -> int:
        """Return how much of `total_bytes` was read."""
        return self._stream.bytes_read

    @property
    def position(self) -> int:
        """Return where in the decompressed file the next record to be read begins."""
        return self._decoder.position

    def __iter__(self) -> Iterator[FileBatch]:
        while True:
            before = self._decoder.position
            try:
                yield from self._decoder.decode(self._buffer[: self._filled], is_last=self._is_ended)
            except FormatError as error:
                raise self._broken(str(error), error.offset) from error
            if self._is_ended:
                return
            # The batches keep the buffer that they lie in.
            rest = self._buffer[self._decoder.position - before : self._filled]
            self._buffer = np.empty(max(self._chunk_bytes, 2 * len(rest)), np.uint8)
            self._buffer[: len(rest)] = rest
            self._filled = len(rest)
            self._fill()

    def close(self) -> None:
        """Close the file; standard input stays open."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fill(self) -> None:
        came = self._stream.fill(self._buffer.data[self._filled :])
        self._filled += came
        self._is_ended = not came

    def _decoder_for(self, start: bytes) -> _Decoder:
        if is_pcap(start):
            return PcapDecoder()
        if is_pcapng(start):
            return PcapngDecoder()
        what = "not a capture file" + ("" if start else " (it is empty)")
        message = f"{self.path}: {what}; give one in pcap or pcapng, as tcpdump, Wireshark and pktproc write"
        raise FormatError(message, path=self.path, offset=0)

    def _broken(self, what: str, offset: int | None) -> FormatError:
        return FormatError(f"{self.path}: {what} (at byte {offset})", path=self.path, offset=offset)


def open_capture(path: str, *, chunk_bytes: int = _CHUNK_BYTES) -> CaptureFile:
    """Open a pcap or pcapng file, plain or compressed with gzip, zstd, xz or bzip2; `-` is standard input.

    `chunk_bytes` is how much is read at once and at most comes in one batch, larger packets excepted; at least 64.
    Raise `CaptureError` for what cannot be opened, `FormatError` for what is no capture file.
    """
    stream = InputStream(path)
    try:
        return CaptureFile(stream, chunk_bytes)
    except BaseException:
        stream.close()
        raise
