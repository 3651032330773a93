"""SCTP's associations in inet_diag messages, in the terms of other connections (net/sctp/diag.c).

A socket is told once as an endpoint, and once more for each association that it has, with the same inode and cookie. An
association has numbers of its own for states and timers, and alone has the addresses of its other end as an attribute.
"""

from __future__ import annotations

import socket
import struct
from itertools import starmap
from typing import Any

from pktproc.inventory.rows import Attributes, Row
from pktproc.model import V4_MAPPED_PREFIX

# enum sctp_state (include/net/sctp/constants.h), the states of RFC 9260, section 4 -> the nearest of TCP.
_STATES = {
    0: 7,  # CLOSED
    1: 2,  # COOKIE-WAIT: SYN-SENT
    2: 2,  # COOKIE-ECHOED
    3: 1,  # ESTABLISHED
    4: 4,  # SHUTDOWN-PENDING: FIN-WAIT-1
    5: 5,  # SHUTDOWN-SENT: FIN-WAIT-2
    6: 8,  # SHUTDOWN-RECEIVED: CLOSE-WAIT
    7: 9,  # SHUTDOWN-ACK-SENT: LAST-ACK
}
_RETRANSMITS = 1
_STATE, _TIMER, _ATTRIBUTES = map(Row._fields.index, ("state", "timer", "attributes"))
_SOCKADDR_BYTES = 128  # struct sockaddr_storage
_FAMILY = struct.Struct("=H")


def addresses(value: memoryview) -> tuple[bytes, ...]:
    """Return the addresses in an attribute INET_DIAG_LOCALS or INET_DIAG_PEERS, those of IP."""
    found: list[bytes] = []
    for at in range(0, len(value) - _SOCKADDR_BYTES + 1, _SOCKADDR_BYTES):
        (family,) = _FAMILY.unpack_from(value, at)
        if family == socket.AF_INET:
            found.append(V4_MAPPED_PREFIX + bytes(value[at + 4 : at + 8]))
        elif family == socket.AF_INET6:
            found.append(bytes(value[at + 8 : at + 24]))
    return tuple(found)


def translated(fields: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return sockets field by field with the states and timers of associations as those of other connections."""

    def state(number: int, told: Attributes) -> int:
        return number if told.peers is None else _STATES.get(number, number)

    def timer(number: int, told: Attributes) -> int:
        return _RETRANSMITS if number and told.peers is not None else number

    columns = list(fields)
    for at, translate in ((_STATE, state), (_TIMER, timer)):
        columns[at] = list(starmap(translate, zip(columns[at], columns[_ATTRIBUTES], strict=True)))
    return tuple(columns)
