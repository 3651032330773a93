"""The attributes of inet_diag messages (linux/inet_diag.h): what `ss -e -i -m` show."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from typing import Any

from pktproc.inventory.rows import Attributes
from pktproc.kernel import netlink
from pktproc.kernel.sctp_diag import addresses

_ULP_NAME = 1


def _byte(value: memoryview) -> int:
    return value[0]


def _number(value: memoryview) -> int:
    return int.from_bytes(value, sys.byteorder)


def _text(value: memoryview) -> str:
    return bytes(value).partition(b"\0")[0].decode("ascii", "backslashreplace")


def counters(value: memoryview) -> tuple[int, ...]:
    """Return the 32-bit counters of a SK_MEMINFO attribute, in their order."""
    return struct.unpack_from(f"={len(value) // 4}I", value)


def _upper_protocol(value: memoryview) -> str | None:
    name = dict(netlink.attributes(value)).get(_ULP_NAME)
    return None if name is None else _text(name)


# attribute (INET_DIAG_...) -> field, how it is read
_KNOWN: dict[int, tuple[str, Callable[[memoryview], Any]]] = {
    2: ("tcp_info", bytes),
    4: ("congestion", _text),
    5: ("tos", _byte),
    6: ("traffic_class", _byte),
    7: ("memory", counters),
    8: ("shutdown", _byte),
    10: ("protocol", _byte),
    11: ("v6_only", lambda value: bool(value[0])),
    12: ("locals", addresses),
    13: ("peers", addresses),
    15: ("mark", _number),
    19: ("upper_protocol", _upper_protocol),
    21: ("cgroup", _number),
    22: ("options", bytes),
}


def parse_attributes(data: bytes) -> Attributes:
    """Return what the attributes behind an inet_diag message tell; those that are not known are passed over."""
    found: dict[str, Any] = {}
    for kind, value in netlink.attributes(data):
        known = _KNOWN.get(kind)
        if known and value:
            found[known[0]] = known[1](value)
    return Attributes(**found)
