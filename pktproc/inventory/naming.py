"""What the names and addresses of sockets mean."""

from __future__ import annotations

from pktproc.inventory.rows import Row
from pktproc.model import UNSPECIFIED, UNSPECIFIED_V4

_UNIVERSAL = frozenset({UNSPECIFIED, UNSPECIFIED_V4})


def unix_name(row: Row) -> str:
    """Return the name of a unix socket, abstract ones with `@` for the zero byte; empty for one without a name."""
    name = row.local.decode("utf-8", "surrogateescape")
    return f"@{name[1:]}" if name.startswith("\0") else name


def is_universal(address: bytes) -> bool:
    """Say whether an address stands for all."""
    return address in _UNIVERSAL
