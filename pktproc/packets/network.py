"""IP headers: addresses, the protocol above, fragments, and where the transport header starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pktproc.packets.batch import Bytes, Column
from pktproc.packets.headers import EXTENSION, IPV4, IPV6, gather
from pktproc.packets.linktypes import ETHERTYPE_IPV4, ETHERTYPE_IPV6

NOT_IP = -1
"""`protocol` of a packet that is not IP."""

WHOLE = 0
FIRST_FRAGMENT = 1
LATER_FRAGMENT = 2

MAX_EXTENSION_HEADERS = 16
"""IPv6 extension headers that are followed; RFC 8200 section 4.1 makes use of seven."""

_FRAGMENT = 44
_AUTHENTICATION = 51
_IS_EXTENSION = np.zeros(256, bool)
_IS_EXTENSION[[0, 43, _FRAGMENT, _AUTHENTICATION, 60, 135, 139, 140]] = True  # RFC 7045 section 4, without ESP

_V4_MAPPED = np.frombuffer(b"\x00\x00\xff\xff", np.uint32)[0]
_V4_MORE_FRAGMENTS = 0x2000
_V4_FRAGMENT_OFFSET = 0x1FFF
_V6_MORE_FRAGMENTS = 0x0001
_V6_FRAGMENT_OFFSET = 0xFFF8

# Header lengths of IPv4 by the first byte (RFC 791 section 3.1); other versions and lengths below 20 exceed any packet.
_IPV4_HEADER_BYTES = np.full(256, 1 << 62, np.int64)
_IPV4_HEADER_BYTES[0x45:0x50] = np.arange(5, 16) * 4

Rows = Column | slice
EVERY = slice(None)


@dataclass(frozen=True, slots=True)
class Network:
    """Hold the IP headers of a block; every column has one entry for each packet.

    - `network`, `protocol`, `fragment`: as in `Columns`.
    - `source`, `destination` uint32, (n, 4): 16-byte addresses as words in network order.
    - `identification` int64: names the datagram of a fragment; undefined for whole datagrams.
    - `chain_cut` bool: `protocol` is an IPv6 extension header, because what follows it is not in this packet.
    - `payload` int64: position after all IP headers, -1 for packets that are not IP.
    - `captured_end` int64: where the captured bytes of the datagram end, link padding excluded; -1 likewise.
    - `payload_bytes` int64: length after all IP headers by the IP header's own length; 0 likewise.
    """

    network: Column
    protocol: Column
    source: Column
    destination: Column
    fragment: Column
    identification: Column
    chain_cut: Column
    payload: Column
    captured_end: Column
    payload_bytes: Column

    @classmethod
    def blank(cls, count: int) -> Network:
        """Return the columns of `count` packets that are not IP."""
        return cls(
            network=np.zeros(count, np.uint8),
            protocol=np.full(count, NOT_IP, np.int16),
            source=np.zeros((count, 4), np.uint32),
            destination=np.zeros((count, 4), np.uint32),
            fragment=np.zeros(count, np.uint8),
            identification=np.zeros(count, np.int64),
            chain_cut=np.zeros(count, bool),
            payload=np.full(count, -1, np.int64),
            captured_end=np.full(count, -1, np.int64),
            payload_bytes=np.zeros(count, np.int64),
        )


def protocols_in(protocol: Column) -> frozenset[int]:
    """Return the distinct values of a column of protocol numbers (int16, `NOT_IP` to 255)."""
    if not len(protocol):
        return frozenset()
    lowest = int(protocol.min())
    if lowest == protocol.max():
        return frozenset({lowest})
    occurrences = np.bincount(protocol - np.int16(NOT_IP))
    return frozenset((np.flatnonzero(occurrences) + NOT_IP).tolist())


def rows_with(wanted: frozenset[int], protocol: Column, present: frozenset[int]) -> Rows | None:
    """Return an index, as `select` does, of the rows whose protocol is wanted; `present` are those that occur."""
    if wanted.isdisjoint(present):
        return None
    if wanted >= present:
        return EVERY
    chosen = np.zeros(len(protocol), bool)
    for number in present:
        if number in wanted:
            chosen |= protocol == number
    return select(chosen)


def select(mask: Column) -> Rows | None:
    """Return an index of the rows where `mask` holds: a slice for all of them (much cheaper), None for no row."""
    count = np.count_nonzero(mask)
    if count == 0:
        return None
    return EVERY if count == len(mask) else np.flatnonzero(mask)


def decode_network(data: Bytes, position: Column, end: Column, wire_end: Column, ethertype: Column) -> Network:
    """Decode the IP headers of every packet.

    `position`, `end` and `wire_end` are int64: where the header starts in `data` (negative for nowhere), where the
    captured bytes end, and where the frame would end had all of it been captured. Packets whose ethertype is not IP or
    whose IP header is cut or broken keep the values of `Network.blank`.
    """
    ip = Network.blank(len(position))
    v4 = select(ethertype == ETHERTYPE_IPV4)
    if v4 is not None:
        _decode_ipv4(data, ip, v4, position[v4], end=end[v4], wire_end=wire_end[v4])
    if v4 is not EVERY:
        v6 = select(ethertype == ETHERTYPE_IPV6)
        if v6 is not None:
            _decode_ipv6(data, ip, v6, position[v6], end=end[v6], wire_end=wire_end[v6])
    return ip


def _narrow(rows: Rows, ok: Column) -> Column:
    return np.flatnonzero(ok) if isinstance(rows, slice) else rows[ok]


def _decode_ipv4(data: Bytes, ip: Network, rows: Rows, start: Column, *, end: Column, wire_end: Column) -> None:
    header, ok = gather(data, start, end, IPV4)
    header_bytes = _IPV4_HEADER_BYTES[header["version_ihl"]]
    payload = start + header_bytes
    datagram_end = _ipv4_end(start, header["total_length"], wire_end)
    ok &= (payload <= end) & (payload <= datagram_end)
    if not ok.all():
        rows = _narrow(rows, ok)
        header, payload, end, datagram_end = header[ok], payload[ok], end[ok], datagram_end[ok]
    ip.network[rows] = 4
    ip.protocol[rows] = header["protocol"]
    ip.source[rows, 2] = _V4_MAPPED
    ip.source[rows, 3] = header["source"]
    ip.destination[rows, 2] = _V4_MAPPED
    ip.destination[rows, 3] = header["destination"]
    ip.payload[rows] = payload
    ip.captured_end[rows] = np.minimum(end, datagram_end)
    ip.payload_bytes[rows] = datagram_end - payload
    fragment = header["fragment"] & (_V4_FRAGMENT_OFFSET | _V4_MORE_FRAGMENTS)
    if fragment.any():
        later = (fragment & _V4_FRAGMENT_OFFSET) != 0
        ip.fragment[rows] = np.where(later, LATER_FRAGMENT, np.where(fragment != 0, FIRST_FRAGMENT, WHOLE))
        ip.identification[rows] = header["identification"]


def _ipv4_end(start: Column, total_bytes: Column, wire_end: Column) -> Column:
    """Return where datagrams end; offloaded segmentation leaves the length 0, which means the rest of the frame."""
    end = start + total_bytes
    offloaded = end == start
    return np.where(offloaded, wire_end, end) if offloaded.any() else end


def _decode_ipv6(data: Bytes, ip: Network, rows: Rows, start: Column, *, end: Column, wire_end: Column) -> None:
    header, ok = gather(data, start, end, IPV6)
    ok &= header["version_ihl"] >> 4 == 6
    if not ok.all():
        rows = _narrow(rows, ok)
        header, start, end, wire_end = header[ok], start[ok], end[ok], wire_end[ok]
    payload = start + IPV6.itemsize
    length = header["payload_length"].astype(np.int64)
    # Length 0: segmentation offload or a jumbogram (RFC 2675); the datagram is the rest of the frame.
    datagram_end = np.where(length == 0, wire_end, payload + length)
    captured_end = np.minimum(end, datagram_end)
    ip.network[rows] = 6
    ip.protocol[rows] = header["next_header"]
    ip.source[rows] = header["source"]
    ip.destination[rows] = header["destination"]
    ip.payload[rows] = payload
    ip.captured_end[rows] = captured_end
    ip.payload_bytes[rows] = datagram_end - payload
    extended = _IS_EXTENSION[header["next_header"]]
    if extended.any():
        _skip_extensions(data, ip, _narrow(rows, extended))


def _skip_extensions(data: Bytes, ip: Network, rows: Column) -> None:
    """Move `protocol` and `payload` of the given rows past the IPv6 extension headers."""
    pending = rows
    for _ in range(MAX_EXTENSION_HEADERS):
        header, ok = gather(data, ip.payload[pending], ip.captured_end[pending], EXTENSION)
        pending, header = pending[ok], header[ok]
        kind = ip.protocol[pending]
        size = _extension_bytes(kind, header["length"].astype(np.int64))
        ip.payload[pending] += size
        ip.payload_bytes[pending] -= size
        ip.protocol[pending] = header["next_header"]
        later = _note_fragments(ip, pending, kind == _FRAGMENT, header)
        pending = pending[_IS_EXTENSION[header["next_header"]] & ~later]
        if not len(pending):
            break
    ip.chain_cut[rows] = _IS_EXTENSION[ip.protocol[rows]]


def _extension_bytes(kind: Column, length: Column) -> Column:
    """Return the size of extension headers: RFC 4302 section 2.2 counts words, RFC 8200 section 4.5 nothing."""
    size = (length + 1) * 8
    size[kind == _AUTHENTICATION] = (length[kind == _AUTHENTICATION] + 2) * 4
    size[kind == _FRAGMENT] = EXTENSION.itemsize
    return size


def _note_fragments(ip: Network, rows: Column, is_fragment: Column, header: Column) -> Column:
    """Write down what fragment headers say; return a bool column of the packets that are later fragments.

    A fragment header with offset 0 and no more fragments to come is an atomic fragment: a whole datagram (RFC 6946).
    """
    later: Column = is_fragment & ((header["fragment"] & _V6_FRAGMENT_OFFSET) != 0)
    first = is_fragment & ((header["fragment"] & (_V6_FRAGMENT_OFFSET | _V6_MORE_FRAGMENTS)) == _V6_MORE_FRAGMENTS)
    ip.fragment[rows[first]] = FIRST_FRAGMENT
    ip.fragment[rows[later]] = LATER_FRAGMENT
    fragments = first | later
    ip.identification[rows[fragments]] = header["identification"][fragments]
    return later
