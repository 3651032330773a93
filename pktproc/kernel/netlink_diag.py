"""AF_NETLINK sockets as rows (linux/netlink_diag.h)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from pktproc.inventory.rows import Attributes, Row
from pktproc.inventory.states import CLOSED
from pktproc.kernel import netlink
from pktproc.kernel.diag_dump import DumpSocket
from pktproc.kernel.inet_attributes import counters

_REQUEST = struct.Struct("=BBHIIII")  # family, protocol, pad, inode, show, cookie
_MESSAGE = struct.Struct("=BBBBIIIIQ")  # family, type, protocol, state, port id, peer's, its group, inode, cookie
_ALL_PROTOCOLS = 0xFF
_SHOW = 0x1 | 0x2 | 0x8  # memory, groups, flags
_MEMORY, _GROUPS = 0, 1
_RECEIVED, _SENT = 0, 2  # SK_MEMINFO_RMEM_ALLOC, SK_MEMINFO_WMEM_ALLOC
_ANY = 0xFFFFFFFF


def rows(diag: DumpSocket) -> Iterator[Row]:
    """Yield the netlink sockets of a namespace, those of the kernel included, which have port id 0."""
    body = _REQUEST.pack(socket.AF_NETLINK, _ALL_PROTOCOLS, 0, 0, _SHOW, _ANY, _ANY)
    for payload in diag.messages(body, "netlink sockets"):
        if len(payload) >= _MESSAGE.size:
            yield _row(payload, diag.netns)


def _row(payload: memoryview, netns: int) -> Row:
    _, _, protocol, _, port, _, _, inode, cookie = _MESSAGE.unpack_from(payload)
    told = dict(netlink.attributes(payload[_MESSAGE.size :]))
    memory = counters(told.get(_MEMORY, memoryview(b"")))
    groups = told.get(_GROUPS)
    return Row(
        netns=netns,
        kind="nl",
        family=socket.AF_NETLINK,
        state=CLOSED,
        receive_queue=memory[_RECEIVED] if memory else 0,
        send_queue=memory[_SENT] if memory else 0,
        local=b"",
        local_port=port,
        remote=b"",
        remote_port=protocol,
        ifindex=0,
        cookie=cookie,
        uid=None,
        inode=inode if port else 0,  # the kernel's own have one that no file leads to
        timer=0,
        retransmissions=0,
        expires_ms=0,
        attributes=Attributes(memory=memory or None, groups=int.from_bytes(groups, "little") if groups else None),
    )
