"""What the programs share: telling, waiting to be told, and opening sockets as their options say."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
from typing import Any


def tell(event: str, **facts: Any) -> None:
    """Print one JSON object: the event, this process's pid, the facts. One write, so forks may share."""
    line = json.dumps({"event": event, "pid": os.getpid(), **facts}) + "\n"
    os.write(sys.stdout.fileno(), line.encode())


def wait_for_line() -> bool:
    """Wait for a line on standard input; return False at its end."""
    return bool(sys.stdin.readline())


def end(name: tuple[Any, ...]) -> list[Any]:
    """Return `[address, port]` of a socket name, IPv4-mapped addresses as the IPv4 address that is on the wire."""
    return [name[0].removeprefix("::ffff:"), name[1]]


def family_of(address: str) -> socket.AddressFamily:
    """Return the address family of a numeric address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def add_socket_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `open_socket` understands."""
    parser.add_argument("--bind", default="", help="local address, the wildcard when empty")
    parser.add_argument("--source-port", type=int, default=0)
    parser.add_argument("--reuseport", action="store_true")
    parser.add_argument("--mapped", action="store_true", help="use an IPv6 socket for an IPv4 peer")


def open_socket(options: argparse.Namespace, kind: socket.SocketKind, peer: str) -> tuple[socket.socket, str]:
    """Return a socket for `peer`, bound as the options say, and the peer's address in the socket's family."""
    family = socket.AF_INET6 if options.mapped else family_of(peer)
    sock = socket.socket(family, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if options.reuseport:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if options.bind or options.source_port:
        sock.bind((options.bind, options.source_port))
    return sock, f"::ffff:{peer}" if options.mapped else peer
