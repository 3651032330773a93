"""The packets of pcapng blocks as columns (draft-ietf-opsawg-pcapng sections 4.3, 4.4 and appendix A)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pktproc.capture.pcapng_blocks import MIN_BLOCK_BYTES, Blocks
from pktproc.errors import FormatError
from pktproc.model import PacketType
from pktproc.packets import pcapng
from pktproc.packets.batch import Bytes, Column
from pktproc.packets.pcapng import ByteOrder

_FIXED_BYTES = MIN_BLOCK_BYTES + pcapng.ENHANCED_PACKET_BYTES
_DATA_AT = pcapng.BLOCK_HEAD_BYTES + pcapng.ENHANCED_PACKET_BYTES
_SIMPLE_DATA_AT = pcapng.BLOCK_HEAD_BYTES + 4
_FIELDS = np.arange(2, 7)
_INBOUND, _OUTBOUND = 1, 2
# epb_flags bits 2 to 4, by which way a packet came in; not told, unicast, multicast, broadcast, promiscuous.
_RECEPTION = (
    PacketType.HOST,
    PacketType.HOST,
    PacketType.MULTICAST,
    PacketType.BROADCAST,
    PacketType.OTHERHOST,
)


class Packets(NamedTuple):
    """Columns with an entry for each packet: int64 but for `ticks`, a uint64; positions within the buffer.

    `block` is the index of the packet's block, `interface` counts within the section, `room` is what the block has for
    data and options, and the options lie between `options` and `options_end`.
    """

    block: Column
    interface: Column
    ticks: Column
    captured: Column
    wire: Column
    offset: Column
    room: Column
    options: Column
    options_end: Column


def packets_of(words: Column, order: ByteOrder, blocks: Blocks, described: int, snaplen: int) -> tuple[Packets, Blocks]:
    """Return the packets of blocks, and the blocks up to the first that contradicts itself.

    `words` is the buffer in the section's byte order. `described` interfaces were so before these blocks; `snaplen`, of
    the first one, is what simple packets were cut to, 0 for not cut.
    """
    if (blocks.kind == pcapng.ENHANCED_PACKET).all():
        packets = _enhanced(words, blocks, np.arange(len(blocks.kind)))
        known: Column | int = described
    else:
        packets = _mixed(words, order, blocks, snaplen)
        known = described + np.cumsum(blocks.kind == pcapng.INTERFACE_DESCRIPTION)[packets.block]
    strange = packets.interface >= known
    wrong = strange | (packets.captured > packets.room)
    if not wrong.any():
        return packets, blocks
    first = int(np.argmax(wrong))
    defect = f"a packet claims {packets.captured[first]:,} bytes, of which its block has {packets.room[first]:,}"
    if strange[first]:
        defect = f"a packet of interface {packets.interface[first]}, which was not described"
    return Packets(*(column[:first] for column in packets)), blocks.cut(int(packets.block[first]), defect)


def _enhanced(words: Column, blocks: Blocks, block: Column) -> Packets:
    """Read blocks of the given indexes as enhanced packets."""
    place, length = blocks.place[block], blocks.length[block]
    fields = words.take((place >> 2)[:, None] + _FIELDS, mode="clip")
    interface, captured, wire = (fields[:, column].astype(np.int64) for column in (0, 3, 4))
    ticks = (fields[:, 1].astype(np.uint64) << np.uint64(32)) | fields[:, 2]
    offset = place + _DATA_AT
    options, options_end = offset + ((captured + 3) & ~3), place + length - pcapng.BLOCK_TAIL_BYTES
    return Packets(block, interface, ticks, captured, wire, offset, length - _FIXED_BYTES, options, options_end)


def _mixed(words: Column, order: ByteOrder, blocks: Blocks, snaplen: int) -> Packets:
    """Read the packets among blocks of all types."""
    kinds = (pcapng.ENHANCED_PACKET, pcapng.SIMPLE_PACKET, pcapng.OBSOLETE_PACKET)
    packets = _enhanced(words, blocks, np.flatnonzero(np.isin(blocks.kind, kinds)))
    kind = blocks.kind[packets.block]
    # Two numbers of 16 bits in place of one; the second counts drops.
    obsolete = np.flatnonzero(kind == pcapng.OBSOLETE_PACKET)
    interface = packets.interface[obsolete]
    packets.interface[obsolete] = interface & 0xFFFF if order == "<" else interface >> 16
    simple = np.flatnonzero(kind == pcapng.SIMPLE_PACKET)
    wire = packets.interface[simple]  # it stands where others have the interface
    packets.wire[simple] = wire
    packets.captured[simple] = np.minimum(wire, snaplen) if snaplen else wire
    packets.interface[simple] = 0
    packets.ticks[simple] = 0
    packets.offset[simple] -= _DATA_AT - _SIMPLE_DATA_AT
    packets.room[simple] += _DATA_AT - _SIMPLE_DATA_AT
    packets.options[simple] = packets.options_end[simple]
    return packets


def distinct_options(data: Bytes, start: Column, end: Column) -> tuple[Column, list[bytes]]:
    """Return which options each packet has, -1 for none, and the distinct ones; they lie between two positions."""
    chosen = np.full(len(start), -1, np.int64)
    rows = np.flatnonzero(start < end)
    if not len(rows):
        return chosen, []
    raw = data.tobytes()
    known: dict[bytes, int] = {}
    places = zip(start[rows].tolist(), end[rows].tolist(), strict=True)
    chosen[rows] = [known.setdefault(raw[first:last], len(known)) for first, last in places]
    return chosen, list(known)


def packet_type(options: bytes, order: ByteOrder) -> PacketType:
    """Return what the epb_flags among a packet's options tell."""
    try:
        flags = next((value for code, value in pcapng.read_options(options, order) if code == pcapng.EPB_FLAGS), b"")
    except FormatError:
        flags = b""
    if len(flags) != 4:
        return PacketType.UNKNOWN
    # The obsolete packet block numbers and fills its flags the same way.
    word = int.from_bytes(flags, "little" if order == "<" else "big")
    if word & 3 == _OUTBOUND:
        return PacketType.OUTGOING
    reception = word >> 2 & 7
    return _RECEPTION[reception] if word & 3 == _INBOUND and reception < len(_RECEPTION) else PacketType.UNKNOWN
