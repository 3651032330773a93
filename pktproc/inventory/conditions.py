"""Conditions that sockets are selected by: a tree that is asked about each entry of a listing."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol, TypeVar

from pktproc.inventory.naming import unix_name
from pktproc.inventory.rows import AF_NETLINK, AF_PACKET, AF_UNIX, AF_VSOCK, INET, Entry

Value = TypeVar("Value")

COMPARISONS: Mapping[str, Callable[[int, int], bool]] = MappingProxyType(
    {"=": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}
)


# Where the kernel chooses: five hexadecimal digits (unix_autobind in net/unix/af_unix.c), port ids that are negative
# numbers (netlink_autobind), and vsock ports that are not privileged (LAST_RESERVED_PORT).
_CHOSEN_NAME = re.compile(rb"\0[0-9a-f]{5}")
_CHOSEN_PORT_IDS = 1 << 31
_FIRST_CHOSEN_VSOCK_PORT = 1024


class End(Enum):
    """Which end of a socket a condition is about."""

    LOCAL = "local"
    REMOTE = "remote"
    EITHER = "either"


Need = Literal["peers", "interfaces", "cgroups", "binding"]
"""What a condition asks about beside the socket itself: the socket at the other end, the names of interfaces, the paths
of cgroups, or who chose a port (`Attributes.autobound`, and the ports that the kernel gives out)."""

Needs = frozenset[Need]


class Surroundings(NamedTuple):
    """What there is around the sockets of a look, as far as a condition needs it.

    `interfaces` maps (namespace, ifindex) to names, `cgroups` ids to paths below `cgroup_root`, where cgroup v2 is
    mounted, and `ephemeral` namespaces to the first and last port that the kernel gives out.
    """

    interfaces: Mapping[tuple[int, int], str] = {}
    cgroup_root: str = ""
    cgroups: Mapping[int, str] = {}
    ephemeral: Mapping[int, tuple[int, int]] = {}


NOWHERE = Surroundings()


class Condition(Protocol):
    """Something that a socket fits or not."""

    @property
    def needs(self) -> Needs:
        """Return what it asks about beside the socket itself."""

    def fits(self, entry: Entry, around: Surroundings = NOWHERE) -> bool:
        """Say whether a socket fits."""


@dataclass(frozen=True, slots=True)
class Every:
    """Fit what fits all parts."""

    parts: tuple[Condition, ...]

    @property
    def needs(self) -> Needs:
        """Return what the parts ask about."""
        return _all_needs(self.parts)

    def fits(self, entry: Entry, around: Surroundings = NOWHERE) -> bool:
        """Say whether a socket fits."""
        return all(part.fits(entry, around) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Some:
    """Fit what fits one of the parts."""

    parts: tuple[Condition, ...]

    @property
    def needs(self) -> Needs:
        """Return what the parts ask about."""
        return _all_needs(self.parts)

    def fits(self, entry: Entry, around: Surroundings = NOWHERE) -> bool:
        """Say whether a socket fits."""
        return any(part.fits(entry, around) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Not:
    """Fit what does not fit `part`."""

    part: Condition

    @property
    def needs(self) -> Needs:
        """Return what the part asks about."""
        return self.part.needs

    def fits(self, entry: Entry, around: Surroundings = NOWHERE) -> bool:
        """Say whether a socket fits."""
        return not self.part.fits(entry, around)


@dataclass(frozen=True, slots=True)
class Host:
    """Fit an address: the first `bits` of the 128 of `address`; all of them if `bits` is 0."""

    end: End
    address: bytes
    bits: int
    needs: Needs = frozenset()

    def fits(self, entry: Entry, around: Surroundings = NOWHERE) -> bool:  # noqa: ARG002 - as all have it
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
    needs: Needs = frozenset()

    def fits(self, entry: Entry, around: Surroundings = NOWHERE) -> bool:  # noqa: ARG002 - as all have it
        """Say whether a socket fits."""
        row = entry.row
        if row.family not in INET and row.family != AF_VSOCK:
            return False
        compare = COMPARISONS[self.comparison]
        return any(compare(port, self.port) for port in _of_end(self.end, row.local_port, row.remote_port))


@dataclass(frozen=True, slots=True)
class OfKind:
    """Fit sockets of a kind (`KINDS`)."""

    kind: str
    needs: Needs = frozenset()

    def fits(self, entry: Entry, around: Surroundings = NOWHERE) -> bool:  # noqa: ARG002 - as all have it
        """Say whether a socket fits."""
        return entry.row.kind == self.kind


@dataclass(frozen=True, slots=True)
class UnixName:
    """Fit the name of a unix socket, a shell pattern; an abstract one begins with `@`."""

    end: End
    pattern: str
    needs: Needs = frozenset({"peers"})

    def fits(self, entry: Entry, around: Surroundings = NOWHERE) -> bool:  # noqa: ARG002 - as all have it
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
    needs: Needs = frozenset()

    def fits(self, entry: Entry, around: Surroundings = NOWHERE) -> bool:  # noqa: ARG002 - as all have it
        """Say whether a socket fits."""
        if self.pattern is None:
            return any(holder.pid == self.pid for holder in entry.holders)
        return any(fnmatchcase(holder.name, self.pattern) for holder in entry.holders)


@dataclass(frozen=True, slots=True)
class Device:
    """Fit sockets that are bound to the interface of this name or number."""

    name: str
    needs: Needs = frozenset({"interfaces"})

    def fits(self, entry: Entry, around: Surroundings = NOWHERE) -> bool:
        """Say whether a socket fits."""
        row = entry.row
        if around.interfaces.get((row.netns, row.ifindex)) == self.name and row.ifindex:
            return True
        return self.name.isdecimal() and int(self.name) == row.ifindex


@dataclass(frozen=True, slots=True)
class FirewallMark:
    """Fit sockets whose mark (SO_MARK) has the value `mark` in the bits of `mask`; one that is not told is 0."""

    mark: int
    mask: int = 0xFFFFFFFF
    needs: Needs = frozenset()

    def fits(self, entry: Entry, around: Surroundings = NOWHERE) -> bool:  # noqa: ARG002 - as all have it
        """Say whether a socket fits."""
        return (entry.row.attributes.mark or 0) & self.mask == self.mark


@dataclass(frozen=True, slots=True)
class InCgroup:
    """Fit sockets that were made in the cgroup of this path, with or without that of cgroup v2, not in one below it."""

    path: str
    needs: Needs = frozenset({"cgroups"})

    def fits(self, entry: Entry, around: Surroundings = NOWHERE) -> bool:
        """Say whether a socket fits."""
        name = around.cgroups.get(entry.row.attributes.cgroup or 0)
        return name is not None and self.path in (name, around.cgroup_root + name)


@dataclass(frozen=True, slots=True)
class Autobound:
    """Fit sockets whose own port or name the kernel chose: as ss has it, unnamed unix sockets are among them."""

    needs: Needs = frozenset({"binding"})

    def fits(self, entry: Entry, around: Surroundings = NOWHERE) -> bool:
        """Say whether a socket fits."""
        row = entry.row
        if row.family == AF_UNIX:
            return not row.local or _CHOSEN_NAME.fullmatch(row.local) is not None
        if row.family == AF_PACKET:
            return not row.local_port and not row.ifindex
        if row.family == AF_NETLINK:
            return row.local_port >= _CHOSEN_PORT_IDS
        if row.family == AF_VSOCK:
            return row.local_port >= _FIRST_CHOSEN_VSOCK_PORT
        first, last = around.ephemeral.get(row.netns, (0, -1))
        return row.attributes.autobound is not False and first <= row.local_port <= last


def _all_needs(parts: Iterable[Condition]) -> Needs:
    return frozenset().union(*(part.needs for part in parts))


def _of_end(end: End, local: Value, remote: Value) -> tuple[Value, ...]:
    if end is End.LOCAL:
        return (local,)
    return (remote,) if end is End.REMOTE else (local, remote)
