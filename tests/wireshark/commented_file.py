"""pcapng files whose packets carry given comments, byte by byte as the format's draft has them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

FRAME = bytes.fromhex("ffffffffffff020000000001 0800") + bytes(46)


def block(kind: int, body: bytes) -> bytes:
    length = struct.pack("<I", len(body) + 12)
    return struct.pack("<I", kind) + length + body + length


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def as_bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def packet(comments: Iterable[bytes]) -> bytes:
    options = b"".join(struct.pack("<HH", 1, len(comment)) + padded(comment) for comment in comments)
    head = struct.pack("<IIIII", 0, 0, 0, len(FRAME), len(FRAME))
    return block(6, head + padded(FRAME) + options + bytes(4))


def write(path: Path, packets: Iterable[Sequence[str | bytes]]) -> Path:
    """Write a file with one packet for each sequence of comments, and return its path."""
    blocks = [block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)), block(1, struct.pack("<HHI", 1, 0, 0))]
    blocks += [packet(map(as_bytes, comments)) for comments in packets]
    path.write_bytes(b"".join(blocks))
    return path
