"""Packets as a new pcapng file with the processes behind them (draft-ietf-opsawg-pcapng)."""

from __future__ import annotations

import platform
import struct
from collections.abc import Collection
from dataclasses import replace
from typing import Protocol

import numpy as np

from pktproc.attribution.answers import AttributedBatch
from pktproc.model import Interface, PacketType
from pktproc.output.annotate import ALL_FORMS, BARE_END, NO_ANNOTATION, Annotator
from pktproc.output.interleave import Pieces, Sink, write_pieces
from pktproc.output.process_blocks import ProcessBlocks
from pktproc.output.rotation import RotatingFile
from pktproc.packets.annotations import PREFIX
from pktproc.packets.batch import Column, PacketBatch
from pktproc.packets.pcapng import (
    BLOCK_HEAD_BYTES,
    BLOCK_TAIL_BYTES,
    BYTE_ORDER_MAGIC,
    ENHANCED_PACKET,
    ENHANCED_PACKET_BYTES,
    EPB_FLAGS,
    IF_NAME,
    IF_TSRESOL,
    INTERFACE_DESCRIPTION,
    INTERFACE_STATISTICS,
    ISB_ENDTIME,
    ISB_IFDROP,
    ISB_IFRECV,
    ISB_STARTTIME,
    OPT_COMMENT,
    OPT_END,
    SECTION_HEADER,
    SHB_HARDWARE,
    SHB_OS,
    SHB_USERAPPL,
    UNKNOWN_SECTION_BYTES,
    ByteOrder,
    block,
    option,
)
from pktproc.version import __version__

APPLICATION = f"pktproc {__version__}"
_ORDER: ByteOrder = "<"
_VERSION = (1, 0)
_NANOSECONDS = 9
_NO_LIMIT = 0
_WORD_BITS = 32
_END = option(OPT_END, b"", _ORDER)

# epb_flags, section 4.3.1: direction in bits 0 and 1, reception in bits 2 to 4.
_INBOUND, _OUTBOUND = 1, 2
_UNICAST, _MULTICAST, _BROADCAST, _PROMISCUOUS = 1 << 2, 2 << 2, 3 << 2, 4 << 2
_FLAGS = {
    PacketType.HOST: _INBOUND | _UNICAST,
    PacketType.BROADCAST: _INBOUND | _BROADCAST,
    PacketType.MULTICAST: _INBOUND | _MULTICAST,
    PacketType.OTHERHOST: _INBOUND | _PROMISCUOUS,
    PacketType.OUTGOING: _OUTBOUND,
}
_UNFLAGGED = 0
_FLAGGED_AS = np.full(256, _UNFLAGGED, np.int64)
_FLAGGED_AS[list(_FLAGS)] = np.arange(1, len(_FLAGS) + 1)
_FLAG_OPTIONS = [b"", *(option(EPB_FLAGS, struct.pack("<I", flags), _ORDER) for flags in _FLAGS.values())]
_PADDING = [bytes(count) for count in range(4)]
_PADDED_FLAGS = [padding + flags for flags in _FLAG_OPTIONS for padding in _PADDING]
_PADDED_FLAGS_BYTES = np.array([len(piece) for piece in _PADDED_FLAGS], np.int64)

_JOINT_WORDS = 1 + (BLOCK_HEAD_BYTES + ENHANCED_PACKET_BYTES) // 4
_FIXED_BYTES = BLOCK_HEAD_BYTES + ENHANCED_PACKET_BYTES + BLOCK_TAIL_BYTES


class Counts(Protocol):
    """What a capture counted: packets that passed the filter, dropped ones included, and the dropped ones."""

    @property
    def received(self) -> int:
        """Return how many packets passed the filter."""

    @property
    def dropped(self) -> int:
        """Return how many of them the kernel dropped."""


