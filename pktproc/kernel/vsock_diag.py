"""AF_VSOCK sockets as rows (linux/vm_sockets_diag.h)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from pktproc.inventory.rows import VSOCK_KINDS, Attributes, Row
from pktproc.kernel.diag_dump import DumpSocket

_REQUEST = struct.Struct("=BBHIIIII")  # family, protocol, pad, states, inode, show, cookie
_MESSAGE = struct.Struct("=BBBB4sI4sIIQ")  # family, type, state, shutdown, local cid, port, remote cid, port, inode


def request(states: int) -> bytes:
    """Return the body of a request for the sockets in some states."""
    return _REQUEST.pack(socket.AF_VSOCK, 0, 0, states, 0, 0, 0, 0)


def rows(diag: DumpSocket, *, states: int) -> Iterator[Row]:
    """Yield the vsock sockets of a namespace."""
    for payload in diag.messages(request(states), "vsock sockets"):
        if len(payload) >= _MESSAGE.size:
            yield row(payload, diag.netns)


def row(payload: memoryview, netns: int) -> Row:
    """Return the socket that a vsock_diag message describes."""
    _, kind, state, shutdown, local, local_port, remote, remote_port, inode, cookie = _MESSAGE.unpack_from(payload)
    return Row(
        netns=netns,
        kind=VSOCK_KINDS.get(kind, f"v_{kind}"),
        family=socket.AF_VSOCK,
        state=state,
        receive_queue=0,
        send_queue=0,
        local=local,
        local_port=local_port,
        remote=remote,
        remote_port=remote_port,
        ifindex=0,
        cookie=cookie,
        uid=None,
        inode=inode,
        timer=0,
        retransmissions=0,
        expires_ms=0,
        attributes=Attributes(shutdown=shutdown),
    )
