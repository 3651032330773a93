"""Swallow TCP streams and UDP datagrams on one port, in one process; tell how much each stream brought."""

from __future__ import annotations

import argparse
import selectors
import socket

from bed.programs.telling import end, family_of, tell


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    selector = selectors.DefaultSelector()
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        sock = socket.socket(family_of(options.address), kind)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((options.address, options.port))
        if kind == socket.SOCK_STREAM:
            sock.listen(1024)
        selector.register(sock, selectors.EVENT_READ, kind)
    tell("ready", local=[options.address, options.port])
    received: dict[int, int] = {}
    while True:
        for key, _ in selector.select():
            sock = key.fileobj  # type: ignore[assignment]
            if key.data == socket.SOCK_STREAM:
                connection, _ = sock.accept()
                received[connection.fileno()] = 0
                selector.register(connection, selectors.EVENT_READ)
            elif key.data == socket.SOCK_DGRAM:
                sock.recv(65535)
            else:
                take(sock, selector, received)


def take(connection: socket.socket, selector: selectors.BaseSelector, received: dict[int, int]) -> None:
    """Read what is there; at the end of a stream tell how much it was."""
    data = connection.recv(1 << 20)
    received[connection.fileno()] += len(data)
    if not data:
        selector.unregister(connection)
        tell("received", remote=end(connection.getpeername()), bytes=received[connection.fileno()])
        connection.close()


if __name__ == "__main__":
    main()
