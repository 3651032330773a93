"""Echo TCP streams, any number at once, in one process; tell each connection accepted."""

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
    parser.add_argument("--dual", action="store_true", help="take IPv4 on an IPv6 socket")
    parser.add_argument("--reuseport", action="store_true")
    options = parser.parse_args()
    listener = socket.socket(family_of(options.address), socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if options.reuseport:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if options.dual:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind((options.address, options.port))
    listener.listen(1024)
    tell("ready", local=end(listener.getsockname()))
    serve(listener)


def serve(listener: socket.socket) -> None:
    """Accept and echo for ever."""
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            ready = key.fileobj
            assert isinstance(ready, socket.socket)
            if ready is listener:
                connection, remote = listener.accept()
                tell("accepted", local=end(connection.getsockname()), remote=end(remote))
                selector.register(connection, selectors.EVENT_READ)
            elif not echo(ready):
                selector.unregister(ready)
                ready.close()


def echo(connection: socket.socket) -> bool:
    """Send back what arrived; return False when the peer is gone."""
    try:
        data = connection.recv(65536)
        connection.sendall(data)
    except ConnectionError:
        return False
    return bool(data)


if __name__ == "__main__":
    main()
