"""The TPACKET_V3 ring on a packet socket: the kernel fills blocks, we take whole blocks (packet(7))."""

from __future__ import annotations

import mmap
import socket
import struct

import numpy as np

from pktproc.capture import blocks
from pktproc.errors import CaptureError
from pktproc.packets.batch import Column

_SOL_PACKET = 263
_PACKET_RX_RING = 5
_PACKET_VERSION = 10
_PACKET_RESERVE = 12
_TPACKET_V3 = 2

# A block holds the largest frame (64 KiB with segmentation offload) and is small, since a block that is retired by its
# timeout is used up however little it holds.
BLOCK_BYTES = 1 << 17
_FRAME_BYTES = 1 << 11
# Most that one read takes, so that a batch stays cheap to hold and to print.
READ_BYTES = 4 << 20


class Ring:
    """Read blocks of frames from a packet socket.

    `buffer_bytes` is the size of the ring, `timeout_ms` the longest that the kernel keeps a packet back to fill a
    block. Raise OSError if the kernel refuses the ring.
    """

    def __init__(self, target: socket.socket, buffer_bytes: int, timeout_ms: int) -> None:
        self._count = max(2, buffer_bytes // BLOCK_BYTES)
        request = struct.pack(
            "IIIIIII",
            BLOCK_BYTES,
            self._count,
            _FRAME_BYTES,
            self._count * (BLOCK_BYTES // _FRAME_BYTES),
            timeout_ms,
            0,
            0,
        )
        target.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        target.setsockopt(_SOL_PACKET, _PACKET_RESERVE, blocks.VLAN_TAG_BYTES)
        target.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        try:
            self._map = mmap.mmap(target.fileno(), self._count * BLOCK_BYTES)
        except OSError:
            target.setsockopt(_SOL_PACKET, _PACKET_RX_RING, bytes(len(request)))  # or packets would still go there
            raise
        self._bytes = np.frombuffer(self._map, np.uint8)
        self._next = 0

    def read(self) -> blocks.Frames | None:
        """Return the frames of the blocks that are ready, in order, copied out of the ring; None if none is ready."""
        ready = self._ready()
        if not ready:
            return None
        data = np.empty(sum(length for _, _, _, length in ready), np.uint8)
        starts: list[Column] = []
        size = 0
        for base, count, first, length in ready:
            chunk = data[size : size + length]
            chunk[:] = self._bytes[base : base + length]
            struct.pack_into("=I", self._map, base + blocks.STATUS_OFFSET, blocks.TP_STATUS_KERNEL)
            starts.append(blocks.frame_offsets(chunk, first, count) + size)
            size += length
        self._next = (self._next + len(ready)) % self._count
        return blocks.parse(data, starts[0] if len(starts) == 1 else np.concatenate(starts))

    def _ready(self) -> list[tuple[int, int, int, int]]:
        """Return (position, packets, offset of the first, bytes) of the blocks that the kernel has handed over."""
        ready = []
        size = 0
        for number in range(self._count):
            base = (self._next + number) % self._count * BLOCK_BYTES
            status, count, first, length = blocks.BLOCK_HEADER.unpack_from(self._map, base)
            if not status & blocks.TP_STATUS_USER or size >= READ_BYTES:
                break
            if first > length or length > BLOCK_BYTES:
                raise CaptureError("the capture ring is corrupt")
            ready.append((base, count, first, length))
            size += length
        return ready

    def close(self) -> None:
        """Unmap the ring."""
        del self._bytes
        self._map.close()
