"""A block of packets: one buffer and the columns that say where each packet lies in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pktproc.model import Interface

Bytes = npt.NDArray[np.uint8]
Column = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class PacketBatch:
    """Hold the packets of a block; every column has one entry for each packet, in order of arrival.

    `data` is the uint8 buffer; the captured bytes of packet i are `data[offset[i] : offset[i] + captured_bytes[i]]`.
    `offset` and `time_ns` (since the epoch) are int64; `captured_bytes` and `wire_bytes` int64; `interface` int64, an
    index into `interfaces`; `packet_type` uint8, a `PacketType`; `linktype` uint16, a LINKTYPE_ number (see
    `linktypes`).
    """

    data: Bytes
    offset: Column
    captured_bytes: Column
    wire_bytes: Column
    time_ns: Column
    interface: Column
    packet_type: Column
    linktype: Column
    interfaces: tuple[Interface, ...]

    def __len__(self) -> int:
        return len(self.offset)

    def packet(self, row: int) -> bytes:
        """Return the captured bytes of one packet."""
        start = int(self.offset[row])
        return self.data[start : start + int(self.captured_bytes[row])].tobytes()


def one_packet(
    data: bytes,
    linktype: int,
    interface: Interface,
    packet_type: int,
    time_ns: int,
    *,
    wire_bytes: int | None = None,
) -> PacketBatch:
    """Return a batch that holds a single packet.

    `packet_type` is a `pktproc.model.PacketType`. `wire_bytes` is the packet's length before it was cut to `data`, None
    for not cut.
    """
    return PacketBatch(
        data=np.frombuffer(data, np.uint8),
        offset=np.zeros(1, np.int64),
        captured_bytes=np.array([len(data)], np.int64),
        wire_bytes=np.array([len(data) if wire_bytes is None else wire_bytes], np.int64),
        time_ns=np.array([time_ns], np.int64),
        interface=np.zeros(1, np.int64),
        packet_type=np.array([packet_type], np.uint8),
        linktype=np.array([linktype], np.uint16),
        interfaces=(interface,),
    )
