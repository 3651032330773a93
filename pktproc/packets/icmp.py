"""ICMP and ICMPv6: types, echo ids, and where an error quotes the packet that caused it."""

from __future__ import annotations

import numpy as np

from pktproc.model import Protocol
from pktproc.packets.batch import Bytes, Column
from pktproc.packets.columns import Columns
from pktproc.packets.headers import ICMP, ICMP_ID, gather
from pktproc.packets.network import EVERY, Network, rows_with

NO_ICMP = -1
"""`icmp_type` and `icmp_code` of other protocols."""

ICMP_HEADER_BYTES = 8
"""Bytes of an error message before the packet that it quotes (RFC 792, RFC 4443 section 3)."""

_ICMP = frozenset({int(Protocol.ICMP), int(Protocol.ICMPV6)})
_ID_AT = 4
_REQUEST = 1
_REPLY = 2
_ERROR = 3
# Roles by type: the first row ICMP's (RFC 792), the second ICMPv6's (RFC 4443).
_ROLE = np.zeros((2, 256), np.uint8)
_ROLE[0, [8, 13]] = _REQUEST
_ROLE[0, [0, 14]] = _REPLY
_ROLE[0, [3, 4, 5, 11, 12]] = _ERROR
_ROLE[1, 128] = _REQUEST
_ROLE[1, 129] = _REPLY
_ROLE[1, [1, 2, 3, 4]] = _ERROR


def is_error(protocol: int, icmp_type: int) -> bool:
    """Tell whether an ICMP or ICMPv6 message of this type quotes the packet that caused it."""
    return icmp_type >= 0 and bool(_ROLE[int(protocol == Protocol.ICMPV6), icmp_type] == _ERROR)


def decode_icmp(data: Bytes, ip: Network, columns: Columns, present: frozenset[int]) -> Column:
    """Fill in the ICMP columns and, for echo and timestamp messages, the id as a port (see `pktproc.model.Flow`).

    `present` are the protocols that occur. Returns the int64 rows that are error messages.
    """
    selected = rows_with(_ICMP, ip.protocol, present)
    if selected is None:
        return np.zeros(0, np.int64)
    rows: Column = np.arange(len(ip.protocol)) if selected is EVERY else np.asarray(selected)
    position, end = columns.transport_offset[rows], ip.captured_end[rows]
    header, ok = gather(data, position, end, ICMP)
    columns.ports_known[rows] = ok
    rows, header, position, end = rows[ok], header[ok], position[ok], end[ok]
    columns.icmp_type[rows] = header["type"]
    columns.icmp_code[rows] = header["code"]
    role = _ROLE[(ip.protocol[rows] == Protocol.ICMPV6).astype(np.intp), header["type"]]
    _decode_ids(data, columns, rows, role, position=position + _ID_AT, end=end)
    errors: Column = rows[role == _ERROR]
    return errors


def _decode_ids(data: Bytes, columns: Columns, rows: Column, role: Column, *, position: Column, end: Column) -> None:
    for wanted, port in ((_REQUEST, columns.source_port), (_REPLY, columns.destination_port)):
        queries = np.flatnonzero(role == wanted)
        if len(queries):
            header, ok = gather(data, position[queries], end[queries], ICMP_ID)
            port[rows[queries]] = header["id"]
            columns.ports_known[rows[queries]] = ok
