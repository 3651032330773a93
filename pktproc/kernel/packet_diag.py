"""AF_PACKET sockets as rows (linux/packet_diag.h)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from pktproc.inventory.rows import PACKET_KINDS, Attributes, Row
from pktproc.inventory.states import CLOSED
from pktproc.kernel import netlink
from pktproc.kernel.diag_dump import DumpSocket
from pktproc.kernel.inet_attributes import counters

_REQUEST = struct.Struct("=BBHIIII")  # family, protocol, pad, inode, show, cookie
_MESSAGE = struct.Struct("=BBHIQ")  # family, type, ethertype, inode, cookie
_SHOW = 0x1 | 0x4 | 0x8 | 0x10  # interface and the like, rings, fanout, memory; a uid comes with the first
_INFO, _, _RECEIVING, _SENDING, _FANOUT, _UID, _MEMORY = range(7)
_NUMBER = struct.Struct("=I")
_PAIR = struct.Struct("=II")
_RECEIVED = 0  # SK_MEMINFO_RMEM_ALLOC
_ANY = 0xFFFFFFFF


def rows(diag: DumpSocket) -> Iterator[Row]:
    """Yield the packet sockets of a namespace."""
    body = _REQUEST.pack(socket.AF_PACKET, 0, 0, 0, _SHOW, _ANY, _ANY)
    for payload in diag.messages(body, "packet sockets"):
        if len(payload) >= _MESSAGE.size:
            yield _row(payload, diag.netns)


def _row(payload: memoryview, netns: int) -> Row:
    _, kind, ethertype, inode, cookie = _MESSAGE.unpack_from(payload)
    told = dict(netlink.attributes(payload[_MESSAGE.size :]))
    memory = counters(told.get(_MEMORY, memoryview(b"")))
    return Row(
        netns=netns,
        kind=PACKET_KINDS.get(kind, "p_raw"),
        family=socket.AF_PACKET,
        state=CLOSED,
        receive_queue=memory[_RECEIVED] if memory else 0,
        send_queue=0,
        local=b"",
        local_port=ethertype,
        remote=b"",
        remote_port=0,
        ifindex=_first(told.get(_INFO)) or 0,
        cookie=cookie,
        uid=_first(told.get(_UID)),
        inode=inode,
        timer=0,
        retransmissions=0,
        expires_ms=0,
        attributes=Attributes(memory=memory or None, fanout=_fanout(_first(told.get(_FANOUT))), rings=_rings(told)),
    )


def _first(value: memoryview | None) -> int | None:
    """Return the first 32-bit number of an attribute, None without one."""
    if value is None or len(value) < _NUMBER.size:
        return None
    number: int = _NUMBER.unpack_from(value)[0]
    return number


def _fanout(value: int | None) -> tuple[int, int] | None:
    return None if value is None else (value & 0xFFFF, value >> 16)


def _rings(told: dict[int, memoryview]) -> tuple[int, int] | None:
    sizes = tuple(_ring_bytes(told.get(kind)) for kind in (_RECEIVING, _SENDING))
    return (sizes[0], sizes[1]) if any(sizes) else None


def _ring_bytes(value: memoryview | None) -> int:
    if value is None or len(value) < _PAIR.size:
        return 0
    block_bytes, blocks = _PAIR.unpack_from(value)
    return int(block_bytes * blocks)
