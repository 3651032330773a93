"""What can be asked of a store."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is looked for: sockets one of whose ends has this address, port, or both; those that a pid held.

    A port and a pid without an address are looked for apart: sockets with either are wanted.
    """

    address: bytes | None = None
    port: int | None = None
    pid: int | None = None
