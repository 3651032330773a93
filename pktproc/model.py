"""The nouns of the house: processes, sockets, flows and the answer that joins them.

Everything here is an immutable value without behaviour of its own; rooms pass these to each other.
Addresses are always 16 bytes, IPv4 as IPv4-mapped IPv6 (`::ffff:a.b.c.d`, RFC 4291 section 2.5.5.2).
Times are integer nanoseconds since the epoch unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import partial
from typing import NamedTuple

V4_MAPPED_PREFIX = bytes(10) + b"\xff\xff"
UNSPECIFIED = bytes(16)
UNSPECIFIED_V4 = V4_MAPPED_PREFIX + bytes(4)


class Match(StrEnum):
    """How an endpoint fitted the socket that it was attributed to."""

    EXACT = "exact"
    BOUND = "bound"
    LISTENER = "listener"
    SHARED = "shared"
    INHERITED = "inherited"


class Reason(StrEnum):
    """Why an endpoint has no process."""

    NO_SOCKET = "no-socket"
    CLOSED = "closed"
    KERNEL = "kernel"
    OTHER_NAMESPACE = "other-namespace"
    FORWARDED = "forwarded"
    PERMISSION = "permission"
    AMBIGUOUS = "ambiguous"
    NOT_COVERED = "not-covered"
    NOT_IP = "not-ip"


class Protocol(IntEnum):
    """IANA protocol numbers that pktproc treats by name."""

    ICMP = 1
    IGMP = 2
    TCP = 6
    UDP = 17
    DCCP = 33
    ICMPV6 = 58
    SCTP = 132
    UDPLITE = 136


DATAGRAM = frozenset({Protocol.UDP, Protocol.UDPLITE})


class PacketType(IntEnum):
    """Kind of a frame as the kernel's tap saw it (linux/if_packet.h, `PACKET_*`)."""

    HOST = 0
    BROADCAST = 1
    MULTICAST = 2
    OTHERHOST = 3
    OUTGOING = 4
    UNKNOWN = 255


class Direction(IntEnum):
    """Way of a packet as seen from the namespace in which it was captured.

    `INCOMING` covers unicast, broadcast and multicast to this host; `PASSING` is a frame to somebody else's link
    address; `LOOPBACK` has both ends in the namespace; `UNKNOWN` when the capture does not tell.
    """

    INCOMING = 0
    OUTGOING = 1
    LOOPBACK = 2
    PASSING = 3
    UNKNOWN = 4


class Interface(NamedTuple):
    """A network interface: `netns` is the inode number of its network namespace, 0 when unknown."""

    name: str
    ifindex: int
    netns: int
    loopback: bool = False


class Flow(NamedTuple):
    """One direction of a conversation, as it appears in packets.

    `direction` is a `Direction`. `protocol` is the IANA number, -1 for a packet that is not IP, and `ethertype` says
    what it is then. Ports are 0 where the protocol has none; ICMP echo carries its id as the source port of a request
    and as the destination port of a reply; `icmp_type` is -1 elsewhere. `ports_known` is False for a fragment
    whose first fragment was not seen and for a packet cut before its ports. `quoted` is the flow inside an ICMP error.
    """

    netns: int
    ifindex: int
    direction: int
    protocol: int
    source_address: bytes
    source_port: int
    destination_address: bytes
    destination_port: int
    ethertype: int = 0
    icmp_type: int = -1
    ports_known: bool = True
    quoted: Flow | None = None


make_flow = partial(tuple.__new__, Flow)
"""Make a flow of all its fields in a tuple, at a third of what the constructor costs."""


class ProcessId(NamedTuple):
    """Identity of a process: a pid alone is reused; with its start time (clock ticks since boot) it is not."""

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it was when it was looked at.

    `name` is the main thread's comm, completed from exe or argv[0] where it is their first 15 bytes. `exe` and
    `cmdline` are None when they could not be read (or, for `cmdline`, are not wanted). `start_ns` is its start since
    the epoch. `uid` is the effective one. `ancestors` runs from the parent upward. `container_id` is the id in its
    cgroup path, None outside containers; `unit` the systemd unit there, None where there is none or it is not
    known. All strings come from untrusted programs and may hold any character;
    undecodable bytes are surrogates.
    """

    pid: int
    start_ticks: int
    start_ns: int
    name: str
    exe: str | None = None
    cmdline: tuple[str, ...] | None = None
    uid: int | None = None
    ppid: int | None = None
    parent_name: str | None = None
    container_id: str | None = None
    ancestors: tuple[ProcessId, ...] = ()
    unit: str | None = None

    def __hash__(self) -> int:
        """Return the hash of the identity: descriptions of one process differ seldom, and have long command lines."""
        return hash((self.pid, self.start_ticks))

    @property
    def id(self) -> ProcessId:
        """Return the identity of the process."""
        return ProcessId(self.pid, self.start_ticks)


class SocketId(NamedTuple):
    """Identity of a socket: its cookie, which outlives the inode, or the inode where the engine knows no cookies."""

    netns: int
    cookie: int
    inode: int


class Socket(NamedTuple):
    """A socket as an engine reported it.

    `netns` is the inode number of its namespace. `cookie` is 0 where the engine does not know it; `inode` is 0 for a
    socket that no file holds (TIME_WAIT, FIN_WAIT2, not yet accepted); `uid` is None where the kernel did not say.
    `state` is the kernel's TCP state number (net/tcp_states.h), for every protocol. `ifindex` is the device that
    the socket is bound to, 0 for none. `v6_only` says that an IPv6 socket takes no IPv4; it is False where the engine
    cannot tell. A raw socket has `raw` set and its protocol number as `protocol` and `local_port`; an ICMP ("ping")
    socket has the echo id as `local_port`.
    """

    netns: int
    protocol: int
    local_address: bytes
    local_port: int
    remote_address: bytes
    remote_port: int
    state: int
    inode: int
    cookie: int
    uid: int | None
    ifindex: int = 0
    v6_only: bool = False
    raw: bool = False

    @property
    def id(self) -> SocketId:
        """Return the identity of the socket."""
        return SocketId(self.netns, self.cookie, 0 if self.cookie else self.inode)


@dataclass(frozen=True, slots=True)
class Attribution:
    """The answer for one end of a packet: a process and how it was found, or the reason why there is none.

    Exactly one of `process` and `reason` is set. With `Match.SHARED` several processes hold the socket: `holders` has
    all of them and `process` is the first, the one that the others descend from where there is such a one. With
    `Reason.AMBIGUOUS`, `holders` are the candidates. `evidence` is the name of the engine that answered, None if none
    was asked. `final` is False while asking again may give a better answer.
    """

    process: Process | None = None
    match: Match | None = None
    evidence: str | None = None
    reason: Reason | None = None
    holders: tuple[Process, ...] = ()
    final: bool = True


def pack_address(text: str) -> bytes:
    """Return the 16 bytes of a textual IPv4 or IPv6 address; raise ValueError for anything else."""
    import ipaddress  # noqa: PLC0415 - many runs meet no text

    address = ipaddress.ip_address(text)
    return V4_MAPPED_PREFIX + address.packed if address.version == 4 else address.packed


def format_address(address: bytes) -> str:
    """Return the usual text of a 16-byte address, IPv4-mapped ones as dotted quads."""
    if address.startswith(V4_MAPPED_PREFIX):
        return f"{address[12]}.{address[13]}.{address[14]}.{address[15]}"
    import ipaddress  # noqa: PLC0415 - many runs meet no IPv6

    return ipaddress.IPv6Address(address).compressed
