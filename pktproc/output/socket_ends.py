"""The ends of sockets as text, as ss writes them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

from pktproc.inventory.naming import unix_name
from pktproc.inventory.rows import AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, AF_VSOCK, INET, UNLISTED, Peer, Row
from pktproc.model import UNSPECIFIED, V4_MAPPED_PREFIX, Protocol, format_address
from pktproc.output.escape import escape
from pktproc.output.names import ETHERTYPES, services, transport

ANY = "*"
_ALL_PACKETS = 3
_ANY_CONTEXT = 0xFFFFFFFF
_SERVICES = {"tcp": Protocol.TCP, "mptcp": Protocol.TCP, "udp": Protocol.UDP, "udplite": Protocol.UDP}
NETLINK_PROTOCOLS = {
    0: "rtnl",
    2: "usersock",
    3: "fw",
    4: "tcpdiag",
    5: "nflog",
    6: "xfrm",
    7: "selinux",
    8: "iscsi",
    9: "audit",
    10: "fiblookup",
    11: "connector",
    12: "nft",
    13: "ip6fw",
    14: "dec-rt",
    15: "uevent",
    16: "genl",
    18: "scsi-trans",
    19: "ecryptfs",
    20: "rdma",
    21: "crypto",
}
"""ss's names for the protocols of netlink (linux/netlink.h, NETLINK_*)."""

NameOf = Callable[[bytes], str]


class Ends:
    """Write the ends of rows; `numeric` leaves service names out, `host_name` names addresses.

    `interfaces` maps (namespace, ifindex) to names.
    """

    def __init__(
        self, interfaces: Mapping[tuple[int, int], str], *, numeric: bool = True, host_name: NameOf | None = None
    ) -> None:
        self.numeric = numeric
        self._interfaces = interfaces
        self.addresses = _Texts(host_name or _numeric_name)
        self.ports = _PortsByKind(numeric=numeric)

    def local(self, row: Row) -> tuple[str, str]:
        """Return the text of a socket's own address, and of its port."""
        family = row[2]
        if family in INET:
            address = self._address(row, row[6])
            if row[10]:
                address = f"{address}%{self.interface(row)}"
            return address, self.ports[row[1]][row[7]]
        if family == AF_UNIX:
            return escape(unix_name(row)) or ANY, str(row.inode)
        if family == AF_NETLINK:
            return _netlink_name(row.remote_port), "kernel" if not row.local_port else str(row.local_port)
        if family == AF_PACKET:
            return _ethertype(row.local_port), self.interface(row)
        if family == AF_VSOCK:
            return _context(row.local), _vsock_port(row.local_port)
        return (escape(row.local.decode("ascii", "surrogateescape")) or ANY, ANY) if row.kind == UNLISTED else (ANY, "")

    def remote(self, row: Row, peer: Peer | None = None) -> tuple[str, str]:
        """Return the text of the address that a socket is connected to, and of its port; `*` for none."""
        family = row[2]
        if family in INET:
            return self._address(row, row[8]), self.ports[row[1]][row[9]]
        if family == AF_UNIX:
            name = escape(unix_name(peer.row)) if peer and peer.row else ""
            return name or ANY, str(row.remote_port)
        if family == AF_VSOCK:
            return _context(row.remote), _vsock_port(row.remote_port)
        return ANY, "" if family in (AF_NETLINK, AF_PACKET) else ANY

    def _address(self, row: Row, address: bytes) -> str:
        """Return the text of an address: `*` is every one of both families, `[::]` every one of IPv6 alone."""
        if address == UNSPECIFIED:
            return "[::]" if row.attributes.v6_only else ANY
        text = self.addresses[address]
        return f"[::ffff:{text}]" if row.family == AF_INET6 and address.startswith(V4_MAPPED_PREFIX) else text

    def interface(self, row: Row) -> str:
        """Return the name of the interface that a socket is bound to, `*` for none."""
        if not row.ifindex:
            return ANY
        return escape(self._interfaces.get((row.netns, row.ifindex), f"if{row.ifindex}"))


class _Texts(dict[bytes, str]):
    """Addresses by their bytes, written once each."""

    def __init__(self, name: NameOf) -> None:
        super().__init__()
        self._name = name

    def __missing__(self, key: bytes) -> str:
        text = self[key] = self._name(key)
        return text


class _Ports(dict[int, str]):
    """Ports of a kind of sockets, written once each."""

    def __init__(self, kind: str, *, numeric: bool) -> None:
        super().__init__({0: ANY})
        self._kind = kind
        self._numeric = numeric

    def __missing__(self, port: int) -> str:
        text = self[port] = str(port) if self._numeric else self._name(port)
        return text

    def _name(self, port: int) -> str:
        if self._kind == "raw":
            return transport(port) or f"ipproto-{port}"
        protocol = _SERVICES.get(self._kind)
        return str(port) if protocol is None else services().get((protocol, port)) or str(port)


class _PortsByKind(dict[str, _Ports]):
    def __init__(self, *, numeric: bool) -> None:
        super().__init__()
        self._numeric = numeric

    def __missing__(self, kind: str) -> _Ports:
        ports = self[kind] = _Ports(kind, numeric=self._numeric)
        return ports


def _numeric_name(address: bytes) -> str:
    text = format_address(address)
    return text if address.startswith(V4_MAPPED_PREFIX) else f"[{text}]"


def resolved_name(address: bytes) -> str:
    """Return the host name of an address, or the address where it has none; this may ask the network."""
    text = format_address(address)
    try:
        name, _ = socket.getnameinfo((text, 0), socket.NI_NAMEREQD)
    except OSError:
        return _numeric_name(address)
    return escape(name)


def _netlink_name(protocol: int) -> str:
    return NETLINK_PROTOCOLS.get(protocol, str(protocol))


def _ethertype(number: int) -> str:
    if not number:
        return "[0]"
    return ANY if number == _ALL_PACKETS else ETHERTYPES.get(number, f"[{number}]").lower()


def _context(address: bytes) -> str:
    number = int.from_bytes(address, "little")
    return ANY if number == _ANY_CONTEXT else str(number)


def _vsock_port(port: int) -> str:
    return ANY if port == _ANY_CONTEXT else str(port)
