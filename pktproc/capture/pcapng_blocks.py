"""Where the blocks of a pcapng file lie (draft-ietf-opsawg-pcapng section 3.1)."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from pktproc.capture.file_batch import MAX_RECORD_BYTES
from pktproc.packets import pcapng
from pktproc.packets.batch import Bytes, Column
from pktproc.packets.pcapng import ByteOrder

MIN_BLOCK_BYTES = pcapng.BLOCK_HEAD_BYTES + pcapng.BLOCK_TAIL_BYTES
# Runs shorter than this do not pay; after one, blocks are walked singly for a while.
_RUN_WORTH = 32
_RUN_TRY = 128
_OTHER_BLOCK = 7
_MIN_BYTES = np.full(_OTHER_BLOCK + 1, MIN_BLOCK_BYTES, np.int64)
_MIN_BYTES[pcapng.INTERFACE_DESCRIPTION] += 8
_MIN_BYTES[[pcapng.ENHANCED_PACKET, pcapng.OBSOLETE_PACKET]] += pcapng.ENHANCED_PACKET_BYTES
_MIN_BYTES[pcapng.SIMPLE_PACKET] += 4
_LEAST_PACKET_BYTES = int(_MIN_BYTES[pcapng.ENHANCED_PACKET])
_SECTION_HEADER_BYTES = MIN_BLOCK_BYTES + 16


class Blocks(NamedTuple):
    """Whole blocks, one behind the other: int64 columns with position, length and type of each.

    `end` is the position behind the last one, and `defect` what is wrong there, if anything.
    """

    place: Column
    length: Column
    kind: Column
    end: int
    defect: str | None = None

    def cut(self, count: int, defect: str) -> Blocks:
        """Return the first `count` blocks, behind which something is wrong."""
        columns = (self.place[:count], self.length[:count], self.kind[:count])
        return Blocks(*columns, int(self.place[count]), defect)


class BlockFinder:
    """Find blocks in a buffer whose numbers are in a byte order.

    Most blocks are enhanced packets with another one behind them. They are found all together: of the words that have
    the number of that type, those begin blocks which the one before leads to. All else is walked block by block.
    """

    def __init__(self, data: Bytes, order: ByteOrder) -> None:
        self.words = data[: len(data) & ~3].view(f"{order}u4")
        self._bytes = data.data
        self._head = struct.Struct(f"{order}II").unpack_from
        kind = np.array([pcapng.ENHANCED_PACKET], f"{order}u4").view(np.uint32)[0]
        found = np.flatnonzero(self.words[:-1].view(np.uint32) == kind)
        length = self.words[found + 1].astype(np.int64)
        # The number of an interface may be that of the type too; no time stamp is a possible length.
        likely = (length >= _LEAST_PACKET_BYTES) & (length <= MAX_RECORD_BYTES)
        self._candidates = found[likely]
        follows = self._candidates[:-1] + (length[likely][:-1] >> 2) == self._candidates[1:]
        self._breaks = np.append(np.flatnonzero(~follows), len(self._candidates) - 1)

    def blocks(self, start: int) -> Blocks:
        """Return the whole blocks from a position on, up to the next section header."""
        parts: list[Column] = []
        place = start
        while place + pcapng.BLOCK_HEAD_BYTES <= len(self._bytes):
            run = self._run(place >> 2)
            if len(run):
                parts.append(run)
                after = self._after(int(run[-1]) << 2)
                if after is None:
                    break
                place = after
            if len(run) < _RUN_WORTH:
                walked, after = self._walk(place, start)
                parts.append(walked)
                if after is None:
                    break
                place = after
        words = np.concatenate(parts) if parts else np.zeros(0, np.int64)
        return self._checked(words, start)

    def _run(self, word: int) -> Column:
        """Return the enhanced packets that follow one another from a word on, none if there is another block."""
        first = int(self._candidates.searchsorted(word))
        if first == len(self._candidates) or self._candidates[first] != word:
            return self._candidates[:0]
        last = self._breaks[self._breaks.searchsorted(first)]
        return self._candidates[first : last + 1]

    def _walk(self, place: int, start: int) -> tuple[Column, int | None]:
        """Return the words at which the next blocks begin, and where it goes on, None if it does not."""
        walked: list[int] = []
        after: int | None = place
        while after is not None and len(walked) < _RUN_TRY:
            place = after
            if place + pcapng.BLOCK_HEAD_BYTES > len(self._bytes):
                after = None
            else:
                kind, _ = self._head(self._bytes, place)
                after = None
                if kind != pcapng.SECTION_HEADER or place == start:
                    walked.append(place >> 2)
                    after = self._after(place)
        return np.array(walked, np.int64), after

    def _after(self, place: int) -> int | None:
        """Return the position behind a block, None if its length is none."""
        _, length = self._head(self._bytes, place)
        is_possible = MIN_BLOCK_BYTES <= length <= MAX_RECORD_BYTES and not length & 3
        return place + int(length) if is_possible else None

    def _checked(self, at: Column, start: int) -> Blocks:
        """Return the blocks that begin at the given words, up to the first that is broken or not all there."""
        kind, length = self.words[at].astype(np.int64), self.words[at + 1].astype(np.int64)
        place = at << 2
        end = place + length
        tail = self.words.take((end >> 2) - 1, mode="clip")
        least = _MIN_BYTES[np.minimum(kind, _OTHER_BLOCK)]
        if len(kind) and kind[0] == pcapng.SECTION_HEADER:
            least[0] = _SECTION_HEADER_BYTES
        impossible = (length < least) | (length > MAX_RECORD_BYTES) | ((length & 3) != 0)
        missing = end > len(self._bytes)
        wrong = impossible | missing | (tail != length)
        blocks = Blocks(place, length, kind, int(end[-1]) if len(end) else start)
        if not wrong.any():
            return blocks
        first = int(np.argmax(wrong))
        if impossible[first]:
            return blocks.cut(first, f"a block of type {kind[first]:#x} claims to be {length[first]:,} bytes long")
        if missing[first]:
            return blocks.cut(first, "")
        return blocks.cut(first, f"a block's two lengths differ: {length[first]:,} and {tail[first]:,}")
