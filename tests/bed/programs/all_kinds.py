"""One process with a socket of every kind that this kernel has; tell their descriptors, then hold them.

With `--share` a child holds all of them, too. Ends when standard input does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from bed.programs.leash import fork
from bed.programs.telling import tell, wait_for_line

IPPROTO_MPTCP = 262
IPPROTO_SCTP = 132
IPPROTO_UDPLITE = 136
SO_BINDTODEVICE = 25
SO_MARK = 36
ETH_P_ALL = 3
RTMGRP_LINK = 1
LOOPBACK = "127.0.0.1"
HOSTILE_NAME = "so ck\x1b[31m:"

Named = tuple[str, socket.socket]


def main() -> None:
    """Open everything and hold it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", action="store_true")
    options = parser.parse_args()
    opened: dict[str, socket.socket] = {}
    for open_some in (tcp, tcp6, udp, raw, lower, mptcp, sctp):
        opened.update(open_some())
    opened.update(unix(options.folder))
    child = 0
    if options.share:
        child = fork()
        if not child:
            while True:
                wait_for_line()
    sockets = {name: {"fd": sock.fileno(), "inode": os.fstat(sock.fileno()).st_ino} for name, sock in opened.items()}
    tell("ready", sockets=sockets, child=child)
    wait_for_line()
    if child:
        os.kill(child, 9)


def tcp() -> Iterator[Named]:
    """A listener, a connection, and one that is not accepted; one that is over, in TIME_WAIT."""
    listener = socket.create_server((LOOPBACK, 7400))
    yield "listener", listener
    yield "client", socket.create_connection((LOOPBACK, 7400))
    accepted = listener.accept()[0]
    accepted.send(b"x" * 1000)
    yield "accepted", accepted
    yield "waiting", socket.create_connection((LOOPBACK, 7400))
    half_closed = socket.create_server((LOOPBACK, 7401))
    ending = socket.create_connection((LOOPBACK, 7401))
    over = half_closed.accept()[0]
    ending.close()
    over.recv(1)
    over.close()
    leaving = socket.create_connection((LOOPBACK, 7401))
    left = half_closed.accept()[0]
    leaving.close()
    left.recv(1)
    yield "other listener", half_closed
    yield "close-wait", left
    never = socket.socket()
    yield "unbound", never
    for index in range(2):
        shared = socket.socket()
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind((LOOPBACK, 7402))
        shared.listen()
        yield f"reuseport {index}", shared
    kept = socket.create_connection((LOOPBACK, 7401))
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    yield "kept alive", kept
    yield "kept alive's peer", half_closed.accept()[0]


def tcp6() -> Iterator[Named]:
    """A dual-stack listener with a connection from IPv4, and one of IPv6 alone."""
    dual = socket.create_server(("::", 7403), family=socket.AF_INET6, dualstack_ipv6=True)
    yield "dual", dual
    yield "mapped client", socket.create_connection((LOOPBACK, 7403))
    yield "mapped accepted", dual.accept()[0]
    six = socket.create_server(("::1", 7404), family=socket.AF_INET6)
    yield "six", six
    yield "six client", socket.create_connection(("::1", 7404))
    yield "six accepted", six.accept()[0]
    only = socket.create_server(("::", 7405), family=socket.AF_INET6)
    yield "v6 only", only


def udp() -> Iterator[Named]:
    """Bound and connected ones, with something in a queue; UDP-Lite; one bound to an interface, one with a mark."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind((LOOPBACK, 7410))
    yield "udp", bound
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect((LOOPBACK, 7410))
    sender.send(b"x" * 100)
    yield "udp client", sender
    six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    six.bind(("::", 7411))
    yield "udp6", six
    lite = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, IPPROTO_UDPLITE)
    lite.bind((LOOPBACK, 7412))
    yield "udplite", lite
    device = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    device.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, b"lo")
    device.bind(("0.0.0.0", 7413))
    yield "device", device
    marked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    marked.setsockopt(socket.SOL_SOCKET, SO_MARK, 0x15)
    marked.bind((LOOPBACK, 7414))
    yield "marked", marked
    # Ports that the kernel gives out, chosen by it and asked for.
    for name, port in (("any port", 0), ("asked for", 45678)):
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind((LOOPBACK, port))
        yield name, bound


def raw() -> Iterator[Named]:
    """Raw sockets of both families, and ICMP ("ping") ones."""
    yield "raw", socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    yield "raw 253", socket.socket(socket.AF_INET, socket.SOCK_RAW, 253)
    yield "raw6", socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 2147483647")
    for name, family in (("ping", socket.AF_INET), ("ping6", socket.AF_INET6)):
        protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
        ping = socket.socket(family, socket.SOCK_DGRAM, protocol)
        ping.bind((LOOPBACK if family == socket.AF_INET else "::1", 77))
        yield name, ping


def lower() -> Iterator[Named]:
    """Packet, netlink and vsock sockets."""
    yield "packet", socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    cooked = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
    cooked.bind(("lo", 0x88B5))
    yield "cooked", cooked
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    link.bind((0, RTMGRP_LINK))
    yield "netlink", link
    with contextlib.suppress(OSError):
        vsock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        vsock.bind((socket.VMADDR_CID_ANY, 7420))
        vsock.listen()
        yield "vsock", vsock


def mptcp() -> Iterator[Named]:
    """A listener and a connection of multipath TCP, where the kernel has it."""
    with contextlib.suppress(OSError):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
        listener.bind((LOOPBACK, 7430))
        listener.listen()
        yield "mptcp", listener
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
        client.connect((LOOPBACK, 7430))
        yield "mptcp client", client
        yield "mptcp accepted", listener.accept()[0]


def sctp() -> Iterator[Named]:
    """A listener of SCTP, where the kernel has it."""
    with contextlib.suppress(OSError):
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_SCTP)
        listener.bind((LOOPBACK, 7440))
        listener.listen()
        yield "sctp", listener


def unix(folder: Path) -> Iterator[Named]:
    """Unix sockets of each type: with a path that is hostile to a terminal, with an abstract name, and pairs."""
    path = str(folder / HOSTILE_NAME)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(5)
    yield "unix", listener
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    yield "unix client", client
    yield "unix accepted", listener.accept()[0]
    waiting = socket.socket(socket.AF_UNIX)
    waiting.connect(path)
    yield "unix waiting", waiting
    abstract = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    abstract.bind(f"\0pktproc-{os.getpid()}")
    yield "abstract", abstract
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.connect(f"\0pktproc-{os.getpid()}")
    sender.send(b"x")
    yield "abstract client", sender
    for number, sock in enumerate(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)):
        yield f"pair {number}", sock


if __name__ == "__main__":
    main()
