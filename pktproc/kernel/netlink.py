"""Netlink messages: bytes to messages and back, without a socket (netlink(7), linux/netlink.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")

NLM_F_REQUEST = 0x1
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_DUMP_INTR = 0x10

NLMSG_NOOP = 1
NLMSG_ERROR = 2
NLMSG_DONE = 3

_ATTRIBUTE_TYPE_MASK = 0x3FFF


class Message(NamedTuple):
    """One netlink message: `payload` is what follows the 16-byte header."""

    type: int
    flags: int
    sequence: int
    payload: memoryview


def align(length: int) -> int:
    """Return `length` rounded up to the 4 bytes that netlink aligns everything to."""
    return (length + 3) & ~3


def build(message_type: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """Return a message with its header."""
    return HEADER.pack(HEADER.size + len(payload), message_type, flags, sequence, 0) + payload


def messages(data: bytes | memoryview) -> Iterator[Message]:
    """Yield the messages of a datagram; a length that does not fit ends the walk."""
    view = memoryview(data)
    position = 0
    while position + HEADER.size <= len(view):
        length, message_type, flags, sequence, _ = HEADER.unpack_from(view, position)
        if length < HEADER.size or position + length > len(view):
            return
        yield Message(message_type, flags, sequence, view[position + HEADER.size : position + length])
        position += align(length)


def attributes(data: bytes | memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield (type, value) of the attributes in `data`, flag bits removed; a length that does not fit ends the walk."""
    view = memoryview(data)
    position = 0
    while position + ATTRIBUTE.size <= len(view):
        length, attribute_type = ATTRIBUTE.unpack_from(view, position)
        if length < ATTRIBUTE.size or position + length > len(view):
            return
        yield attribute_type & _ATTRIBUTE_TYPE_MASK, view[position + ATTRIBUTE.size : position + length]
        position += align(length)


def error_code(message: Message) -> int:
    """Return the errno (positive) that an NLMSG_ERROR or NLMSG_DONE message carries, 0 for success.

    A dump for which the kernel has no handler ends with NLMSG_DONE and a negative errno instead of NLMSG_ERROR.
    """
    if len(message.payload) < _ERROR.size:
        return 0
    code: int = _ERROR.unpack_from(message.payload)[0]
    return max(0, -code)
