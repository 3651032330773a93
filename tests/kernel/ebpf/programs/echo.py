"""A server of any transport protocol: it sends what comes back to where it came from."""

from __future__ import annotations

import argparse
import socket

from bed.programs.telling import family_of, tell, wait_for_line
from kernel.ebpf.programs.ways import kind_of


def main() -> None:
    """Answer one message and stay until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--protocol", type=int, default=socket.IPPROTO_TCP)
    options = parser.parse_args()
    kind = kind_of(options.protocol)
    sock = socket.socket(family_of(options.address), kind, options.protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((options.address, options.port))
    if kind == socket.SOCK_STREAM:
        sock.listen()
    tell("ready")
    if kind == socket.SOCK_STREAM:
        connection = sock.accept()[0]
        connection.sendall(connection.recv(1000))
    else:
        data, peer = sock.recvfrom(1000)
        sock.sendto(data, peer)
    wait_for_line()


if __name__ == "__main__":
    main()
