"""The rows of a socket listing, and who is behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

from pktproc.model import ProcessId

AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_VSOCK = 1, 2, 10, 16, 17, 40
INET = frozenset({AF_INET, AF_INET6})
UNLISTED = "sock"
"""The kind of a socket that a process holds and no table of the kernel lists."""

CONNECTION_KINDS = frozenset({"tcp", "mptcp", "sctp", "dccp"})
DATAGRAM_KINDS = frozenset({"udp", "udplite"})
UNIX_KINDS = {1: "u_str", 2: "u_dgr", 5: "u_seq"}
PACKET_KINDS = {2: "p_dgr", 3: "p_raw", 10: "p_raw"}
VSOCK_KINDS = {1: "v_str", 2: "v_dgr", 5: "v_seq"}
KINDS = (
    *("tcp", "udp", "udplite", "raw", "icmp", "sctp", "dccp", "mptcp"),
    *dict.fromkeys((*UNIX_KINDS.values(), *PACKET_KINDS.values())),
    *("nl", *VSOCK_KINDS.values(), UNLISTED),
)
"""The kinds of sockets, by ss's words for them (its column Netid), in the order of a listing."""


class Attributes(NamedTuple):
    """What the kernel tells of a socket beside its row; None is not told.

    `shutdown` has bit 0 for a closed receiving and bit 1 for a closed sending side. `cgroup` is a cgroup v2 id.
    `memory` are the counters of linux/sock_diag.h (SK_MEMINFO_*), in their order. `tcp_info` is the struct of that name
    in linux/tcp.h, as bytes. `congestion` is the name of the algorithm. `options` are the two bytes of struct
    inet_diag_sockopt. Of unix sockets, `file` is inode and device of their path and `pending` the inodes of connections
    that nobody has accepted yet. Of netlink sockets, `groups` is the mask of what they listen to. Of packet sockets,
    `fanout` is id and type and `rings` the sizes in bytes of the rings for receiving and sending. `autobound` says that
    nobody asked for the port that an inet socket has; it is told only if it was asked for. Of SCTP, `locals` and
    `peers` are the 16-byte addresses of both ends, the latter of an association alone.
    """

    v6_only: bool | None = None
    protocol: int | None = None
    shutdown: int | None = None
    tos: int | None = None
    traffic_class: int | None = None
    mark: int | None = None
    cgroup: int | None = None
    memory: tuple[int, ...] | None = None
    tcp_info: bytes | None = None
    congestion: str | None = None
    options: bytes | None = None
    upper_protocol: str | None = None
    file: tuple[int, int] | None = None
    pending: tuple[int, ...] | None = None
    groups: int | None = None
    fanout: tuple[int, int] | None = None
    rings: tuple[int, int] | None = None
    autobound: bool | None = None
    locals: tuple[bytes, ...] | None = None
    peers: tuple[bytes, ...] | None = None


NO_ATTRIBUTES = Attributes()


Key = tuple[int, int, str, int]


class Row(NamedTuple):
    """A socket as the kernel's tables show it.

    `kind` is one of `KINDS`, `family` its AF_ number. `state` is the kernel's TCP state number, for every kind. Queues
    are in bytes; of a listener they are the connections that wait to be accepted, and how many may.
    What the ends are, depends on the family: 16-byte addresses and ports (of a raw socket its protocol, of ICMP the
    echo id); of unix sockets `local` is the name, which begins with a zero byte if it is abstract, and
    `remote_port` the inode of the peer; of netlink ones `local_port` is the port id and `remote_port` the protocol, of
    packet ones `local_port` the ethertype; of vsock ones the addresses are context ids of four bytes. `netns` is the
    namespace's inode number. `timer`, `retransmissions` and `expires_ms` are those of struct inet_diag_msg. `cookie` is
    0 where it is not told, `uid` None. `inode` is 0 if no file holds the socket.
    """

    netns: int
    kind: str
    family: int
    state: int
    receive_queue: int
    send_queue: int
    local: bytes
    local_port: int
    remote: bytes
    remote_port: int
    ifindex: int
    cookie: int
    uid: int | None
    inode: int
    timer: int
    retransmissions: int
    expires_ms: int
    attributes: Attributes

    @property
    def key(self) -> Key:
        """Return what tells this socket from all others, and stays the same as long as it lives."""
        return key_of(self.netns, self.cookie, self.kind, self.inode)


def key_of(netns: int, cookie: int, kind: str, inode: int) -> Key:
    """Return the key of a socket: its inode counts only where the cookie is not told."""
    return netns, cookie, kind, 0 if cookie else inode


make_row = partial(tuple.__new__, Row)
"""Make a row of a tuple of its fields at a third of what the constructor costs."""


class Holder(NamedTuple):
    """A process that holds a socket: `fds` are its descriptors of it, in rising order; `name` is the process name."""

    process: ProcessId
    name: str
    fds: tuple[int, ...]

    @property
    def pid(self) -> int:
        """Return the pid."""
        return self.process.pid


make_holder = partial(tuple.__new__, Holder)


class Peer(NamedTuple):
    """The socket at the other end of one, where both are on this host.

    `row` is None for a peer that is known by its `inode` alone. `holders` are empty if its processes are not known.
    """

    inode: int
    holders: tuple[Holder, ...]
    row: Row | None = None


class Entry(NamedTuple):
    """A socket with who holds it and who is at its other end.

    `peer` is None if that is on another host or not known. `last` says that `holders` are who held the socket when it
    was last seen with a file, which nobody does any more.
    """

    row: Row
    holders: tuple[Holder, ...]
    peer: Peer | None = None
    last: bool = False


make_entry = partial(tuple.__new__, Entry)


class Listing(NamedTuple):
    """The sockets of one look, in the order of `KINDS`.

    `namespaces` maps the inode numbers of the namespaces that were looked at to their names, numbers where they have
    none; `interfaces` maps (namespace, ifindex) to names. `sharing` has, for each socket that takes what comes to a
    port together with others (SO_REUSEPORT), how many there are. `denied` says that some processes may not be
    inspected, `notes` what could not be looked at, and the cure.
    """

    entries: Sequence[Entry]
    namespaces: Mapping[int, str] = {}
    interfaces: Mapping[tuple[int, int], str] = {}
    sharing: Mapping[Key, int] = {}
    denied: bool = False
    notes: tuple[str, ...] = ()
