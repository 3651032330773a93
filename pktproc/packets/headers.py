"""Header layouts, and the one way to read them out of a block's buffer.

Layouts are packed big-endian structured dtypes. Addresses are left in network order as native 32-bit words: they are
moved, never computed with.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from pktproc.packets.batch import Bytes, Column

Layout = np.dtype[Any]

VERSION = np.dtype([("version_ihl", "u1")])
"""First byte of every IP header: the version in its upper nibble."""

ADDRESS_FAMILY = np.dtype([("family", ">u4")])
"""LINKTYPE_NULL and LINKTYPE_LOOP (tcpdump.org/linktypes.html)."""

ETHERNET = np.dtype([("destination", "V6"), ("source", "V6"), ("ethertype", ">u2")])
"""IEEE 802.3 section 3.1.1."""

VLAN_TAG = np.dtype([("tci", ">u2"), ("ethertype", ">u2")])
"""What follows the tag protocol identifier of a VLAN tag (IEEE 802.1Q section 9.6), up to the next ethertype."""

SNAP = np.dtype([("llc", "u1", (3,)), ("oui", "u1", (3,)), ("ethertype", ">u2")])
"""LLC with a SNAP header (IEEE 802 section 9.2, RFC 1042)."""

SLL = np.dtype([("type", ">u2"), ("arphrd", ">u2"), ("length", ">u2"), ("address", "V8"), ("protocol", ">u2")])
"""LINKTYPE_LINUX_SLL."""

SLL2 = np.dtype(
    [
        ("protocol", ">u2"),
        ("reserved", ">u2"),
        ("ifindex", ">u4"),
        ("arphrd", ">u2"),
        ("type", "u1"),
        ("length", "u1"),
        ("address", "V8"),
    ]
)
"""LINKTYPE_LINUX_SLL2."""

IPV4 = np.dtype(
    [
        ("version_ihl", "u1"),
        ("tos", "u1"),
        ("total_length", ">u2"),
        ("identification", ">u2"),
        ("fragment", ">u2"),
        ("ttl", "u1"),
        ("protocol", "u1"),
        ("checksum", ">u2"),
        ("source", "u4"),
        ("destination", "u4"),
    ]
)
"""RFC 791 section 3.1, without options."""

IPV6 = np.dtype(
    [
        ("version_ihl", "u1"),
        ("flow_label", "V3"),
        ("payload_length", ">u2"),
        ("next_header", "u1"),
        ("hop_limit", "u1"),
        ("source", "u4", (4,)),
        ("destination", "u4", (4,)),
    ]
)
"""RFC 8200 section 3."""

EXTENSION = np.dtype([("next_header", "u1"), ("length", "u1"), ("fragment", ">u2"), ("identification", ">u4")])
"""First 8 bytes of an IPv6 extension header (RFC 8200 section 4, RFC 6564); the last two fields are a fragment's."""

PORTS = np.dtype([("source", ">u2"), ("destination", ">u2")])
"""First 4 bytes of TCP, UDP, UDP-Lite, SCTP and DCCP."""

TCP_SEQUENCE = np.dtype([("sequence", ">u4")])
"""Bytes 4 to 7 of a TCP header (RFC 9293 section 3.1)."""

TCP_OFFSET_FLAGS = np.dtype([("offset", "u1"), ("flags", "u1")])
"""Bytes 12 and 13 of a TCP header (RFC 9293 section 3.1)."""

TCP_SYN, TCP_RST, TCP_ACK = 0x02, 0x04, 0x10
"""Bits of `flags`."""

DCCP_OFFSET = np.dtype([("offset", "u1")])
"""Byte 4 of a DCCP header: its length in 32-bit words (RFC 4340 section 5.1)."""

ICMP = np.dtype([("type", "u1"), ("code", "u1")])
"""First 2 bytes of ICMP and ICMPv6 (RFC 792, RFC 4443)."""

ICMP_ID = np.dtype([("id", ">u2")])
"""Bytes 4 and 5 of an ICMP query message."""


@cache
def _opaque(size: int) -> Layout:
    return np.dtype((np.void, size))


def gather(data: Bytes, position: Column, end: Column, layout: Layout) -> tuple[Column, Column]:
    """Read one header for each position of a buffer.

    `data` is a contiguous uint8 buffer, `position` and `end` are int64: where the header starts and where its packet
    ends. Returns the headers, dtype `layout`, and a bool column `ok`, False where the header would begin outside the
    buffer or pass `end` or the buffer's end; such a header is all zero bytes. Nothing is raised, whatever the values.
    """
    size = layout.itemsize
    room = len(data) - size
    if room < 0:
        return np.zeros(len(position), layout), np.zeros(len(position), bool)
    # A negative position is a huge unsigned one, so a single comparison keeps the read inside the buffer.
    ok = (position.view(np.uint64) <= room) & (position + size <= end)
    # Items that overlap, one at each byte of the buffer: taking some of them is a single indexing operation.
    opaque = _opaque(size)
    window: Column = np.ndarray(shape=(room + 1,), dtype=opaque, buffer=data, strides=(1,))
    if ok.all():
        return window[position].view(layout), ok
    headers = np.zeros(len(position), opaque)
    whole = np.flatnonzero(ok)
    headers[whole] = window[position[whole]]
    return headers.view(layout), ok
