"""How many bytes a packet has, at the layer that is counted."""

from __future__ import annotations

import numpy as np

from pktproc.packets.batch import Column, PacketBatch
from pktproc.packets.columns import Columns
from pktproc.packets.headers import IPV4, IPV6, gather
from pktproc.packets.network import select

LAYERS = ("wire", "ip", "payload")


def layer_bytes(batch: PacketBatch, columns: Columns, layer: str) -> Column:
    """Return the int64 size of each packet at one of `LAYERS`, however little of it was kept.

    `wire` is the frame as it was captured, link header included; `ip` the datagram with its header; `payload` what
    follows the transport header. A packet that is not IP has 0 bytes at the last two.
    """
    if layer == "wire":
        return batch.wire_bytes
    return columns.payload_bytes if layer == "payload" else _datagram_bytes(batch, columns)


def _datagram_bytes(batch: PacketBatch, columns: Columns) -> Column:
    size = np.zeros(len(batch), np.int64)
    v4 = select(columns.network == IPV4_VERSION)
    if v4 is not None:
        size[v4] = _length(batch, columns.network_offset, v4, IPV4, "total_length")
    v6 = select(columns.network == IPV6_VERSION)
    if v6 is not None:
        length = _length(batch, columns.network_offset, v6, IPV6, "payload_length")
        size[v6] = np.where(length == 0, 0, length + IPV6.itemsize)
    # Offloaded segmentation leaves the length 0, which means the rest of the frame.
    offloaded = (size == 0) & (columns.network != 0)
    if offloaded.any():
        frame = np.maximum(batch.wire_bytes, batch.captured_bytes)
        size[offloaded] = (frame - (columns.network_offset - batch.offset))[offloaded]
    return size


def _length(
    batch: PacketBatch, position: Column, rows: Column | slice, layout: np.dtype[np.void], field: str
) -> Column:
    end = (batch.offset + batch.captured_bytes)[rows]
    header, _ = gather(batch.data, position[rows], end, layout)
    return header[field].astype(np.int64)


IPV4_VERSION, IPV6_VERSION = 4, 6