class PcapngWriter:
    """Write packets with their owners, in the order and with the times that they have, in nanoseconds.

    A section begins at once, and again with each next file of a `RotatingFile`; interfaces and processes are described
    in it when they are first met. `forms` are those of `Annotator`; `cmdline` False leaves command lines out. Each
    write to the sink is of whole blocks. `count` is the number of packets written so far.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        forms: Collection[str] = ALL_FORMS,
        cmdline: bool = True,
        application: str = APPLICATION,
    ) -> None:
        self._sink = sink
        self._rotating = sink if isinstance(sink, RotatingFile) else None
        self._forms = frozenset(forms)
        self._cmdline = cmdline
        self._application = application
        self.count = 0
        self._times: tuple[int, int] | None = None
        self._begin_section()

    def describe(self, interface: Interface, linktype: int) -> int:
        """Return the number of an interface in the section, describing it there where it is new."""
        number = self._numbers.get((interface, linktype))
        if number is None:
            number = self._numbers[interface, linktype] = len(self._numbers)
            self._sink.write(_interface_block(interface.name, linktype))
        return number

    def write(self, attributed: AttributedBatch, rows: Column) -> int:
        """Write the given packets (int64 row numbers) of a block; return how many that were.

        They are all of them, but for a rotation that is `finished`.
        """
        written = 0
        while written < len(rows):
            if self._rotating is not None:
                if self._rotating.finished:
                    break
                if self._rotating.turn():
                    self._begin_section()
            written += self._write(attributed, rows[written:])
        self.count += written
        return written

    def statistics(self, counts: Counts) -> None:
        """Close the section with what the capture counted, told of its first interface where there are several."""
        if not self._numbers:
            return
        first_ns, last_ns = self._times or (0, 0)
        options = [(ISB_STARTTIME, _two_words(first_ns)), (ISB_ENDTIME, _two_words(last_ns))] if self._times else []
        options += [
            (ISB_IFRECV, struct.pack("<Q", counts.received)),
            (ISB_IFDROP, struct.pack("<Q", counts.dropped)),
        ]
        if len(self._numbers) > 1:
            options.append((OPT_COMMENT, f"{PREFIX}counts of all {len(self._numbers)} interfaces together".encode()))
        body = struct.pack("<I", 0) + _two_words(last_ns)
        self._sink.write(block(INTERFACE_STATISTICS, body + _encode(options), _ORDER))

    def _begin_section(self) -> None:
        self._numbers: dict[tuple[Interface, int], int] = {}
        self._processes = ProcessBlocks(_ORDER, cmdline=self._cmdline)
        self._annotator = Annotator(_ORDER, self._forms, self._processes)
        self._sink.write(_section_header(self._application))

    def _write(self, attributed: AttributedBatch, rows: Column) -> int:
        """Write packets until the file is full; return how many that were."""
        pieces, block_bytes = self._pieces(attributed, rows)
        self._sink.write(self._processes.take())
        room_bytes = self._rotating.room_bytes if self._rotating else None
        if room_bytes is not None:
            before = np.cumsum(block_bytes) - block_bytes
            rows = rows[: max(1, int(np.searchsorted(before, room_bytes, side="right")))]
            first = slice(len(rows))
            joints = pieces.joints[: len(rows) + 1]
            pieces = replace(pieces, joints=joints, start=pieces.start[first], end=pieces.end[first])
        write_pieces(self._sink, pieces)
        self._note_times(attributed.batch.time_ns[rows])
        return len(rows)

    def _pieces(self, attributed: AttributedBatch, rows: Column) -> tuple[Pieces, Column]:
        """Return the pieces of packets' blocks and the length of each block."""
        batch = attributed.batch
        captured, start = batch.captured_bytes[rows], batch.offset[rows]
        flagged = _FLAGGED_AS[batch.packet_type[rows]]
        loopback = [interface.loopback for interface in batch.interfaces]
        if any(loopback):
            flagged[np.array(loopback)[batch.interface[rows]]] = _UNFLAGGED
        padded_flags = flagged * len(_PADDING) + (-captured & 3)
        annotation = self._annotator.numbers(attributed, attributed.flow_of[rows])
        annotation[(annotation == NO_ANNOTATION) & (flagged != _UNFLAGGED)] = BARE_END
        table = self._annotator.table()
        block_bytes = _FIXED_BYTES + captured + _PADDED_FLAGS_BYTES[padded_flags] + table.lengths[annotation]
        joints = _joints(batch, rows, self._interface_numbers(batch, rows), block_bytes)
        pieces = Pieces(
            joints, batch.data, start, start + captured, _PADDED_FLAGS, padded_flags, table.pieces, annotation
        )
        return pieces, block_bytes

    def _interface_numbers(self, batch: PacketBatch, rows: Column) -> Column:
        """Return the number of each packet's interface in the section, describing the new ones."""
        interface, linktype = batch.interface[rows], batch.linktype[rows]
        if (interface == interface[0]).all() and (linktype == linktype[0]).all():
            pairs, position = [(int(interface[0]), int(linktype[0]))], np.zeros(len(rows), np.int64)
        else:
            keys, position = np.unique(interface << 16 | linktype, return_inverse=True)
            pairs = [divmod(key, 1 << 16) for key in keys.tolist()]
        numbers = [self.describe(batch.interfaces[place], kind) for place, kind in pairs]
        return np.array(numbers, np.int64)[position.reshape(-1)]

    def _note_times(self, times_ns: Column) -> None:
        known = self._times or (int(times_ns[0]),) * 2
        self._times = min(known[0], int(times_ns.min())), max(known[1], int(times_ns.max()))


