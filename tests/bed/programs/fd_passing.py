"""A socket changes hands: its creator passes it over a unix socket and is gone; the receiver goes on with it.

Waits for a line on standard input before the connection is made, before it is passed and before each time that the
receiver uses it.
"""

from __future__ import annotations

import argparse
import os
import socket

from bed.programs.leash import fork
from bed.programs.telling import end, family_of, tell, wait_for_line


def main() -> None:
    """Be the receiver; the creator is a child that never shares a socket with it but by passing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--udp", action="store_true")
    parser.add_argument("--uses", type=int, default=2)
    options = parser.parse_args()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    wait_for_line()
    creator = fork()
    if not creator:
        ours.close()
        create(options, theirs)
        os._exit(0)
    theirs.close()
    facts = ours.recv(4096)
    tell("created", creator=creator, local=end(parse_name(facts)))
    wait_for_line()
    ours.sendall(b"pass")
    _, descriptors, _, _ = socket.recv_fds(ours, 16, 1)
    os.waitpid(creator, 0)
    tell("passed", creator=creator)
    with socket.socket(fileno=descriptors[0]) as sock:
        for _ in range(options.uses):
            wait_for_line()
            exchange(sock)
            tell("used", local=end(sock.getsockname()))
        wait_for_line()


def parse_name(facts: bytes) -> tuple[str, int]:
    """Return the socket name that the creator reported."""
    address, port = facts.decode().rsplit(" ", 1)
    return address, int(port)


def create(options: argparse.Namespace, channel: socket.socket) -> None:
    """Be the creator: connect, exchange once, report, pass the socket on."""
    kind = socket.SOCK_DGRAM if options.udp else socket.SOCK_STREAM
    with socket.socket(family_of(options.address), kind) as sock:
        sock.connect((options.address, options.port))
        exchange(sock)
        name = sock.getsockname()
        channel.sendall(f"{name[0]} {name[1]}".encode())
        channel.recv(4)
        socket.send_fds(channel, [b"fd"], [sock.fileno()])


def exchange(sock: socket.socket) -> None:
    """Send bytes and take their echo."""
    sock.sendall(b"x" * 100)
    sock.recv(100)


if __name__ == "__main__":
    main()
