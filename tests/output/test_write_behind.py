from __future__ import annotations

import os
import random
import threading
from pathlib import Path

import pytest

from pktproc.output.savefile import Savefile
from pktproc.output.write_behind import MAX_WAITING_BYTES, WriteBehind

PIECE = 1 << 20


def write_much(file: WriteBehind) -> None:
    for _ in range(4 * MAX_WAITING_BYTES // PIECE):
        file.write(bytes(PIECE))


def test_everything_is_written_in_order(tmp_path: Path) -> None:
    rng = random.Random(1)
    pieces = [rng.randbytes(rng.randrange(200_000)) for _ in range(300)]
    path = tmp_path / "out"
    file = WriteBehind(Savefile(str(path)))
    for piece in pieces:
        file.write(piece)
    file.close()
    assert path.read_bytes() == b"".join(pieces)


def test_nothing_written_makes_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "out"
    WriteBehind(Savefile(str(path))).close()
    assert path.read_bytes() == b""


def test_a_full_disk_is_told_by_the_close_if_no_write_comes_after_it() -> None:
    file = WriteBehind(Savefile("/dev/full"))
    file.write(b"packet")
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        file.close()


def test_a_full_disk_is_told_by_a_later_write_and_then_not_again() -> None:
    file = WriteBehind(Savefile("/dev/full"))
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        write_much(file)
    file.close()


def test_who_writes_waits_for_a_slow_reader_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    count = 3 * MAX_WAITING_BYTES // PIECE
    written: list[int] = []

    def write() -> None:
        file = WriteBehind(Savefile(str(path)))
        for number in range(count):
            file.write(bytes([number]) * PIECE)
            written.append(number)
        file.close()

    writer = threading.Thread(target=write)
    writer.start()
    with path.open("rb") as pipe:
        for number in range(count):
            assert len(written) <= number + MAX_WAITING_BYTES // PIECE + 3
            assert pipe.read(PIECE) == bytes([number]) * PIECE
        assert pipe.read() == b""
    writer.join()


def test_a_reader_that_leaves_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = WriteBehind(Savefile(str(path)))
    os.close(reader)
    with pytest.raises(BrokenPipeError):
        write_much(file)
    file.close()
