"""Packets one by one with recvmsg, for where the kernel refuses a ring (packet(7), PACKET_AUXDATA)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Mapping

import numpy as np

from pktproc.capture import blocks

_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_SOL_PACKET = 263
_PACKET_AUXDATA = 8
_AUXDATA = struct.Struct("=IIIHHHH")  # struct tpacket_auxdata: status, len, snaplen, mac, net, vlan_tci, vlan_tpid
_TIMESPEC = struct.Struct("@ll")
_FRAME_BYTES = 1 << 18
_READ_PACKETS = 1024
_LARGEST_BUFFER_BYTES = (1 << 30) - 1  # the kernel doubles the value, an int
_HEADROOM = 96
_MAC_OFFSET = _HEADROOM - 16


class PlainReader:
    """Read packets from a packet socket, many at a time, into the layout of a ring's frames."""

    def __init__(self, target: socket.socket, buffer_bytes: int, ifindexes: Callable[[], Mapping[str, int]]) -> None:
        self._ifindexes = ifindexes
        buffer_bytes = min(buffer_bytes, _LARGEST_BUFFER_BYTES)
        self._socket = target
        target.setblocking(False)
        target.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        target.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        try:
            target.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer_bytes)
        except PermissionError:
            target.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)

    def read(self) -> blocks.Frames | None:
        """Return the packets that are waiting; None if there are none."""
        frames: list[bytes] = []
        ifindexes = self._ifindexes()
        for _ in range(_READ_PACKETS):
            try:
                data, ancillary, _, address = self._socket.recvmsg(_FRAME_BYTES, 256, socket.MSG_TRUNC)
            except BlockingIOError:
                break
            frames.append(_frame(data, ancillary, address, ifindexes.get(address[0], 0)))
        if not frames:
            return None
        joined = np.frombuffer(bytearray(b"".join(frames)), np.uint8)
        lengths = np.array([len(frame) for frame in frames], np.int64)
        return blocks.parse(joined, np.cumsum(lengths) - lengths)

    def close(self) -> None:
        """Nothing is held beside the socket, which is its owner's."""


def _frame(
    data: bytes, ancillary: list[tuple[int, int, bytes]], address: tuple[str, int, int, int, bytes], ifindex: int
) -> bytes:
    """Return a packet as a TPACKET_V3 ring would show it."""
    status = tci = tpid = 0
    wire, net = len(data), 0
    for level, kind, value in ancillary:
        if level == _SOL_PACKET and kind == _PACKET_AUXDATA and len(value) >= _AUXDATA.size:
            status, wire, _, mac, net_offset, tci, tpid = _AUXDATA.unpack_from(value)
            net = net_offset - mac
    head = np.zeros(1, blocks.FRAME)
    head["sec"], head["nsec"] = divmod(timestamp_ns(ancillary), 1_000_000_000)
    head["snaplen"], head["len"], head["status"] = len(data), wire, status
    head["mac"], head["net"] = _MAC_OFFSET, _MAC_OFFSET + net
    head["vlan_tci"], head["vlan_tpid"] = tci, tpid
    _, protocol, packet_type, hatype, _ = address
    head["protocol"], head["hatype"], head["pkttype"] = protocol, hatype, packet_type
    head["ifindex"] = ifindex
    padding = bytes(-(len(data) + _MAC_OFFSET) % 16)
    return head.tobytes() + bytes(_MAC_OFFSET - blocks.FRAME.itemsize) + data + padding


def timestamp_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    """Return the time of a packet since the epoch in ns from its control messages, 0 if it is not among them."""
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS and len(value) >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(value)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return 0
