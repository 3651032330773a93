"""Capture files as batches, read by scapy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scapy.utils import RawPcapReader

from pktproc.model import Interface, PacketType
from pktproc.packets.batch import PacketBatch

DIRECTORY = Path(__file__).parents[2] / "pcaps"
FILES = sorted(path.name for path in DIRECTORY.glob("*.pcap*"))

ETH0 = Interface("eth0", 2, 4026531840)


def pack(
    packets: list[bytes],
    linktypes: int | list[int],
    *,
    wire_bytes: list[int] | None = None,
    interface: Interface = ETH0,
    packet_type: int = PacketType.OUTGOING,
    step_ns: int = 1_000_000,
    between: bytes = b"",
) -> PacketBatch:
    """A batch of packets, one after another in the buffer, with the bytes `between` before each and after the last."""
    count = len(packets)
    lengths = np.array([len(packet) for packet in packets], np.int64)
    begin = np.cumsum(np.concatenate([np.zeros(1, np.int64), lengths[:-1] + len(between)]))[:count] + len(between)
    data = between + between.join(packets) + between
    return PacketBatch(
        data=np.frombuffer(data, np.uint8),
        offset=begin,
        captured_bytes=lengths,
        wire_bytes=lengths.copy() if wire_bytes is None else np.array(wire_bytes, np.int64),
        time_ns=np.arange(count, dtype=np.int64) * step_ns + 1_700_000_000_000_000_000,
        interface=np.zeros(count, np.int64),
        packet_type=np.full(count, packet_type, np.uint8),
        linktype=np.full(count, linktypes, np.uint16),
        interfaces=(interface,),
    )


def read(name: str) -> PacketBatch:
    reader = RawPcapReader(str(DIRECTORY / name))
    packets: list[bytes] = []
    linktypes: list[int] = []
    wire_bytes: list[int] = []
    for data, metadata in reader:
        packets.append(data)
        # In a pcapng file every packet has its own.
        source: Any = metadata if name.endswith("ng") else reader
        linktypes.append(source.linktype)
        wire_bytes.append(metadata.wirelen)
    return pack(packets, linktypes, wire_bytes=wire_bytes)
