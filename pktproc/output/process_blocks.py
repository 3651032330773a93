"""The Darwin process blocks of a pcapng section: written once for each process, referred to by their number."""

from __future__ import annotations

import struct
import uuid
from bisect import bisect_right
from hashlib import blake2b

from cachetools import LRUCache

from pktproc.errors import UsageError
from pktproc.model import Process
from pktproc.output.escape import spell_unprintable
from pktproc.packets.annotations import MAX_NAME, PREFIX, process_text
from pktproc.packets.pcapng import (
    DARWIN_PROCESS,
    DARWIN_PROCESS_NAME,
    DARWIN_PROCESS_UUID,
    OPT_COMMENT,
    OPT_END,
    ByteOrder,
    block,
    option,
)

MAX_PROCESSES = 1 << 14
"""Processes whose block is remembered; one that comes back after so many others gets another block."""

_NAMESPACE = uuid.UUID("5d4c1f0e-7c0b-5d6a-9a53-6f1d5a3f2b11")
_OURS = PREFIX.encode()
_COMMAND_LINE = b'"command_line":'


class ProcessBlocks:
    """Number the process blocks of one section, those of its input included.

    New blocks wait in `take` until they are written. An input's block moves behind those that were written before it,
    so that what refers to it has to be renumbered.
    """

    def __init__(self, order: ByteOrder, *, cmdline: bool) -> None:
        self._order: ByteOrder = order
        self._cmdline = cmdline
        self._numbers: LRUCache[Process, int] = LRUCache(MAX_PROCESSES)
        self._kept: LRUCache[bytes, int] = LRUCache(MAX_PROCESSES)
        self._waiting: list[bytes] = []
        self._made = 0
        self._met = 0
        self._moved_from = [0]
        self._moved_by = [0]

    def number(self, process: Process) -> int:
        """Return the number of a process's block, which is made where there is none yet."""
        number = self._numbers.get(process)
        if number is None:
            number = self._numbers[process] = self._make(process)
        return number

    def take(self) -> bytes:
        """Return the blocks that were made since the last call; they come before any packet that refers to them."""
        waiting, self._waiting = b"".join(self._waiting), []
        return waiting

    def keep(self, data: bytes) -> None:
        """Count a block of the input, which is written at this point; pktproc's own may serve again.

        Raise `UsageError` where it has a command line and none are wanted.
        """
        if _OURS in data:
            if not self._cmdline and _COMMAND_LINE in data:
                raise UsageError(
                    "the file has command lines already, which --no-cmdline cannot take out: use the original"
                )
            self._kept[_digest(data)] = self._met + self._made
        if self._made != self._moved_by[-1]:
            self._moved_from.append(self._met)
            self._moved_by.append(self._made)
        self._met += 1

    @property
    def moved(self) -> bool:
        """Say whether any block of the input has another number now."""
        return len(self._moved_by) > 1

    def renumbered(self, number: int) -> int:
        """Return the number that a block of the input has now."""
        return number + self._moved_by[bisect_right(self._moved_from, number) - 1]

    def _make(self, process: Process) -> int:
        data = process_block(process, self._order, cmdline=self._cmdline)
        kept = self._kept.get(_digest(data))
        if kept is not None:
            return kept
        self._waiting.append(data)
        self._made += 1
        return self._met + self._made - 1


def process_block(process: Process, order: ByteOrder, *, cmdline: bool) -> bytes:
    """Return the block of a process; its name is cut and what is not printable is spelled out, as in text."""
    name = spell_unprintable(process.name[:MAX_NAME])
    options = (
        (DARWIN_PROCESS_NAME, name.encode()),
        (DARWIN_PROCESS_UUID, _identity(process)),
        (OPT_COMMENT, process_text(process, cmdline=cmdline).encode()),
        (OPT_END, b""),
    )
    body = struct.pack(f"{order}I", process.pid & 0xFFFFFFFF)
    return block(DARWIN_PROCESS, body + b"".join(option(code, value, order) for code, value in options), order)


def _identity(process: Process) -> bytes:
    """Return 16 bytes that differ between processes that had the same pid."""
    return uuid.uuid5(_NAMESPACE, f"{process.pid} {process.start_ticks} {process.start_ns}").bytes


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
