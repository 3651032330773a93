"""Transport headers: ports, TCP flags, and where the payload starts."""

from __future__ import annotations

import numpy as np

from pktproc.model import Protocol
from pktproc.packets.batch import Bytes, Column
from pktproc.packets.columns import Columns
from pktproc.packets.headers import DCCP_OFFSET, PORTS, TCP_OFFSET_FLAGS, gather
from pktproc.packets.network import LATER_FRAGMENT, Network, Rows, rows_with

_TCP = frozenset({int(Protocol.TCP)})
_DCCP = frozenset({int(Protocol.DCCP)})
_WITH_PORTS = _TCP | _DCCP | {int(Protocol.UDP), int(Protocol.UDPLITE), int(Protocol.SCTP)}
# One entry more than there are protocols, so that NOT_IP (-1) finds the last, which has nothing.
_HEADER_BYTES = np.zeros(257, np.int64)
_HEADER_BYTES[[Protocol.UDP, Protocol.UDPLITE, Protocol.ICMP, Protocol.ICMPV6]] = 8
_HEADER_BYTES[[Protocol.SCTP, Protocol.DCCP]] = 12
_HEADER_BYTES[Protocol.TCP] = 20

_TCP_OFFSET_AT = 12
_DCCP_OFFSET_AT = 4


def locate_transport(ip: Network) -> Column:
    """Return the int64 position of each transport header, -1 where the packet does not show its first byte.

    What a later fragment carries is payload, so it has none.
    """
    reached = (ip.payload < ip.captured_end) & ~ip.chain_cut
    if ip.fragment.any():
        reached &= ip.fragment != LATER_FRAGMENT
    return ip.payload if reached.all() else np.where(reached, ip.payload, -1)


def decode_ports(data: Bytes, ip: Network, columns: Columns, present: frozenset[int]) -> None:
    """Fill in ports and whether they are known, TCP flags and `payload_bytes`.

    `columns` has its `transport_offset`; its other transport columns are blank, with `ports_known` True. `present` are
    the protocols that occur.
    """
    header_bytes = _header_bytes(ip.protocol, present)
    rows = rows_with(_WITH_PORTS, ip.protocol, present)
    if rows is not None:
        ports, ok = gather(data, columns.transport_offset[rows], ip.captured_end[rows], PORTS)
        columns.source_port[rows] = ports["source"]
        columns.destination_port[rows] = ports["destination"]
        columns.ports_known[rows] = ok
        _decode_tcp(data, ip, columns, rows_with(_TCP, ip.protocol, present), header_bytes)
        _decode_dccp(data, ip, columns, rows_with(_DCCP, ip.protocol, present), header_bytes)
    if ip.fragment.any():
        header_bytes[ip.fragment == LATER_FRAGMENT] = 0
    np.maximum(ip.payload_bytes - header_bytes, 0, out=columns.payload_bytes)


def _header_bytes(protocol: Column, present: frozenset[int]) -> Column:
    """Return the int64 least size of each transport header."""
    if len(present) == 1:
        (only,) = present
        return np.full(len(protocol), _HEADER_BYTES[only])
    return _HEADER_BYTES[protocol]


def _decode_tcp(data: Bytes, ip: Network, columns: Columns, rows: Rows | None, header_bytes: Column) -> None:
    if rows is None:
        return
    position = _beyond(columns.transport_offset[rows], _TCP_OFFSET_AT)
    header, _ = gather(data, position, ip.captured_end[rows], TCP_OFFSET_FLAGS)
    columns.tcp_flags[rows] = header["flags"]
    # The upper nibble counts 32-bit words; less than 5 is a broken or cut header.
    header_bytes[rows] = np.maximum((header["offset"] >> 4).astype(np.int64) * 4, 20)


def _decode_dccp(data: Bytes, ip: Network, columns: Columns, rows: Rows | None, header_bytes: Column) -> None:
    if rows is None:
        return
    position = _beyond(columns.transport_offset[rows], _DCCP_OFFSET_AT)
    header, _ = gather(data, position, ip.captured_end[rows], DCCP_OFFSET)
    header_bytes[rows] = np.maximum(header["offset"].astype(np.int64) * 4, 12)


def _beyond(position: Column, distance: int) -> Column:
    """Return positions moved on, except that nowhere (-1) stays nowhere."""
    return np.where(position < 0, -1, position + distance)
