"""The ring buffer, read from a file that is laid out as the kernel maps it."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator

import pytest

from pktproc.kernel.ebpf.ring import Ring

SIZE = mmap.PAGESIZE
BUSY, DISCARDED = 1 << 31, 1 << 30


class Written:
    """A ring in a file: the kernel maps its data twice, here both copies are written."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("ring")
        os.ftruncate(self.descriptor, 2 * mmap.PAGESIZE + 2 * SIZE)
        self.end = 0

    def start_at(self, position: int) -> None:
        self.end = position
        self._put(0, struct.pack("=Q", position))
        self._put(mmap.PAGESIZE, struct.pack("=Q", position))

    def add(self, payload: bytes, flags: int = 0) -> None:
        record = struct.pack("=II", len(payload) | flags, 0) + payload
        record += bytes(-len(record) % 8)
        for index, byte in enumerate(record):
            place = (self.end + index) % SIZE
            for copy in (0, SIZE):
                self._put(2 * mmap.PAGESIZE + copy + place, bytes([byte]))
        self.end += len(record)
        self._put(mmap.PAGESIZE, struct.pack("=Q", self.end))

    def consumed(self) -> int:
        (position,) = struct.unpack("=Q", os.pread(self.descriptor, 8, 0))
        return int(position)

    def _put(self, offset: int, data: bytes) -> None:
        os.pwrite(self.descriptor, data, offset)


@pytest.fixture
def written() -> Iterator[Written]:
    ring = Written()
    yield ring
    os.close(ring.descriptor)


def payloads(ring: Ring) -> list[bytes]:
    data, positions, lengths, _ = ring.read()
    places = zip(positions.tolist(), lengths.tolist(), strict=True)
    return [data[position : position + length] for position, length in places]


@pytest.fixture
def ring(written: Written) -> Iterator[Ring]:
    ring = Ring(written.descriptor, SIZE)
    yield ring
    ring.close()


def test_an_empty_ring_has_nothing(ring: Ring) -> None:
    assert payloads(ring) == []


def test_records_come_in_order_and_once(ring: Ring, written: Written) -> None:
    written.add(b"first---")
    written.add(b"second")
    assert payloads(ring) == [b"first---", b"second"]
    assert written.consumed() == written.end == 32
    assert payloads(ring) == []


def test_a_record_that_is_being_written_is_waited_for(ring: Ring, written: Written) -> None:
    written.add(b"done")
    busy = written.end
    written.add(b"not yet", BUSY)
    written.add(b"behind")
    assert payloads(ring) == [b"done"]
    assert written.consumed() == busy


def test_a_discarded_record_is_passed_over(ring: Ring, written: Written) -> None:
    written.add(b"nothing", DISCARDED)
    written.add(b"something")
    assert payloads(ring) == [b"something"]


def test_many_records_alike_and_some_others_come_in_order(ring: Ring, written: Written) -> None:
    put = [bytes([number]) * 8 for number in range(40)]
    put[20:20] = [b"of another length"]
    for payload in put[:-3]:
        written.add(payload)
    written.add(put[-3], DISCARDED)
    written.add(put[-2])
    written.add(put[-1], BUSY)
    assert payloads(ring) == [*put[:-3], put[-2]]


def test_a_record_at_the_end_goes_on_at_the_beginning(ring: Ring, written: Written) -> None:
    written.start_at(SIZE - 16)
    written.add(b"0123456789abcdef")
    assert payloads(ring) == [b"0123456789abcdef"]
    assert written.consumed() == SIZE + 8
