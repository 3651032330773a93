"""Sockets that take what comes to a port together with others (SO_REUSEPORT, and datagrams with SO_REUSEADDR)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from pktproc.inventory.rows import INET, Key, Row


def sharing(rows: Iterable[Row]) -> dict[Key, int]:
    """Return how many sockets share a port, for each that does: same namespace, kind, address, port and interface."""
    groups: dict[tuple[int, str, int, bytes, int, int], list[Row]] = defaultdict(list)
    for row in [row for row in rows if row[7] and not row[9] and row[2] in INET and row[1] != "raw"]:
        groups[row[0], row[1], row[2], row[6], row[7], row[10]].append(row)
    return {row.key: len(group) for group in groups.values() if len(group) > 1 for row in group}
