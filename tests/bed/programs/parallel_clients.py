"""Fork many TCP clients and let all of them connect at the same moment; tell each one's pid and ends."""

from __future__ import annotations

import argparse
import os
import socket

from bed.programs.leash import fork
from bed.programs.telling import end, family_of, tell, wait_for_line


def main() -> None:
    """Start the clients; end, with all of them, when standard input does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--exchanges", type=int, default=3)
    options = parser.parse_args()
    start, go = os.pipe()
    held, release = os.pipe()
    for _ in range(options.clients):
        if not fork():
            os.close(go)
            os.close(release)
            os.read(start, 1)
            with client(options):
                os.read(held, 1)
            os._exit(0)
    os.close(go)
    wait_for_line()
    os.close(release)
    for _ in range(options.clients):
        os.wait()


def client(options: argparse.Namespace) -> socket.socket:
    """Connect, exchange bytes, tell; return the open connection."""
    sock = socket.socket(family_of(options.address), socket.SOCK_STREAM)
    sock.connect((options.address, options.port))
    for _ in range(options.exchanges):
        sock.sendall(b"x" * 64)
        sock.recv(64, socket.MSG_WAITALL)
    tell("client", local=end(sock.getsockname()), remote=end(sock.getpeername()))
    return sock


if __name__ == "__main__":
    main()
