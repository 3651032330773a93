"""TCP, UDP and their kin as rows, by the inet_diag messages of sock_diag(7) (linux/inet_diag.h).

A host can have tens of thousands of these, so messages are taken apart column by column, a datagram at a time.
"""

from __future__ import annotations

import socket
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from pktproc.errors import Unsupported
from pktproc.inventory.rows import AF_INET, NO_ATTRIBUTES, Attributes, Row, make_row
from pktproc.kernel import netlink
from pktproc.kernel.diag_dump import SOCK_DIAG_BY_FAMILY, DumpSocket
from pktproc.kernel.inet_attributes import parse_attributes
from pktproc.model import V4_MAPPED_PREFIX

IPPROTO_MPTCP = 262
PROTOCOLS = {"tcp": 6, "udp": 17, "udplite": 136, "sctp": 132, "dccp": 33, "mptcp": IPPROTO_MPTCP, "raw": 255}
"""The kinds that inet_diag lists, with the numbers that it knows them by."""

Fields = tuple[Sequence[Any], ...]
_COOKIES = Row._fields.index("cookie")

_TCPDIAG_GETSOCK = 18
_SOCKETS = frozenset({SOCK_DIAG_BY_FAMILY, _TCPDIAG_GETSOCK})  # an answer has the type of its request
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_INET_DIAG_REQ_BYTECODE, _INET_DIAG_REQ_PROTOCOL = 1, 3
# What is asked for beside the rows: bit N-1 for attribute N of the enumeration (INET_DIAG_INFO is 2 and so on).
MEMORY = 1 << 6
INFO = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5
SHUTDOWN = 1 << 7

# struct inet_diag_req_v2 up to the sockid, and the latter without ports and addresses asked for.
_REQUEST_HEAD = struct.Struct("=BBBBI")
_ANY_SOCKET = bytes(40) + b"\xff" * 8
_STATES = struct.Struct("=II")
_ATTRIBUTE = struct.Struct("=HHI")
_BYTECODE = struct.Struct("=HHBBH")
# A program of one struct inet_diag_bc_op: to accept, go on behind it; to refuse, farther than its end.
_INET_DIAG_BC_AUTO, _ACCEPT, _REFUSE = 6, 4, 8
_SOCKET = struct.Struct("!HH16s16s")
_INTERFACE_COOKIE = struct.Struct("=IQ")
# struct inet_diag_msg with ports as two bytes each, then as many bytes of attributes as there are.
_MESSAGE = "BBBB2s2s16s16sIQIIIII"
_MESSAGE_BYTES = struct.calcsize("=" + _MESSAGE)


def request(kind: str, family: int, *, states: int, extensions: int = 0) -> bytes:
    """Return the body of a request for the sockets of one kind and family."""
    protocol = PROTOCOLS[kind]
    head = _REQUEST_HEAD.pack(family, min(protocol, 255), extensions, 0, states) + _ANY_SOCKET
    if protocol <= 255:
        return head
    return head + _ATTRIBUTE.pack(_ATTRIBUTE.size, _INET_DIAG_REQ_PROTOCOL, protocol)


def autobound(diag: DumpSocket, kind: str, *, states: int) -> set[int]:
    """Return the cookies of the sockets that nobody asked a port for, so that the kernel chose it (INET_DIAG_BC_AUTO).

    Those that a listener made when a connection came in are among them, though their port is the listener's. Raise
    `Unsupported` as `rows` does.
    """
    wanted = _BYTECODE.pack(_BYTECODE.size, _INET_DIAG_REQ_BYTECODE, _INET_DIAG_BC_AUTO, _ACCEPT, _REFUSE)
    found: set[int] = set()
    blocks = _Blocks(diag.netns, kind, attributes=False)
    for family in _FAMILIES:
        for block in blocks.of(_together(diag.datagrams(request(kind, family, states=states) + wanted, kind))):
            found.update(block[_COOKIES])
    return found


def destroy_request(row: Row) -> bytes:
    """Return the body of a request to close the socket of a row, which is told by its cookie as well as by its ends."""
    family = row.family
    ends = (_wire_address(family, row.local), _wire_address(family, row.remote))
    sockid = _SOCKET.pack(row.local_port, row.remote_port, *ends) + _INTERFACE_COOKIE.pack(row.ifindex, row.cookie)
    return _REQUEST_HEAD.pack(family, PROTOCOLS[row.kind], 0, 0, 0xFFFFFFFF) + sockid


def rows(diag: DumpSocket, kind: str, *, states: int, extensions: int = 0) -> Iterator[Row]:
    """Yield the sockets of one kind and both families.

    Raise `Unsupported` if the kernel does not list them this way.
    """
    for block in fields(diag, kind, states=states, extensions=extensions):
        yield from map(make_row, zip(*block, strict=True))


