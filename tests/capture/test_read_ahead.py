from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pktproc.capture.read_ahead import MAX_AHEAD, read_ahead
from pktproc.errors import FormatError


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pktproc-read"]


def test_pieces_come_in_order() -> None:
    assert list(read_ahead(range(1000))) == list(range(1000))
    assert not readers()


def test_an_error_comes_behind_the_pieces_before_it() -> None:
    def pieces() -> Iterator[int]:
        yield from range(5)
        raise FormatError("cut short", offset=7)

    came = read_ahead(pieces())
    assert [next(came) for _ in range(5)] == list(range(5))
    with pytest.raises(FormatError) as raised:
        next(came)
    assert raised.value.offset == 7
    assert not readers()


@pytest.mark.parametrize("taken", [1, 2, 5])
def test_who_gives_up_leaves_nobody_reading_and_little_read(taken: int) -> None:
    read: list[int] = []

    def pieces() -> Iterator[int]:
        for number in range(1_000_000):
            read.append(number)
            yield number

    with_end = read_ahead(pieces())
    assert [next(with_end) for _ in range(taken)] == list(range(taken))
    del with_end
    assert not readers()
    assert len(read) <= taken + MAX_AHEAD + 2
