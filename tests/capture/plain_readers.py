"""Readers of both formats in the plainest way, packet by packet, as a yardstick for the ones that read in bulk."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from capture.recorded_files import (
    ENHANCED,
    INTERFACE,
    MODIFIED,
    NANOSECONDS,
    NS_PER_S,
    OBSOLETE,
    SECTION,
    SIMPLE,
    Packet,
)

LARGEST = 1 << 24
MAGICS = (0xA1B2C3D4, NANOSECONDS, MODIFIED)


class Ended(NamedTuple):
    """How a file ended: None for well, else where the defect begins."""

    offset: int | None


def plain_pcap(data: bytes) -> Iterator[Packet | Ended]:
    order = "<" if struct.unpack("<I", data[:4])[0] in MAGICS else ">"
    if len(data) < 24:
        yield Ended(0)
        return
    magic, major, minor, network = struct.unpack(f"{order}IHH12xI", data[:24])
    if major != 2 or minor < 3:
        yield Ended(0)
        return
    head = 24 if magic == MODIFIED else 16
    at = 24
    while at < len(data):
        if at + head > len(data):
            yield Ended(at)
            return
        seconds, fraction, captured, wire = struct.unpack_from(f"{order}IIII", data, at)
        if captured > LARGEST or at + head + captured > len(data):
            yield Ended(at)
            return
        time_ns = seconds * NS_PER_S + fraction * (1 if magic == NANOSECONDS else 1000)
        yield Packet(data[at + head : at + head + captured], time_ns, wire, 0, network & 0xFFFF)
        at += head + captured
    yield Ended(None)


class PlainInterface(NamedTuple):
    linktype: int
    snaplen: int
    tsresol: int
    tsoffset: int


def plain_pcapng(data: bytes) -> Iterator[Packet | Ended]:
    order, interfaces, first, at = "<", list[PlainInterface](), 0, 0
    while at < len(data):
        if data[at : at + 4] == b"\x0a\x0d\x0d\x0a" and at + 12 <= len(data):
            magic = data[at + 8 : at + 12]
            if magic not in (b"\x4d\x3c\x2b\x1a", b"\x1a\x2b\x3c\x4d"):
                yield Ended(at)
                return
            order = "<" if magic[0] == 0x4D else ">"
            first, interfaces = first + len(interfaces), []
        block = plain_block(data, at, order)
        packet = understood(block, order, interfaces, first) if block else Ended(at)
        if isinstance(packet, Ended):
            yield Ended(at)
            return
        if packet is not None:
            yield packet
        at += len(block)
    yield Ended(None)


def plain_block(data: bytes, at: int, order: str) -> bytes:
    """Return the block at a position, nothing if it is broken or cut."""
    if at + 12 > len(data):
        return b""
    _, length = struct.unpack_from(f"{order}II", data, at)
    if not 12 <= length <= LARGEST or length % 4 or at + length > len(data):
        return b""
    (tail,) = struct.unpack_from(f"{order}I", data, at + length - 4)
    return data[at : at + length] if tail == length else b""


def understood(block: bytes, order: str, interfaces: list[PlainInterface], first: int) -> Packet | Ended | None:
    """Return the packet of a block, None for another block, an end for what contradicts itself."""
    (kind,) = struct.unpack_from(f"{order}I", block)
    body = block[8:-4]
    try:
        if kind == SECTION:
            (version,) = struct.unpack_from(f"{order}4xH10x", body)
            return None if version == 1 else Ended(0)
        if kind == INTERFACE:
            interfaces.append(plain_interface(body, order))
        if kind in (ENHANCED, OBSOLETE, SIMPLE):
            return plain_packet(kind, body, order, interfaces, first)
    except (struct.error, IndexError):
        return Ended(0)
    return None


def plain_packet(kind: int, body: bytes, order: str, interfaces: list[PlainInterface], first: int) -> Packet:
    """Return a packet; struct.error or IndexError for what contradicts itself."""
    if kind == SIMPLE:
        (wire,) = struct.unpack_from(f"{order}I", body)
        number = high = low = 0
        captured = min(wire, interfaces[0].snaplen or wire)
        content = body[4:]
    else:
        layout = f"{order}{'I' if kind == ENHANCED else 'HH'}IIII"
        number, *_, high, low, captured, wire = struct.unpack_from(layout, body)
        content = body[20:]
    linktype, _, tsresol, tsoffset = interfaces[number]
    (data,) = struct.unpack_from(f"{captured}s", content)
    exact = (high << 32 | low) * NS_PER_S // units_per_second(tsresol) + tsoffset * NS_PER_S
    time_ns = 0 if kind == SIMPLE else min(max(exact, -(2**63)), 2**63 - 1)
    return Packet(data, time_ns, wire, first + number, linktype)


def units_per_second(tsresol: int) -> int:
    return int(2 ** (tsresol & 0x7F) if tsresol & 0x80 else 10 ** (tsresol & 0x7F))


def plain_interface(body: bytes, order: str) -> PlainInterface:
    """Return an interface; struct.error for broken options."""
    linktype, snaplen = struct.unpack_from(f"{order}HxxI", body)
    tsresol, tsoffset, at = 6, 0, 8
    while at < len(body):
        code, length = struct.unpack_from(f"{order}HH", body, at)
        if code == 0:
            break
        (value,) = struct.unpack_from(f"{length}s", body, at + 4)
        if code == 9 and length == 1:
            tsresol = value[0]
        if code == 14 and length == 8:
            (tsoffset,) = struct.unpack(f"{order}q", value)
        at += 4 + length + -length % 4
    return PlainInterface(linktype, snaplen, tsresol, tsoffset)