def fields(
    diag: DumpSocket, kind: str, *, states: int, extensions: int = 0, attributes: bool = True
) -> Iterator[Fields]:
    """Yield the sockets of one kind field by field, in blocks: each has all first fields, all second ones, and so on.

    Without `attributes` those of IPv4 sockets are left out. Raise `Unsupported` if the kernel does not list them so.
    """
    blocks = _Blocks(diag.netns, kind, attributes=attributes)
    if kind == "tcp":
        # The older form of the request takes both families in one walk through the host's table, which costs a
        # millisecond for each 100,000 of its buckets.
        body = bytes([0, 0, 0, extensions]) + _ANY_SOCKET + _STATES.pack(states, 0)
        yield from blocks.of(_together(diag.datagrams(body, kind, kind=_TCPDIAG_GETSOCK)))
        return
    for family in _FAMILIES:
        try:
            body = request(kind, family, states=states, extensions=extensions)
            yield from blocks.of(_together(diag.datagrams(body, kind)))
        except Unsupported:
            if family == socket.AF_INET:
                raise


def _together(datagrams: Iterator[memoryview]) -> memoryview:
    """Return the messages of many datagrams in one: the more are taken apart at once, the less each costs."""
    return memoryview(b"".join(map(bytes, datagrams)))  # copies, since each lies in the place of the one before


def _wire_address(family: int, address: bytes) -> bytes:
    return address[12:] + bytes(12) if family == AF_INET else address


@cache
def _layout(length: int, rest: str) -> struct.Struct:
    """Return the layout of a netlink message of `length` bytes that is an inet_diag message.

    `rest` is `s` for attributes behind it, `x` to pass over them.
    """
    return struct.Struct(f"=16x{_MESSAGE}{length - netlink.HEADER.size - _MESSAGE_BYTES}{rest}")


class _Addresses(dict[bytes, bytes]):
    """IPv4 addresses as they stand in messages -> the 16 bytes of the house."""

    def __missing__(self, key: bytes) -> bytes:
        address = self[key] = V4_MAPPED_PREFIX + key[:4]
        return address


class _Attributes(dict[bytes, Attributes]):
    """Attributes by their bytes, which are the same for most sockets."""

    def __missing__(self, key: bytes) -> Attributes:
        found = self[key] = parse_attributes(key)
        return found


class _Blocks:
    """Take the datagrams of one dump apart, field by field."""

    def __init__(self, netns: int, kind: str, *, attributes: bool) -> None:
        self._netns = netns
        self._kind = kind
        self._wants_attributes = attributes
        self._v4 = _Addresses()
        self._attributes = _Attributes()

    def of(self, view: memoryview) -> Iterator[Fields]:
        """Yield the sockets of a datagram; those whose messages have the same length are one block."""
        while len(view) >= netlink.HEADER.size:
            length, kind, _, _, _ = netlink.HEADER.unpack_from(view)
            if not netlink.HEADER.size <= length <= len(view):
                return
            taken = netlink.align(length)
            if kind in _SOCKETS and length == taken and length >= netlink.HEADER.size + _MESSAGE_BYTES:
                taken = _run(view, length) * length
                run = view[:taken]
                families = bytes(run[netlink.HEADER.size :: length])
                all_v4 = families.count(AF_INET) == len(families)
                yield self._fields(run, length, all_v4=all_v4)
            view = view[taken:]

    def _fields(self, run: memoryview, length: int, *, all_v4: bool) -> Fields:
        bare = all_v4 and not self._wants_attributes
        columns = list(zip(*_layout(length, "x" if bare else "s").iter_unpack(run), strict=True))
        families, states, timers, retransmissions, local_ports, remote_ports = columns[:6]
        local, remote = (self._texts(families, column, all_v4=all_v4) for column in columns[6:8])
        ifindexes, cookies, expires, receiving, sending, uids, inodes = columns[8:15]
        count = len(families)
        attributes = [NO_ATTRIBUTES] * count if bare else list(map(self._attributes.__getitem__, columns[15]))
        return (
            (self._netns,) * count,
            (self._kind,) * count,
            families,
            states,
            receiving,
            sending,
            list(local),
            _ports(local_ports),
            list(remote),
            _ports(remote_ports),
            ifindexes,
            cookies,
            # With inode 0 the kernel reports uid 0 for "unknown" as for root.
            [uid if inode else None for uid, inode in zip(uids, inodes, strict=True)],
            inodes,
            timers,
            retransmissions,
            expires,
            attributes,
        )

    def _texts(self, families: tuple[int, ...], addresses: tuple[bytes, ...], *, all_v4: bool) -> Iterator[bytes]:
        if all_v4:
            return map(self._v4.__getitem__, addresses)
        pairs = zip(families, addresses, strict=True)
        return (self._v4[address] if family == AF_INET else address for family, address in pairs)


def _run(view: memoryview, length: int) -> int:
    """Return how many messages from the first on have the length of the first and are of its type."""
    words = view[: len(view) // length * length].cast("I")
    step = length // 4
    heads = zip(words[::step].tolist(), words[1::step].tolist(), strict=True)
    first = words[0], words[1]
    return next((index for index, head in enumerate(heads) if head != first), len(words) // step)


def _ports(column: tuple[bytes, ...]) -> array[int]:
    ports = array("H", b"".join(column))
    if sys.byteorder == "little":
        ports.byteswap()
    return ports
