"""Blocks for a file, put together from short pieces of many packets: what differs between two of them is one piece."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pktproc.packets.batch import Bytes, Column

CHUNK = 512
"""Packets that are joined at a time: few enough to stay in the processor's cache, enough to be worth a system call."""
TRAILER_BYTES = 4

Buffer = bytes | memoryview


class Sink(Protocol):
    """Takes the bytes of a file, each time whole blocks."""

    def write(self, data: bytes, /) -> object:
        """Write all of `data`."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """Hold the pieces of packet blocks in order.

    `joints` has one entry more than there are packets: the trailing total length of the block before (any 4 bytes in
    the first one), then what the packet's block begins with (nothing in the last one). After it comes
    `data[start:end]`, then `second[second_of[i]]` and `third[third_of[i]]` for packet i. `gaps` are whole blocks that
    come before packet i, or behind all packets where i is their number.
    """

    joints: list[bytes]
    data: Bytes
    start: Column
    end: Column
    second: Sequence[bytes]
    second_of: Column
    third: Sequence[bytes]
    third_of: Column
    gaps: Mapping[int, Sequence[Buffer]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.start)


def write_pieces(sink: Sink, pieces: Pieces) -> None:
    """Write the blocks, `CHUNK` at a time."""
    places = sorted(pieces.gaps)
    # A table in which nothing stands, as for packets without options, is not worth a part of each packet.
    tables = [
        (table, index)
        for table, index in ((pieces.second, pieces.second_of), (pieces.third, pieces.third_of))
        if any(table)
    ]
    step = 2 + len(tables)
    for begin in range(0, len(pieces), CHUNK):
        until = min(begin + CHUNK, len(pieces))
        chunk = slice(begin, until)
        parts: list[Any] = [b""] * (step * (until - begin))
        parts[0::step] = pieces.joints[chunk]
        parts[1::step] = _cuts(pieces.data, pieces.start[chunk], pieces.end[chunk])
        for position, (table, index) in enumerate(tables, 2):
            parts[position::step] = map(table.__getitem__, index[chunk].tolist())
        for place in reversed(places[bisect_left(places, begin) : bisect_left(places, until)]):
            at = step * (place - begin)
            parts[at : at + 1] = [parts[at][:TRAILER_BYTES], *pieces.gaps[place], parts[at][TRAILER_BYTES:]]
        parts[0] = parts[0][TRAILER_BYTES:]
        parts.append(pieces.joints[until][:TRAILER_BYTES])
        sink.write(b"".join(parts))
    if rest := pieces.gaps.get(len(pieces)):
        sink.write(b"".join(rest))


def _cuts(data: Bytes, start: Column, end: Column) -> list[memoryview]:
    view = data.data
    return [view[i:j] for i, j in zip(start.tolist(), end.tolist(), strict=True)]
