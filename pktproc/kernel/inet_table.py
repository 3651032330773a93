"""TCP, UDP and their kin as rows, by the inet_diag messages of sock_diag(7) (linux/inet_diag.h).

A host can have tens of thousands of these, so messages are taken apart column by column, a datagram at a time.
"""

from __future__ import annotations

import socket
import struct
import sys
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

from pktproc.errors import Unsupported
from pktproc.inventory.rows import AF_INET, NO_ATTRIBUTES, Attributes, Row, make_row
from pktproc.kernel import netlink, sctp_diag
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
# Where the members of struct inet_diag_msg lie in a netlink message, which begins with a header of 16 bytes.
_FAMILY, _STATE, _TIMER, _RETRANSMISSIONS, _LOCAL_PORT, _REMOTE_PORT, _LOCAL, _REMOTE = 16, 17, 18, 19, 20, 22, 24, 40
_INTERFACE, _COOKIE, _EXPIRES, _RECEIVING, _SENDING, _UID, _INODE, _ATTRIBUTES = 56, 60, 68, 72, 76, 80, 84, 88


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
    blocks = Blocks(diag.netns, kind, attributes=False)
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

    Without `attributes` these, timers and users of IPv4 sockets are left out. Raise `Unsupported` if the kernel does
    not list them so.
    """
    blocks = Blocks(diag.netns, kind, attributes=attributes)
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
    whole = bytearray()
    for datagram in datagrams:
        whole += datagram
    return memoryview(whole)


def _wire_address(family: int, address: bytes) -> bytes:
    return address[12:] + bytes(12) if family == AF_INET else address


class _Addresses(dict[int, bytes]):
    """IPv4 addresses as they stand in messages, as a word of this machine -> the 16 bytes of the house."""

    def __missing__(self, key: int) -> bytes:
        address = self[key] = V4_MAPPED_PREFIX + key.to_bytes(4, sys.byteorder)
        return address


class _Attributes(dict[bytes, Attributes]):
    """Attributes by their bytes, which are the same for most sockets."""

    def __missing__(self, key: bytes) -> Attributes:
        found = self[key] = parse_attributes(key)
        return found


class _Run:
    """Messages of one length in a row: each member is a column, which lies there at equal distances."""

    def __init__(self, view: memoryview, length: int) -> None:
        self.count = len(view) // length
        self._view = view
        self._length = length
        self._words = view.cast("I")

    def octets(self, at: int) -> bytes:
        """Return the bytes at an offset."""
        return bytes(self._view[at :: self._length])

    def ports(self, at: int) -> array[int]:
        """Return the ports at an offset, which are in the order of the network."""
        ports = array("H", self._view.cast("H")[at // 2 :: self._length // 2].tobytes())
        if sys.byteorder == "little":
            ports.byteswap()
        return ports

    def words(self, at: int) -> list[int]:
        """Return the 32-bit numbers at an offset."""
        return self._words[at // 4 :: self._length // 4].tolist()

    def long_words(self, at: int) -> list[int]:
        """Return the 64-bit numbers at an offset, which is a multiple of 4 alone."""
        first, second = self.words(at), self.words(at + 4)
        low, high = (first, second) if sys.byteorder == "little" else (second, first)
        return [upper << 32 | lower for lower, upper in zip(low, high, strict=True)] if any(high) else low

    def texts(self, at: int, size: int) -> list[bytes]:
        """Return `size` bytes at an offset of each message."""
        layout = struct.Struct(f"{at}x{size}s{self._length - at - size}x")
        return [text for (text,) in layout.iter_unpack(self._view)]


class Blocks:
    """Take the answers to a request for the sockets of one kind apart, field by field; `netns` is where they are."""

    def __init__(self, netns: int, kind: str, *, attributes: bool = True) -> None:
        self._netns = netns
        self._kind = kind
        self._wants_attributes = attributes
        self._v4 = _Addresses()
        self._attributes = _Attributes()

    def of(self, view: memoryview) -> Iterator[Fields]:
        """Yield the sockets in netlink messages; those whose messages have the same length are one block."""
        while len(view) >= netlink.HEADER.size:
            length, kind, _, _, _ = netlink.HEADER.unpack_from(view)
            if not netlink.HEADER.size <= length <= len(view):
                return
            taken = netlink.align(length)
            if kind in _SOCKETS and length == taken and length >= _ATTRIBUTES:
                taken = _alike(view, length) * length
                found = self._fields(_Run(view[:taken], length), length)
                yield sctp_diag.translated(found) if self._kind == "sctp" else found
            view = view[taken:]

    def _fields(self, run: _Run, length: int) -> Fields:
        count = run.count
        families = run.octets(_FAMILY)
        all_v4 = families.count(AF_INET) == count
        bare = all_v4 and not self._wants_attributes and self._kind != "sctp"
        zeros = (0,) * count
        inodes = run.words(_INODE)
        # With inode 0 the kernel reports uid 0 for "unknown" as for root.
        uids = (None,) * count if bare else _known(run.words(_UID), inodes)
        return (
            (self._netns,) * count,
            (self._kind,) * count,
            families,
            run.octets(_STATE),
            run.words(_RECEIVING),
            run.words(_SENDING),
            self._addresses(run, families, _LOCAL, all_v4=all_v4),
            run.ports(_LOCAL_PORT),
            self._addresses(run, families, _REMOTE, all_v4=all_v4),
            run.ports(_REMOTE_PORT),
            run.words(_INTERFACE),
            run.long_words(_COOKIE),
            uids,
            inodes,
            zeros if bare else run.octets(_TIMER),
            zeros if bare else run.octets(_RETRANSMISSIONS),
            zeros if bare else run.words(_EXPIRES),
            (NO_ATTRIBUTES,) * count if bare else self._told(run, length),
        )

    def _told(self, run: _Run, length: int) -> list[Attributes]:
        return list(map(self._attributes.__getitem__, run.texts(_ATTRIBUTES, length - _ATTRIBUTES)))

    def _addresses(self, run: _Run, families: bytes, at: int, *, all_v4: bool) -> list[bytes]:
        v4 = map(self._v4.__getitem__, run.words(at))
        if all_v4:
            return list(v4)
        texts = run.texts(at, 16)
        return [mapped if family == AF_INET else text for family, mapped, text in zip(families, v4, texts, strict=True)]


def _alike(view: memoryview, length: int) -> int:
    """Return how many messages from the first on have the length of the first and are of its type."""
    words = view[: len(view) // length * length].cast("I")
    step = length // 4
    lengths, types = words[::step].tolist(), words[1::step].tolist()
    if lengths.count(lengths[0]) == len(lengths) and types.count(types[0]) == len(types):
        return len(lengths)
    heads = zip(lengths, types, strict=True)
    first = lengths[0], types[0]
    return next(index for index, head in enumerate(heads) if head != first)


def _known(uids: list[int], inodes: list[int]) -> list[int | None]:
    return [uid if inode else None for uid, inode in zip(uids, inodes, strict=True)]
