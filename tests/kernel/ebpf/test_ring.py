"""The ring of events, read from a file that is laid out as the kernel maps it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator

import numpy as np
import pytest

from pktproc.kernel.ebpf.events import EVENT
from pktproc.kernel.ebpf.ring import Ring

PLACES = 64


class Written:
    """A ring in a file, written as the programs write it: a place is taken, filled, and numbered in the end."""

    def __init__(self, told: int = 0) -> None:
        self.descriptor = os.memfd_create("ring")
        os.ftruncate(self.descriptor, PLACES * EVENT.itemsize)
        self._map = mmap.mmap(self.descriptor, 0)
        self._rows = np.frombuffer(self._map, EVENT)
        self.told = told

    def take(self) -> int:
        self.told += 1
        return self.told

    def finish(self, number: int, cookie: int) -> None:
        row = self._rows[(number - 1) % PLACES]
        row["cookie"] = cookie
        row["sequence"] = number & 0xFFFFFFFF

    def tell(self, *cookies: int) -> None:
        for cookie in cookies:
            self.finish(self.take(), cookie)

    def close(self) -> None:
        del self._rows
        self._map.close()
        os.close(self.descriptor)


@pytest.fixture(params=[0, PLACES - 3, (1 << 32) - 5], ids=["new", "used", "counted beyond 32 bits"])
def written(request: pytest.FixtureRequest) -> Iterator[Written]:
    written = Written(request.param)
    yield written
    written.close()


@pytest.fixture
def ring(written: Written) -> Iterator[Ring]:
    ring = Ring(written.descriptor, PLACES, lambda: written.told)
    yield ring
    ring.close()


def cookies(ring: Ring) -> list[int]:
    found: list[int] = []
    more = True
    while more:
        rows, more = ring.read()
        found += rows["cookie"].tolist()
    return found


def test_an_empty_ring_has_nothing(ring: Ring) -> None:
    assert cookies(ring) == []


def test_events_come_in_order_and_once(ring: Ring, written: Written) -> None:
    written.tell(*range(10))
    assert cookies(ring) == list(range(10))
    assert cookies(ring) == []


def test_an_event_that_is_being_written_is_waited_for(ring: Ring, written: Written) -> None:
    written.tell(1)
    open_place = written.take()
    written.tell(3)
    assert cookies(ring) == [1]
    written.finish(open_place, 2)
    assert cookies(ring) == [2, 3]


def test_a_full_ring_is_read_and_an_overtaken_one_is_counted(ring: Ring, written: Written) -> None:
    written.tell(*range(PLACES))
    assert cookies(ring) == list(range(PLACES))
    assert ring.lost == 0
    written.tell(*range(PLACES + 1))
    assert cookies(ring) == []
    assert ring.lost == PLACES + 1
    written.tell(7)
    assert cookies(ring) == [7]
