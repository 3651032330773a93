"""AF_UNIX sockets as rows, with the inodes of their peers (linux/unix_diag.h)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from pktproc.inventory.rows import NO_ATTRIBUTES, UNIX_KINDS, Attributes, Row
from pktproc.kernel import netlink
from pktproc.kernel.diag_dump import DumpSocket
from pktproc.kernel.inet_attributes import counters

_REQUEST = struct.Struct("=BBHIIIII")  # family, protocol, pad, states, inode, show, cookie
_MESSAGE = struct.Struct("=BBBBIQ")  # family, type, state, pad, inode, cookie
_SHOW = 0x1 | 0x2 | 0x4 | 0x8 | 0x10 | 0x40  # name, file, peer, pending connections, queues, user
_SHOW_MEMORY = 0x20
_NAME, _FILE, _PEER, _PENDING, _QUEUES, _MEMORY, _SHUTDOWN, _UID = range(8)
_PAIR = struct.Struct("=II")
_NUMBER = struct.Struct("=I")
_ANY = 0xFFFFFFFF


def rows(diag: DumpSocket, *, states: int, memory: bool = False) -> Iterator[Row]:
    """Yield the unix sockets of a namespace; `memory` asks for their counters of memory."""
    show = _SHOW | (_SHOW_MEMORY if memory else 0)
    body = _REQUEST.pack(socket.AF_UNIX, 0, 0, states, 0, show, _ANY, _ANY)
    for payload in diag.messages(body, "unix sockets"):
        if len(payload) >= _MESSAGE.size:
            yield _row(payload, diag.netns)


def _row(payload: memoryview, netns: int) -> Row:
    _, kind, state, _, inode, cookie = _MESSAGE.unpack_from(payload)
    told = dict(netlink.attributes(payload[_MESSAGE.size :]))
    receiving, sending = _PAIR.unpack(told[_QUEUES]) if len(told.get(_QUEUES, b"")) == _PAIR.size else (0, 0)
    return Row(
        netns=netns,
        kind=UNIX_KINDS.get(kind, f"u_{kind}"),
        family=socket.AF_UNIX,
        state=state,
        receive_queue=receiving,
        send_queue=sending,
        local=_name(bytes(told.get(_NAME, b""))),
        local_port=inode,
        remote=b"",
        remote_port=_number(told.get(_PEER)) or 0,
        ifindex=0,
        cookie=cookie,
        uid=_number(told.get(_UID)) if inode else None,
        inode=inode,
        timer=0,
        retransmissions=0,
        expires_ms=0,
        attributes=_attributes(told),
    )


def _name(name: bytes) -> bytes:
    """Return a name without the zero byte that the kernel adds to paths; that of an abstract one comes first."""
    return name if name.startswith(b"\0") else name.rstrip(b"\0")


def _number(value: memoryview | None) -> int | None:
    if value is None or len(value) < _NUMBER.size:
        return None
    number: int = _NUMBER.unpack_from(value)[0]
    return number


def _attributes(told: dict[int, memoryview]) -> Attributes:
    if told.keys() <= {_NAME, _PEER, _QUEUES, _UID}:
        return NO_ATTRIBUTES
    memory, shutdown, file, pending = (told.get(kind) for kind in (_MEMORY, _SHUTDOWN, _FILE, _PENDING))
    return Attributes(
        memory=counters(memory) if memory else None,
        shutdown=shutdown[0] if shutdown else None,
        file=_PAIR.unpack_from(file) if file and len(file) >= _PAIR.size else None,
        pending=counters(pending) if pending else None,
    )
