"""Conditions that sockets are selected by: a tree that is asked about each entry of a listing."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Protocol, TypeVar

from pktproc.inventory.naming import unix_name
from pktproc.inventory.rows import AF_UNIX, AF_VSOCK, INET, Entry

Value = TypeVar("Value")

COMPARISONS: Mapping[str, Callable[[int, int], bool]] = MappingProxyType(
    {"=": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}
)


class End(Enum):
    """Which end of a socket a condition is about."""

    LOCAL = "local"
    REMOTE = "remote"
    EITHER = "either"


class Condition(Protocol):
    """Something that a socket fits or not."""

    @property
    def needs_peers(self) -> bool:
        """Say whether it asks about the socket at the other end."""

    def fits(self, entry: Entry) -> bool:
        """Say whether a socket fits."""


@dataclass(frozen=True, slots=True)
class Every:
    """Fit what fits all parts."""

    parts: tuple[Condition, ...]

    @property
    def needs_peers(self) -> bool:
        """Say whether a part asks about the other end."""
        return any(part.needs_peers for part in self.parts)

    def fits(self, entry: Entry) -> bool:
        """Say whether a socket fits."""
        return all(part.fits(entry) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Some:
    """Fit what fits one of the parts."""

    parts: tuple[Condition, ...]

    @property
    def needs_peers(self) -> bool:
        """Say whether a part asks about the other end."""
        return any(part.needs_peers for part in self.parts)

    def fits(self, entry: Entry) -> bool:
        """Say whether a socket fits."""
        return any(part.fits(entry) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not:
    """Fit what does not fit `part`."""

    part: Condition

    @property
    def needs_peers(self) -> bool:
        """Say whether the part asks about the other end."""
        return self.part.needs_peers

    def fits(self, entry: Entry) -> bool:
        """Say whether a socket fits."""
        return not self.part.fits(entry)


@dataclass(frozen=True, slots=True)
class Host:
    """Fit an address: the first `bits` of the 128 of `address`; all of them if `bits` is 0."""

    end: End
    address: bytes
    bits: int
    needs_peers: bool = False

    def fits(self, entry: Entry) -> bool:
        """Say whether a socket fits."""
        row = entry.row
        if row.family not in INET:
            return False
        wanted, shift = int.from_bytes(self.address), 128 - self.bits
        addresses = _of_end(self.end, row.local, row.remote)
        return any(int.from_bytes(address) >> shift == wanted >> shift for address in addresses)


@dataclass(frozen=True, slots=True)
class Port:
    """Fit a port that compares so to `port`; only sockets that have ports do."""

    end: End
    comparison: str
    port: int
    needs_peers: bool = False

    def fits(self, entry: Entry) -> bool:
        """Say whether a socket fits."""
        row = entry.row
        if row.family not in INET and row.family != AF_VSOCK:
            return False
        compare = COMPARISONS[self.comparison]
        return any(compare(port, self.port) for port in _of_end(self.end, row.local_port, row.remote_port))


@dataclass(frozen=True, slots=True)
class UnixName:
    """Fit the name of a unix socket, a shell pattern; an abstract one begins with `@`."""

    end: End
    pattern: str
    needs_peers: bool = True

    def fits(self, entry: Entry) -> bool:
        """Say whether a socket fits."""
        if entry.row.family != AF_UNIX:
            return False
        peer = entry.peer.row if entry.peer else None
        names = _of_end(self.end, unix_name(entry.row), unix_name(peer) if peer else "")
        return any(name and fnmatchcase(name, self.pattern) for name in names)


@dataclass(frozen=True, slots=True)
class HeldBy:
    """Fit sockets that a process holds with this pid, or with a name of this shell pattern."""

    pid: int | None = None
    pattern: str | None = None
    needs_peers: bool = False

    def fits(self, entry: Entry) -> bool:
        """Say whether a socket fits."""
        if self.pattern is None:
            return any(holder.pid == self.pid for holder in entry.holders)
        return any(fnmatchcase(holder.name, self.pattern) for holder in entry.holders)


def _of_end(end: End, local: Value, remote: Value) -> tuple[Value, ...]:
    if end is End.LOCAL:
        return (local,)
    return (remote,) if end is End.REMOTE else (local, remote)
