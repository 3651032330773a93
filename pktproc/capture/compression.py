"""Compressed data as a row of members, bytes in and bytes out, without reading anything.

A member is what gzip calls one, a stream of xz and bzip2, a frame of zstd. Tools write several where files were joined
or compressed in parallel.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

import zstandard

from pktproc.errors import FormatError

MAGIC_BYTES = 6
_MAX_WINDOW_BYTES = 1 << 27  # what zstd allows unless told otherwise; xz -9 needs half of it
# One call may multiply its input, by 1,000 (gzip), or 32,768 (zstd, which cannot be held back): 32 MiB at most.
_ZSTD_PIECE_BYTES = 1 << 10
# What a call has made is lost if it fails; these two are slow enough for small steps.
_STEP_BYTES = 1 << 12


class _Member(Protocol):
    """A decompressor as bz2 and lzma have it."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _GzipMember:
    """A gzip member; what comes before a defect is not lost."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS + 16)
        self._input = b""
        self._is_full = False
        self._defect: zlib.error | None = None

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def needs_input(self) -> bool:
        return not self._input and not self._is_full and self._defect is None

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if self._defect is not None:
            raise self._defect
        data, before = self._input + data, self._inflate.copy()
        try:
            made = self._inflate.decompress(data, max_length)
        except zlib.error:
            self._inflate = before
            return self._save(data, max_length)
        self._input, self._is_full = self._inflate.unconsumed_tail, len(made) == max_length
        return made

    def _save(self, data: bytes, max_length: int) -> bytes:
        """Decompress byte by byte up to a defect, which the next call tells."""
        made = b""
        for at in range(len(data)):
            try:
                made += self._inflate.decompress(data[at : at + 1], max_length - len(made))
            except zlib.error as error:
                self._defect = error
                break
            if len(made) == max_length:
                self._input, self._is_full = self._inflate.unconsumed_tail + data[at + 1 :], True
                break
        return made


class _SteppedMember:
    """A bzip2 or xz stream that is decompressed in small steps."""

    def __init__(self, stream: bz2.BZ2Decompressor | lzma.LZMADecompressor) -> None:
        self._stream = stream

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return self._stream.needs_input

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._stream.decompress(data, min(max_length, _STEP_BYTES))


class _ZstdMember:
    """A zstd frame; it is fed small pieces, for zstandard gives out all that its input makes."""

    def __init__(self) -> None:
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        self._frame = decompressor.decompressobj()
        self._input = memoryview(b"")
        self._made = memoryview(b"")

    @property
    def eof(self) -> bool:
        return self._frame.eof and not self._made

    @property
    def needs_input(self) -> bool:
        return not self._input and not self._made

    @property
    def unused_data(self) -> bytes:
        return bytes(self._frame.unused_data) + bytes(self._input)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        if data:
            self._input = memoryview(bytes(self._input) + data)
        while self._input and not self._made and not self._frame.eof:
            piece, self._input = self._input[:_ZSTD_PIECE_BYTES], self._input[_ZSTD_PIECE_BYTES:]
            self._made = memoryview(self._frame.decompress(piece))
        made, self._made = bytes(self._made[:max_length]), self._made[max_length:]
        return made


class Compression(NamedTuple):
    """A way of compressing: its name, how its members begin, and what takes one apart."""

    name: str
    magics: tuple[bytes, ...]
    member: Callable[[], _Member]


# A zstd file may begin with a frame to skip, of 16 magics (RFC 8878 section 3.1.2).
_ZSTD_SKIPPABLE = tuple(bytes((0x50 + kind, 0x2A, 0x4D, 0x18)) for kind in range(16))
COMPRESSIONS = (
    Compression("gzip", (b"\x1f\x8b\x08",), _GzipMember),
    Compression("zstd", (b"\x28\xb5\x2f\xfd", *_ZSTD_SKIPPABLE), _ZstdMember),
    Compression(
        "xz",
        (b"\xfd7zXZ\0",),
        lambda: _SteppedMember(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_WINDOW_BYTES)),
    ),
    Compression(
        "bzip2",
        tuple(b"BZh%d" % level for level in range(1, 10)),
        lambda: _SteppedMember(bz2.BZ2Decompressor()),
    ),
)
_DEFECTS = (zlib.error, lzma.LZMAError, zstandard.ZstdError, OSError, EOFError, ValueError)


def compression_of(start: bytes) -> Compression | None:
    """Return how data is compressed that begins with these bytes, None for plain data; `MAGIC_BYTES` are enough."""
    return next((found for found in COMPRESSIONS if start.startswith(found.magics)), None)


class Members:
    """Decompress members one behind the other, with zeros between and behind them, as tape archives leave."""

    def __init__(self, compression: Compression) -> None:
        self._compression = compression
        self._member: _Member | None = None
        self._input = b""

    @property
    def needs_input(self) -> bool:
        """Tell whether `take` can have nothing to give before more is fed."""
        return not self._input and (self._member is None or self._member.needs_input)

    def feed(self, data: bytes) -> None:
        """Take compressed bytes; only when all earlier ones are used up."""
        self._input += data

    def take(self, limit: int) -> bytes:
        """Return up to `limit` bytes, none when more input is needed; raise `FormatError` where the data is broken."""
        while True:
            if self._member is None and not self._begin():
                return b""
            assert self._member is not None
            made = self._decompress(self._member, limit)
            if self._member.eof:
                self._input = self._member.unused_data
                self._member = None
            elif not made and self._member.needs_input:
                return b""
            if made:
                return made

    def finish(self) -> None:
        """Raise `FormatError` unless the input ended behind a member."""
        if self._member is not None:
            message = f"{self._compression.name} data is cut short"
            raise FormatError(message)
        if self._input:
            raise FormatError(self._stray())

    def _begin(self) -> bool:
        self._input = self._input.lstrip(b"\0")
        if self._input.startswith(self._compression.magics):
            self._member = self._compression.member()
            return True
        if any(magic.startswith(self._input) for magic in self._compression.magics):
            return False
        raise FormatError(self._stray())

    def _stray(self) -> str:
        return f"{self._compression.name} data is followed by something else"

    def _decompress(self, member: _Member, limit: int) -> bytes:
        data, self._input = self._input, b""
        try:
            return member.decompress(data, limit)
        except _DEFECTS as error:
            message = f"{self._compression.name} data is broken ({str(error).rstrip('.')})"
            raise FormatError(message) from error
