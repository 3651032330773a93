"""What the blocks of a pcapng section have told so far (draft-ietf-opsawg-pcapng sections 4.1 and 4.2)."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from pktproc.capture.file_batch import DEFAULT_TSRESOL, SectionInterface
from pktproc.capture.pcapng_packets import packet_type
from pktproc.errors import FormatError
from pktproc.model import PacketType
from pktproc.packets import pcapng
from pktproc.packets.batch import Column
from pktproc.packets.pcapng import ByteOrder

_MAJOR_VERSION = 1
_MAGIC_END = 12
_MAX_NAME_BYTES = 256  # the kernel allows 16, Windows' device names have 50
# Options of so many flows, each with a comment, take less than 32 MB.
_MAX_REMEMBERED, _MAX_REMEMBERED_BYTES = 1 << 15, 1 << 9


class InterfaceColumns(NamedTuple):
    """What packets need of their interface: uint16, uint8, and int64 in seconds."""

    linktype: Column
    tsresol: Column
    tsoffset: Column


class Section:
    """A section of a file: its byte order, its interfaces, and how many process blocks it has had."""

    def __init__(self, order: ByteOrder) -> None:
        self.order = order
        self.interfaces: list[SectionInterface] = []
        self.process_blocks = 0
        self._packet_types: dict[bytes, PacketType] = {}
        self._columns: InterfaceColumns | None = None

    def describe(self, body: bytes) -> SectionInterface:
        """Add an interface from the body of its block and return it; raise `FormatError` for broken options."""
        linktype, snaplen = struct.unpack_from(f"{self.order}HxxI", body)
        name, tsresol, tsoffset = "", DEFAULT_TSRESOL, 0
        for code, value in pcapng.read_options(body[8:], self.order):
            if code == pcapng.IF_NAME:
                name = value[:_MAX_NAME_BYTES].partition(b"\0")[0].decode(errors="surrogateescape")
            elif code == pcapng.IF_TSRESOL and len(value) == 1:
                tsresol = value[0]
            elif code == pcapng.IF_TSOFFSET and len(value) == 8:
                (tsoffset,) = struct.unpack(f"{self.order}q", value)
        interface = SectionInterface(linktype, snaplen, name, tsresol, tsoffset)
        self.interfaces.append(interface)
        self._columns = None
        return interface

    def packet_types(self, option_sets: list[bytes]) -> Column:
        """Return the `PacketType` (uint8) of packets with such options, and at the end that of packets without."""
        known = self._packet_types
        types = []
        for options in option_sets:
            found = known.get(options)
            if found is None:
                found = packet_type(options, self.order)
                if len(options) <= _MAX_REMEMBERED_BYTES and len(known) < _MAX_REMEMBERED:
                    known[options] = found
            types.append(found)
        return np.array([*types, PacketType.UNKNOWN], np.uint8)

    def columns(self) -> InterfaceColumns:
        """Return the interfaces as columns."""
        if self._columns is None:
            self._columns = InterfaceColumns(
                linktype=np.array([interface.linktype for interface in self.interfaces], np.uint16),
                tsresol=np.array([interface.tsresol for interface in self.interfaces], np.uint8),
                tsoffset=np.array([interface.tsoffset for interface in self.interfaces], np.int64),
            )
        return self._columns


def section_order(start: bytes, position: int) -> ByteOrder:
    """Return the byte order of a section whose header block begins so; raise `FormatError` for none."""
    for order in ("<", ">"):
        if struct.pack(f"{order}I", pcapng.BYTE_ORDER_MAGIC) == start[pcapng.BLOCK_HEAD_BYTES : _MAGIC_END]:
            return order
    raise FormatError("a section header without a byte order", offset=position)


def check_version(header: bytes, order: ByteOrder) -> str | None:
    """Return what is wrong with the version in a section header block, None for nothing."""
    major, minor = struct.unpack_from(f"{order}HH", header, _MAGIC_END)
    return None if major == _MAJOR_VERSION else f"version {major}.{minor} of the pcapng format is not known"
