"""The kernel's ring buffer for events, read in place (kernel: Documentation/bpf/ringbuf.rst, kernel/bpf/ringbuf.c).

Each record begins with eight bytes: its length with two flags on top, and a field for the kernel's own use. Records are
aligned to eight bytes; the pages with data are mapped twice, one behind the other, so that no record is torn.
"""

from __future__ import annotations

import mmap
import struct
from typing import NamedTuple

import numpy as np

from pktproc.packets.batch import Column

_POSITION = struct.Struct("=Q")
_HEADER = struct.Struct("=II")
_BUSY = 1 << 31
_DISCARDED = 1 << 30
_LENGTH = _DISCARDED - 1
# So much at once: what is told in a storm, without holding up the packets for long.
_MOST_BYTES = 4 << 20


# After so many records of one length the next ones are looked at so many at a time, as long as they are alike, too.
_ALIKE = 8
_MOST_ALIKE = 1024


class Records(NamedTuple):
    """Records as the ring had them: `data` with the position and length (int64) of each, in order.

    `more` says that others were behind them.
    """

    data: bytes
    positions: Column
    lengths: Column
    more: bool = False


class Ring:
    """Read the ring buffer map behind `descriptor`, of `size` bytes."""

    def __init__(self, descriptor: int, size: int) -> None:
        page = mmap.PAGESIZE
        self._size = size
        self._consumer = mmap.mmap(descriptor, page, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=0)
        self._producer = mmap.mmap(descriptor, page + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        self._data_at = page

    def read(self) -> Records:
        """Take out the records that are complete, but no more than 4 MiB of them."""
        (begin,) = _POSITION.unpack_from(self._consumer)
        (end,) = _POSITION.unpack_from(self._producer)
        if begin == end:
            return _NONE
        start = self._data_at + begin % self._size
        available = min(end - begin, _MOST_BYTES)
        positions: list[int] = []
        lengths: list[int] = []
        position = alike = 0
        while position < available:
            header, _ = _HEADER.unpack_from(self._producer, start + position)
            if header & _BUSY:
                break
            length = header & _LENGTH
            step = (length + _HEADER.size + 7) & ~7
            count = 1
            if not header & _DISCARDED:
                alike = alike + 1 if lengths and lengths[-1] == length else 0
                if alike >= _ALIKE:
                    most = max(1, min(_MOST_ALIKE, (available - position) // step))
                    count = self._count_alike(start + position, step, most)
                positions.extend(range(position + _HEADER.size, position + count * step, step))
                lengths.extend([length] * count)
            position += count * step
        data = self._producer[start : start + position]
        _POSITION.pack_into(self._consumer, 0, begin + position)
        return Records(data, np.array(positions, np.int64), np.array(lengths, np.int64), available < end - begin)

    def _count_alike(self, start: int, step: int, most: int) -> int:
        """Return how many records, `most` at most, have the header of the first, which is complete."""
        headers = np.ndarray((most,), np.uint32, self._producer, start, (step,))
        different = np.flatnonzero(headers != headers[0])
        return int(different[0]) if len(different) else most

    def close(self) -> None:
        """Unmap the ring."""
        self._consumer.close()
        self._producer.close()


_NONE = Records(b"", np.empty(0, np.int64), np.empty(0, np.int64))
