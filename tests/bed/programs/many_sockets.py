"""A host in small: many processes that hold connections to one server and a datagram socket each; tell when all do.

With `--churn N` one of the processes also makes N connections a second, each of which it holds for `--hold` seconds.
Ends, with all processes, when standard input does.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import time
from collections import deque

from bed.programs.leash import fork
from bed.programs.telling import tell, wait_for_line

SERVER = ("127.0.0.1", 7999)


def main() -> None:
    """Start the server and its clients."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=300)
    parser.add_argument("--connections", type=int, default=3, help="of each process; the server holds as many")
    parser.add_argument("--churn", type=float, default=0)
    parser.add_argument("--hold", type=float, default=2)
    options = parser.parse_args()
    listener = socket.create_server(SERVER, backlog=4096)
    reports, channel = os.pipe()
    held, release = os.pipe()
    for _ in range(options.processes):
        if not fork():
            os.close(release)
            listener.close()
            be_client(options.connections, channel, held)
    if not fork():
        os.close(release)
        serve(listener)
    if options.churn and not fork():
        os.close(release)
        listener.close()
        churn(options.churn, options.hold)
    left = options.processes
    while left:
        left -= len(os.read(reports, left))
    tell("ready", sockets=options.processes * (2 * options.connections + 1) + 1, processes=options.processes + 1)
    wait_for_line()


def be_client(connections: int, channel: int, held: int) -> None:
    """Hold connections and a datagram socket until the parent ends."""
    sockets = [socket.create_connection(SERVER) for _ in range(connections)]
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagram.bind(("127.0.0.1", 0))
    for sock in sockets:
        sock.sendall(b"x")
        sock.recv(1)
    os.write(channel, b".")
    os.read(held, 1)
    os._exit(0)


def churn(rate: float, hold_s: float) -> None:
    """Make connections for ever, each held for a while."""
    open_until: deque[tuple[float, socket.socket]] = deque()
    while True:
        now = time.monotonic()
        open_until.append((now + hold_s, socket.create_connection(SERVER)))
        while open_until[0][0] <= now:
            open_until.popleft()[1].close()
        time.sleep(1 / rate)


def serve(listener: socket.socket) -> None:
    """Echo for ever; say nothing."""
    polled = select.epoll()
    polled.register(listener, select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    while True:
        for descriptor, _ in polled.poll():
            if descriptor == listener.fileno():
                connection, _ = listener.accept()
                connections[connection.fileno()] = connection
                polled.register(connection, select.EPOLLIN)
            elif data := connections[descriptor].recv(4096):
                connections[descriptor].sendall(data)
            else:
                polled.unregister(descriptor)
                connections.pop(descriptor).close()


if __name__ == "__main__":
    main()
