"""Capture files byte by byte, as the drafts of both formats have them, and what pktproc and tshark read from files."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pktproc.capture.capture_file import FileBatch, open_capture
from pktproc.errors import FormatError

MICROSECONDS, NANOSECONDS, MODIFIED = 0xA1B2C3D4, 0xA1B23C4D, 0xA1B2CD34
ORDERS = ("<", ">")
PRIVATE_LINKTYPE = 147
"""LINKTYPE_USER0: nobody dissects it."""
SECTION, INTERFACE, OBSOLETE, SIMPLE, NAMES, STATISTICS, ENHANCED = 0x0A0D0D0A, 1, 2, 3, 4, 5, 6
SECRETS, CUSTOM, CUSTOM_KEPT, DARWIN = 10, 0xBAD, 0x40000BAD, 0x80000001
COMMENT, FLAGS, IF_NAME, IF_TSRESOL, IF_TSOFFSET = 1, 2, 2, 9, 14
END_OF_OPTIONS = bytes(4)
NS_PER_S = 1_000_000_000


class Packet(NamedTuple):
    """A packet as a reader sees it."""

    data: bytes
    time_ns: int
    wire: int
    interface: int = 0
    linktype: int = PRIVATE_LINKTYPE


class Stretch(NamedTuple):
    """What a file yielded: its packets, its batches, and the error at the end."""

    packets: list[Packet]
    batches: list[FileBatch]
    error: FormatError | None


def packets_of(file_batch: FileBatch) -> list[Packet]:
    batch = file_batch.batch
    columns = (batch.time_ns, batch.wire_bytes, batch.interface, batch.linktype)
    values = zip(*(column.tolist() for column in columns), strict=True)
    return [Packet(batch.packet(row), *rest) for row, rest in enumerate(values)]


def read(path: Path | str, chunk_bytes: int = 1 << 20) -> Stretch:
    """Read a whole file, to its end or its first defect."""
    batches: list[FileBatch] = []
    error = None
    try:
        with open_capture(str(path), chunk_bytes=chunk_bytes) as capture:
            batches.extend(capture)
    except FormatError as broken:
        error = broken
    return Stretch([packet for batch in batches for packet in packets_of(batch)], batches, error)


def some_packets(count: int, *, unit_ns: int = 1000, seed: int = 7, largest: int = 300) -> list[Packet]:
    """Return packets of random bytes and sizes, some of them cut, in order of time."""
    random = np.random.default_rng(seed)
    start = 1_790_000_000 * NS_PER_S
    packets = []
    for row in range(count):
        data = random.bytes(int(random.integers(0, largest)))
        time_ns = start + row * 12_345_678_000 // unit_ns * unit_ns
        packets.append(Packet(data, time_ns, len(data) + int(random.integers(0, 2)) * 100))
    return packets


def pcap_header(order: str = "<", magic: int = MICROSECONDS, linktype: int = PRIVATE_LINKTYPE) -> bytes:
    return struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 262144, linktype)


def pcap_record(packet: Packet, order: str = "<", magic: int = MICROSECONDS, packet_type: int = 0) -> bytes:
    seconds, fraction = divmod(packet.time_ns, NS_PER_S)
    if magic != NANOSECONDS:
        fraction //= 1000
    header = struct.pack(f"{order}IIII", seconds, fraction, len(packet.data), packet.wire)
    if magic == MODIFIED:
        header += struct.pack(f"{order}IHBB", 3, 0x0800, packet_type, 0)
    return header + packet.data


def pcap(packets: Iterable[Packet], order: str = "<", magic: int = MICROSECONDS) -> bytes:
    return pcap_header(order, magic) + b"".join(pcap_record(packet, order, magic) for packet in packets)


class Draft:
    """Write pcapng blocks in one byte order."""

    def __init__(self, order: str = "<") -> None:
        self.order = order

    def pack(self, layout: str, *values: int) -> bytes:
        return struct.pack(self.order + layout, *values)

    def block(self, kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        length = self.pack("I", len(body) + 12)
        return self.pack("I", kind) + length + body + length

    def option(self, code: int, value: bytes) -> bytes:
        return self.pack("HH", code, len(value)) + value + bytes(-len(value) % 4)

    def section(self, options: bytes = b"", major: int = 1, length: int = -1) -> bytes:
        return self.block(SECTION, self.pack("IHHq", 0x1A2B3C4D, major, 0, length) + options)

    def interface(
        self,
        linktype: int = PRIVATE_LINKTYPE,
        snaplen: int = 0,
        *,
        name: str | None = None,
        tsresol: int | None = None,
        tsoffset: int | None = None,
        end: bytes = END_OF_OPTIONS,
    ) -> bytes:
        options = b""
        if name is not None:
            options += self.option(IF_NAME, name.encode())
        if tsresol is not None:
            options += self.option(IF_TSRESOL, bytes([tsresol]))
        if tsoffset is not None:
            options += self.option(IF_TSOFFSET, self.pack("q", tsoffset))
        return self.block(INTERFACE, self.pack("HHI", linktype, 0, snaplen) + options + end)

    def enhanced(
        self, data: bytes, ticks: int, interface: int = 0, *, wire: int | None = None, options: bytes = b""
    ) -> bytes:
        lengths = (len(data), len(data) if wire is None else wire)
        head = self.pack("IIIII", interface, ticks >> 32, ticks & 0xFFFFFFFF, *lengths)
        return self.block(ENHANCED, head + data + bytes(-len(data) % 4) + options)

    def simple(self, data: bytes, wire: int | None = None) -> bytes:
        return self.block(SIMPLE, self.pack("I", len(data) if wire is None else wire) + data)

    def obsolete(
        self, data: bytes, ticks: int, interface: int = 0, *, wire: int | None = None, options: bytes = b""
    ) -> bytes:
        lengths = (len(data), len(data) if wire is None else wire)
        head = self.pack("HHIIII", interface, 0xFFFF, ticks >> 32, ticks & 0xFFFFFFFF, *lengths)
        return self.block(OBSOLETE, head + data + bytes(-len(data) % 4) + options)

    def other_blocks(self) -> list[bytes]:
        """Return blocks that are no packets and that a reader has to leave alone."""
        address = self.pack("HH", 1, 12) + bytes([10, 0, 0, 1]) + b"host.ex\0"
        statistics = self.pack("III", 0, 0x5B0, 0x12345678) + self.option(5, bytes(8)) + END_OF_OPTIONS
        return [
            self.block(NAMES, address + bytes(4)),
            self.block(STATISTICS, statistics),
            self.block(SECRETS, self.pack("II", 0x544C534B, 6) + b"secret"),
            self.block(CUSTOM, self.pack("I", 32473) + b"custom data!"),
            self.block(CUSTOM_KEPT, self.pack("I", 32473)),
            self.block(0x0BADCAFE, b""),
        ]

    def pcapng(self, packets: Iterable[Packet]) -> bytes:
        """Return a file of one interface with times in nanoseconds."""
        blocks = [self.enhanced(packet.data, packet.time_ns, wire=packet.wire) for packet in packets]
        return self.section() + self.interface(tsresol=9) + b"".join(blocks)


class Seen(NamedTuple):
    """What tshark says of a packet; the time is None where it has none."""

    time_ns: int | None
    wire: int
    captured: int
    interface: int


def tshark(path: Path, *, sections: Sequence[int] | None = (0,)) -> list[Seen]:
    """Return what tshark reads from a file; AssertionError where it complains.

    `sections` are the numbers, over the whole file, of the first interface of each section; None for pcap. tshark takes
    custom blocks for frames, but of no interface.
    """
    names = ["frame.time_epoch", "frame.len", "frame.cap_len", "frame.interface_id", "frame.section_number"]
    seen = []
    for time, wire, captured, interface, section in tshark_fields(path, names):
        time_ns = int(Decimal(time) * NS_PER_S) if time else None
        if sections is None:
            seen.append(Seen(time_ns, int(wire), int(captured), 0))
        elif interface:
            seen.append(Seen(time_ns, int(wire), int(captured), sections[int(section) - 1] + int(interface)))
    return seen


def tshark_fields(path: Path, names: Sequence[str]) -> list[list[str]]:
    wanted = [word for name in names for word in ("-e", name)]
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def as_seen(packets: Iterable[Packet]) -> list[Seen]:
    return [Seen(packet.time_ns, packet.wire, len(packet.data), packet.interface) for packet in packets]
