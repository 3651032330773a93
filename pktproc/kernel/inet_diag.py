"""The inet_diag messages of sock_diag(7): requests out, sockets in (linux/inet_diag.h)."""

from __future__ import annotations

import socket
import struct
from functools import cache, partial

from pktproc.kernel import netlink
from pktproc.model import V4_MAPPED_PREFIX, Protocol, Socket

SOCK_DIAG_BY_FAMILY = 20
TCPDIAG_GETSOCK = 18
_SWAPPED = frozenset({Protocol.UDP, Protocol.UDPLITE})
ANY_COOKIE = 0xFFFFFFFFFFFFFFFF
ALL_STATES = 0xFFFFFFFF
Lasting = tuple[bytes, ...]

TCP_ESTABLISHED = 1
TCP_SYN_RECV = 3
TCP_TIME_WAIT = 6
TCP_CLOSE = 7
TCP_LISTEN = 10

_INET_DIAG_SKV6ONLY = 11
_INET_DIAG_PROTOCOL = 10

# struct inet_diag_req_v2: family, protocol, ext, pad, states; then struct inet_diag_sockid:
# sport, dport (big-endian), src, dst, if, cookie.
_REQUEST_HEAD = struct.Struct("=BBBBI")
_PORTS = struct.Struct("!HH")
_STATES = struct.Struct("=II")
_INTERFACE_COOKIE = struct.Struct("=IQ")
# struct inet_diag_msg: family, state, timer, retrans; sockid; expires, rqueue, wqueue, uid, inode.
_MESSAGE = struct.Struct("=BBBB2s2s16s16sIQIIIII")
_COOKIE = struct.Struct("=Q")
_COOKIE_AT = struct.calcsize("=BBBB2s2s16s16sI")


def _family_address(address: bytes) -> bytes:
    return address[12:] + bytes(12) if address.startswith(V4_MAPPED_PREFIX) else address


def _request(
    flags: int,
    family: int,
    protocol: int,
    *,
    states: int,
    sockid: bytes,
    sequence: int,
) -> bytes:
    head = _REQUEST_HEAD.pack(family, protocol, 0, 0, states)
    return netlink.build(SOCK_DIAG_BY_FAMILY, netlink.NLM_F_REQUEST | flags, sequence, head + sockid)


def dump_request(family: int, protocol: int, *, states: int = ALL_STATES, port: int = 0, sequence: int = 0) -> bytes:
    """Return the request for every socket of a family and protocol, those with local `port` alone if it is not 0."""
    sockid = _PORTS.pack(port, 0) + bytes(32) + _INTERFACE_COOKIE.pack(0, ANY_COOKIE)
    return _request(netlink.NLM_F_DUMP, family, protocol, states=states, sockid=sockid, sequence=sequence)


def tcp_request(*, states: int = ALL_STATES, sequence: int = 0) -> bytes:
    """Return the request for every TCP socket of both families, in the older form that sock_diag still takes.

    It costs half of two dumps by family, each of which walks the whole hash table of the host: 3 ms for 262,144
    buckets. struct inet_diag_req: family, lengths of addresses, ext; sockid; states, unused.
    """
    sockid = bytes(36) + _INTERFACE_COOKIE.pack(0, ANY_COOKIE)
    body = bytes(4) + sockid + _STATES.pack(states, 0)
    return netlink.build(TCPDIAG_GETSOCK, netlink.NLM_F_REQUEST | netlink.NLM_F_DUMP, sequence, body)


def exact_request(
    protocol: int,
    *,
    local: tuple[bytes, int],
    remote: tuple[bytes, int],
    ifindex: int = 0,
    sequence: int = 0,
) -> bytes:
    """Return the request for the one TCP socket that a packet from `remote` to `local` would reach.

    The kernel's answer can be a listener (inet_diag_find_one_icsk): compare it with what was asked. AF_INET requests
    find IPv6 sockets with IPv4-mapped addresses too.
    """
    if protocol in _SWAPPED:
        local, remote = remote, local
    local_address, remote_address = local[0], remote[0]
    family = socket.AF_INET if local_address.startswith(V4_MAPPED_PREFIX) else socket.AF_INET6
    sockid = b"".join(
        (
            _PORTS.pack(local[1], remote[1]),
            _family_address(local_address),
            _family_address(remote_address),
            _INTERFACE_COOKIE.pack(ifindex, ANY_COOKIE),
        )
    )
    return _request(0, family, protocol, states=ALL_STATES, sockid=sockid, sequence=sequence)


@cache
def lasting_layout(size: int) -> struct.Struct | None:
    """Return the layout of a netlink message whose payload of `size` bytes is an inet_diag message; None if it is not.

    It has the fields of the netlink header and three that stay the same for as long as the socket does not change: all
    but the timer, its retransmissions and expiry, and the lengths of the queues. Sizes are multiples of 4 and bounded
    by what the kernel adds as attributes.
    """
    rest = size - _MESSAGE.size
    return None if rest < 0 or size % 4 else struct.Struct(f"=IHHII2s2x48s12x{rest + 8}s")


def cookie_in(payload: memoryview) -> int:
    """Return the cookie in an inet_diag message; 0 if it is too short to be one."""
    if len(payload) < _MESSAGE.size:
        return 0
    (cookie,) = _COOKIE.unpack_from(payload, _COOKIE_AT)
    return int(cookie)


def parse_socket(payload: memoryview, netns: int, protocol: int, *, dumped: bool = False) -> Socket | None:
    """Return the socket that an inet_diag message describes, None if the message is too short to be one.

    What was `dumped` is of the protocol that was asked for; else the message may say another one.
    `uid` is None when the inode is 0: the kernel then reports 0 for "unknown" as for root.
    """
    if len(payload) < _MESSAGE.size:
        return None
    (family, state, _, _, local_port, remote_port, local, remote, ifindex, cookie, _, _, _, uid, inode) = (
        _MESSAGE.unpack_from(payload)
    )
    v6_only = False
    telling = not dumped or family == socket.AF_INET6
    for kind, value in netlink.attributes(payload[_MESSAGE.size :]) if telling else ():
        if kind == _INET_DIAG_SKV6ONLY and len(value) >= 1:
            v6_only = bool(value[0])
        elif kind == _INET_DIAG_PROTOCOL and len(value) >= 1:
            protocol = value[0]
    if family == socket.AF_INET:
        local, remote = V4_MAPPED_PREFIX + local[:4], V4_MAPPED_PREFIX + remote[:4]
    near, far = int.from_bytes(local_port), int.from_bytes(remote_port)
    ends = netns, protocol, local, near, remote, far
    return _socket((*ends, state, inode, cookie, uid if inode else None, ifindex, v6_only, False))


_socket = partial(tuple.__new__, Socket)  # a fourth of what the constructor costs
