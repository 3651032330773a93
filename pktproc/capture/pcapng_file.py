"""The pcapng format as a codec: bytes in, batches out, no reading (draft-ietf-opsawg-pcapng)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from pktproc.capture import timestamps
from pktproc.capture.file_batch import FileBatch, Origin
from pktproc.capture.pcapng_blocks import MIN_BLOCK_BYTES, BlockFinder, Blocks
from pktproc.capture.pcapng_packets import Packets, distinct_options, packets_of
from pktproc.capture.pcapng_section import Section, check_version, section_order
from pktproc.errors import FormatError
from pktproc.model import Interface
from pktproc.packets import pcapng
from pktproc.packets.batch import Bytes, Column, PacketBatch
from pktproc.packets.pcapng import ByteOrder

MAGIC_BYTES = 4
MAX_INTERFACES = 1 << 16
"""Interfaces of a file, all sections counted; each is remembered to its end."""
_SECTION_HEADER = struct.pack("=I", pcapng.SECTION_HEADER)  # the same in both byte orders


def is_pcapng(start: bytes) -> bool:
    """Tell whether a file that begins with these bytes, at least `MAGIC_BYTES`, is one."""
    return start[:MAGIC_BYTES] == _SECTION_HEADER


class PcapngDecoder:
    """Decode a pcapng file piece by piece; `position` is where in the file the next block begins."""

    def __init__(self) -> None:
        self.position = 0
        self._section = Section("<")
        self._first_interface = 0
        self._interfaces: list[Interface] = []
        self._seen: tuple[Interface, ...] = ()

    def decode(self, data: Bytes, *, is_last: bool) -> Iterator[FileBatch]:
        """Yield the packets and blocks of `data`, which begins at `position`; move that behind them.

        Raise `FormatError` behind the last packet before a defect; with `is_last` the end within a block is one.
        """
        finders: dict[ByteOrder, BlockFinder] = {}
        start = 0
        while start + MIN_BLOCK_BYTES <= len(data):
            head = data[start : start + MIN_BLOCK_BYTES].tobytes()
            if is_pcapng(head):
                self._section = Section(section_order(head, self.position))
                self._first_interface = len(self._interfaces)
            order = self._section.order
            if order not in finders:
                finders[order] = BlockFinder(data, order)
            finder = finders[order]
            blocks, packets = self._understood(data, finder.words, finder.blocks(start))
            if blocks.end > start:
                batch = self._batch(data[start : blocks.end], start, blocks, packets)
                self.position += blocks.end - start
                self._section.process_blocks += int(np.count_nonzero(blocks.kind == pcapng.DARWIN_PROCESS))
                yield batch
            if blocks.defect:
                raise FormatError(blocks.defect, offset=self.position)
            is_stuck, start = blocks.end == start, blocks.end
            if is_stuck or not is_pcapng(data[start : start + MAGIC_BYTES].tobytes()):
                break
        if is_last and start < len(data):
            raise FormatError("the last block is cut short", offset=self.position)

    def _understood(self, data: Bytes, words: Column, blocks: Blocks) -> tuple[Blocks, Packets]:
        """Learn the interfaces that blocks describe and find their packets, both up to the first that is broken."""
        section, described = self._section, len(self._section.interfaces)
        if len(blocks.place) and blocks.kind[0] == pcapng.SECTION_HEADER:
            defect = check_version(_content(data, blocks, 0), section.order)
            if defect:
                blocks = blocks.cut(0, defect)
        for index in np.flatnonzero(blocks.kind == pcapng.INTERFACE_DESCRIPTION).tolist():
            defect = self._describe(_content(data, blocks, index)[pcapng.BLOCK_HEAD_BYTES :])
            if defect:
                blocks = blocks.cut(index, defect)
                break
        snaplen = section.interfaces[0].snaplen if section.interfaces else 0
        packets, blocks = packets_of(words, section.order, blocks, described, snaplen)
        return blocks, packets

    def _describe(self, body: bytes) -> str | None:
        """Learn of an interface; return what is wrong with it, if anything."""
        if len(self._interfaces) >= MAX_INTERFACES:
            return f"more than {MAX_INTERFACES:,} interfaces"
        try:
            interface = self._section.describe(body)
        except FormatError as error:
            return f"an interface description is broken: {error}"
        number = len(self._interfaces)
        self._interfaces.append(Interface(interface.name or f"if{number}", number + 1, 0))
        return None

    def _batch(self, data: Bytes, start: int, blocks: Blocks, packets: Packets) -> FileBatch:
        """Return a batch of `data`, which lies at `start` of the buffer that blocks and packets were found in."""
        section = self._section
        if len(self._seen) != len(self._interfaces):
            self._seen = tuple(self._interfaces)
        block_row = np.full(len(blocks.kind), -1, np.int64)
        block_row[packets.block] = np.arange(len(packets.block))
        chosen, option_sets = distinct_options(data, packets.options - start, packets.options_end - start)
        batch = PacketBatch(
            data=data,
            offset=packets.offset - start,
            captured_bytes=packets.captured,
            wire_bytes=packets.wire,
            time_ns=self._times(blocks, packets),
            interface=packets.interface + self._first_interface,
            packet_type=section.packet_types(option_sets)[chosen],
            linktype=section.columns().linktype[packets.interface],
            interfaces=self._seen,
        )
        origin = Origin(
            order=section.order,
            block_offset=blocks.place - start,
            block_bytes=blocks.length,
            block_type=blocks.kind,
            block_row=block_row,
            section_interfaces=tuple(section.interfaces),
            process_blocks=section.process_blocks,
        )
        return FileBatch(batch, origin, chosen, option_sets)

    def _times(self, blocks: Blocks, packets: Packets) -> Column:
        interfaces = self._section.columns()
        tsresol, tsoffset = interfaces.tsresol[packets.interface], interfaces.tsoffset[packets.interface]
        times = timestamps.nanoseconds(packets.ticks, tsresol, tsoffset)
        times[blocks.kind[packets.block] == pcapng.SIMPLE_PACKET] = 0
        return times


def _content(data: Bytes, blocks: Blocks, index: int) -> bytes:
    """Return a block without the length at its end."""
    place = int(blocks.place[index])
    return data[place : place + int(blocks.length[index]) - pcapng.BLOCK_TAIL_BYTES].tobytes()
