"""What the join asks of an engine: sockets for ends of flows, processes for sockets, addresses for namespaces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import NamedTuple, Protocol

from pktproc.model import UNSPECIFIED, UNSPECIFIED_V4, Process, ProcessId, Socket


class Query(NamedTuple):
    """One end of a flow whose socket is wanted.

    `local` is this end, `remote` the other one, in network namespace `netns`. `ifindex` is the interface that the
    packet was seen on, 0 for any. `outgoing` says that this end sent the packet. `fan_out` marks a multicast or
    broadcast destination, which reaches every socket that fits.
    """

    netns: int
    protocol: int
    local_address: bytes
    local_port: int
    remote_address: bytes
    remote_port: int
    ifindex: int = 0
    outgoing: bool = False
    fan_out: bool = False


class Ends(NamedTuple):
    """Both ends of a socket: its namespace, protocol, addresses and ports."""

    netns: int
    protocol: int
    local_address: bytes
    local_port: int
    remote_address: bytes
    remote_port: int


make_ends = partial(tuple.__new__, Ends)
"""Make ends of their fields in a tuple, at a third of what the constructor costs."""


def ends_of(socket: Socket) -> Ends:
    """Return the ends of a socket."""
    return make_ends(socket[:6])


def asked_ends(query: Query) -> Ends:
    """Return what an answer is remembered by, whichever way the packet went."""
    return make_ends(query[:6])


def both_ways(query: Query) -> tuple[Query, Query]:
    """Return a query for one way of a flow's packets and the one for the other way."""
    return query, query._replace(outgoing=not query.outgoing)


def possible_ends(query: Query) -> tuple[Ends, ...]:
    """Return the ends that a datagram socket which fits a query can have: connected, bound, or on the wildcard."""
    exact = asked_ends(query)
    return (
        exact,
        *(
            exact._replace(local_address=local, remote_address=unspecified, remote_port=0)
            for unspecified in (UNSPECIFIED, UNSPECIFIED_V4)
            for local in (query.local_address, unspecified)
        ),
    )


@dataclass(frozen=True, slots=True)
class Holdings:
    """Hold what a look at the processes found: inode -> the processes that hold it.

    `complete` says that every process was looked at, those excepted that may not be inspected: `denied` of `looked_at`.
    """

    holders: dict[int, list[Process]] = field(default_factory=dict)
    complete: bool = False
    denied: int = 0
    looked_at: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """Hold the sockets that ended since they were last asked for; `lost` says that some notifications are missing."""

    sockets: list[Socket] = field(default_factory=list)
    lost: bool = False


@dataclass(frozen=True, slots=True)
class Addresses:
    """Hold the 16-byte addresses of a namespace: its own, and the broadcast addresses of its networks."""

    local: frozenset[bytes] = frozenset()
    broadcast: frozenset[bytes] = frozenset()


class Engine(Protocol):
    """A source of facts about sockets and processes.

    `name` is the evidence that answers carry. `hears_ends` says whether `ended` reports sockets when they end.
    """

    name: str
    hears_ends: bool

    def candidates(self, queries: Sequence[Query]) -> list[list[Socket]]:
        """Return, for each query, the sockets that may fit; `matching.select` chooses among them."""

    def sockets(self, netns: int) -> list[Socket]:
        """Return all sockets of a namespace."""

    def injectors(self, netns: int) -> list[Socket]:
        """Return the sockets that send whatever their user makes up, of a namespace and not of this program.

        These are packet sockets and the raw ones that take whole IP packets.
        """

    def ended(self) -> Ended:
        """Return the sockets that ended since the last call."""

    def namespaces(self) -> frozenset[int]:
        """Return the network namespaces of this host that can be seen, as of now."""

    def readable(self, netns: int) -> bool:
        """Say whether the sockets of a namespace can be asked for."""

    def addresses(self, netns: int) -> Addresses:
        """Return the addresses of a namespace, as of now; none if they cannot be read."""

    def everyone(self, wanted: Mapping[int, int | None]) -> Holdings:
        """Look for wanted inodes (-> uid where known) in every process."""

    def newcomers(self, wanted: Iterable[int]) -> Holdings:
        """Look for wanted inodes only in processes that started since the last look at everyone."""

    def recheck(self, held: Mapping[int, Sequence[Process]]) -> Holdings:
        """Look again at the holders of inodes, and at newcomers, which may have inherited them."""


class Way(Enum):
    """What was done with a socket, or happened to it.

    `BOUND` to a port that was asked for, `SENT` and `RECEIVED` when another process than before does so, `ARRIVES`
    when a flow begins to reach a socket, `COMES_IN` of connections that have no socket yet, `CLOSED` with ends and a
    process if nobody is known to have used the socket before. Where no packets are followed, who begins a connection is
    told as `BOUND`, and `CONNECTS` when it is answered, `GIVES_UP` when it will not be. The numbers are kept in stores.
    """

    BOUND = 1
    SENT = 2
    RECEIVED = 3
    ARRIVES = 4
    COMES_IN = 5
    CLOSED = 6
    CONNECTS = 7
    GIVES_UP = 8


class Use(NamedTuple):
    """Something that was done with the socket `cookie` at `time_ns` (monotonic), by `process` or, if None, the kernel.

    `ends` are the socket's or, of what is sent or arrives, the packet's. `previous_ns` is when another process received
    last before this one.
    """

    time_ns: int
    way: Way
    cookie: int
    ends: Ends
    process: Process | None
    previous_ns: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """Hold what a witness has seen since it was last asked: uses in order, ends of processes (monotonic).

    `lost` counts what it could not tell; it then tells anew, at the next use, what it told before.
    """

    uses: Sequence[Use] = ()
    exits: Sequence[tuple[ProcessId, int]] = ()
    lost: int = 0


class Witness(Protocol):
    """Somebody in the kernel who sees sockets being used.

    `evidence` is what answers by it carry, `fallback` what those carry that the same engine gives by looking.
    """

    evidence: str
    fallback: str

    def told(self) -> Told:
        """Return what happened since the last call, up to this moment."""