def _joints(batch: PacketBatch, rows: Column, interface: Column, block_bytes: Column) -> list[bytes]:
    """Return what lies between the packets' other pieces: a block's total length and the head of the next one."""
    time_ns = np.maximum(batch.time_ns[rows], 0)
    words = np.zeros((len(rows) + 1, _JOINT_WORDS), f"{_ORDER}u4")
    words[1:, 0] = block_bytes
    words[:-1, 1] = ENHANCED_PACKET
    words[:-1, 2] = block_bytes
    words[:-1, 3] = interface
    words[:-1, 4] = time_ns >> _WORD_BITS
    words[:-1, 5] = time_ns & (1 << _WORD_BITS) - 1
    words[:-1, 6] = batch.captured_bytes[rows]
    words[:-1, 7] = batch.wire_bytes[rows]
    joints: list[bytes] = words.view(f"V{words.itemsize * _JOINT_WORDS}").reshape(-1).tolist()
    return joints


def _section_header(application: str) -> bytes:
    system = platform.uname()
    about = (
        (SHB_HARDWARE, system.machine.encode()),
        (SHB_OS, f"{system.system} {system.release}".encode()),
        (SHB_USERAPPL, application.encode()),
    )
    body = struct.pack("<IHHq", BYTE_ORDER_MAGIC, *_VERSION, UNKNOWN_SECTION_BYTES)
    return block(SECTION_HEADER, body + _encode(about), _ORDER)


def _interface_block(name: str, linktype: int) -> bytes:
    options = [(IF_TSRESOL, bytes([_NANOSECONDS]))]
    if name:
        options.insert(0, (IF_NAME, name.encode("utf-8", "backslashreplace")))
    return block(INTERFACE_DESCRIPTION, struct.pack("<HHI", linktype, 0, _NO_LIMIT) + _encode(options), _ORDER)


def _encode(options: Collection[tuple[int, bytes]]) -> bytes:
    return b"".join(option(code, value, _ORDER) for code, value in (*options, (OPT_END, b"")))


def _two_words(time_ns: int) -> bytes:
    """Return a time as pcapng has it, the upper half first whatever the byte order."""
    return struct.pack("<II", time_ns >> _WORD_BITS, time_ns & (1 << _WORD_BITS) - 1)
