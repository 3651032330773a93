"""Where the records of a pcap file begin: each tells only how far it is to the next one, and there are millions.

So they are looked for in many pieces of the buffer at once: from a place in each that looks like the beginning of a
record, chains of records are followed side by side. A chain counts where the one before it ends at its beginning; a
wrong guess costs time and nothing else.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from pktproc.packets.batch import Bytes, Column
from pktproc.packets.pcapng import ByteOrder

_FRACTION_AT, _CAPTURED_AT, _WIRE_AT = 4, 8, 12
_SECONDS_HIGH_AT = {"<": 2, ">": 0}
"""Where the upper half of the seconds stands, which is the same for most of a capture."""
_WORD_BYTES = 4
_PIECE_BYTES = 1 << 15
_WINDOW_BYTES = 1 << 11  # more than a record with a full Ethernet frame
_STEPS, _MAX_STEPS = 1 << 4, 1 << 9
_FEW_CHAINS = 24  # so few are followed faster one by one
_LIKELY_CAPTURED_BYTES = 1 << 18
_FRACTIONS = 1_000_000_000


class Layout(NamedTuple):
    """How records are written: byte order, nanoseconds in a unit of time, and length of the header."""

    order: ByteOrder
    unit_ns: int
    header_bytes: int = 16


class RecordFinder:
    """Find records in a buffer; `captured` has the length field of a record that would begin at each byte."""

    def __init__(self, data: Bytes, layout: Layout) -> None:
        self._data, self._layout = data, layout
        self.captured = self._words(_CAPTURED_AT)
        self._read = struct.Struct(f"{layout.order}I").unpack_from

    def places(self, start: int) -> Column:
        """Return where records begin (int64), from `start` on, as far as the buffer tells; the last may be cut."""
        parts: list[Column] = []
        begins = self._guesses(start)
        place = start
        if len(begins) >= _FEW_CHAINS:
            place = self._join(parts, place, begins)
        self._walk(parts, place, len(self.captured))
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    def _join(self, parts: list[Column], place: int, begins: Column) -> int:
        """Append the records from a place on, along chains where they join and singly elsewhere; return the end."""
        stops = np.append(begins[1:], len(self.captured))
        table, ends = self._chains(begins, stops)
        breaks = np.append(np.flatnonzero(ends[:-1] != begins[1:]), len(begins) - 1)
        for chain, begin in enumerate(begins.tolist()):
            if begin < place:
                continue
            if begin > place:
                place = self._walk(parts, place, begin)
            if begin == place:
                last = int(breaks[breaks.searchsorted(chain)])
                found = table[chain : last + 1]
                parts.append(found[found < stops[chain : last + 1, None]])
                place = int(ends[last])
        return place

    def _walk(self, parts: list[Column], place: int, until: int) -> int:
        """Append the records that begin from a place on and before another; return where the next one does."""
        read, data, header_bytes = self._read, self._data.data, self._layout.header_bytes
        places: list[int] = []
        append = places.append
        while place < until:
            append(place)
            place += read(data, place + _CAPTURED_AT)[0] + header_bytes
        parts.append(np.array(places, np.int64))
        return place

    def _chains(self, begins: Column, stops: Column) -> tuple[Column, Column]:
        """Follow records until there are few chains that have not reached their stops.

        Return a table with the records of each chain in a row, filled up with places behind its stop, and where each
        chain has arrived.
        """
        captured, last = self.captured, len(self.captured) - 1
        header_bytes = np.int64(self._layout.header_bytes)
        steps: list[Column] = [begins]
        while len(steps) < _MAX_STEPS and np.count_nonzero(steps[-1] < stops) >= _FEW_CHAINS:
            for _ in range(_STEPS):
                place = np.minimum(steps[-1], last)
                steps.append(place + (captured[place] + header_bytes))
        table = np.stack(steps, axis=1)
        arrived = np.minimum(np.count_nonzero(table < stops[:, None], axis=1), len(steps) - 1)
        return table[:, :-1], table[np.arange(len(table)), arrived]

    def _guesses(self, start: int) -> Column:
        """Return `start` and one place in each piece of the buffer that looks like the beginning of a record."""
        pieces = (len(self._data) - start) // _PIECE_BYTES - 1
        if pieces < _FEW_CHAINS:
            return np.zeros(0, np.int64)
        high_at = _SECONDS_HIGH_AT[self._layout.order]
        first = start + _PIECE_BYTES + high_at
        shape, strides = (pieces, _WINDOW_BYTES), (_PIECE_BYTES, 1)
        one, other = (np.ndarray(shape, np.uint8, self._data, first + at, strides) for at in (0, 1))
        is_alike = (one == self._data[start + high_at]) & (other == self._data[start + high_at + 1])
        piece, within = np.divmod(np.flatnonzero(is_alike), _WINDOW_BYTES)
        place = start + _PIECE_BYTES * (piece + 1) + within
        likely = self._look_like_records(place)
        after = place + self.captured[place] + self._layout.header_bytes
        likely[likely] = self._look_like_records(after[likely])
        _, firsts = np.unique(piece[likely], return_index=True)
        return np.append(start, place[likely][firsts])

    def _look_like_records(self, place: Column) -> Column:
        fraction, wire = self._words(_FRACTION_AT), self._words(_WIRE_AT)
        at = np.minimum(place, len(wire) - 1)
        captured = self.captured[at]
        is_likely = (fraction[at] < _FRACTIONS) & (captured <= wire[at]) & (captured <= _LIKELY_CAPTURED_BYTES)
        return is_likely & (place < len(wire))

    def _words(self, at: int) -> Column:
        """Return the 32-bit words that stand `at` bytes behind every byte of the buffer."""
        count = max(len(self._data) - at - _WORD_BYTES + 1, 0)
        return np.ndarray((count,), f"{self._layout.order}u4", self._data, at if count else 0, strides=(1,))
