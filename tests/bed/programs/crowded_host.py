"""A host that is full of sockets: processes that each listen, talk to themselves and hold files; tell when all do.

Each process holds a listener, both ends of connections to it, datagram sockets and other files. Ends, with all
processes, when standard input does.
"""

from __future__ import annotations

import argparse
import os
import resource
import socket

from bed.programs.leash import fork
from bed.programs.telling import tell, wait_for_line

DATAGRAMS = 3


def main() -> None:
    """Start the processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=500)
    parser.add_argument("--connections", type=int, default=48, help="of each process, which holds both ends")
    parser.add_argument("--files", type=int, default=18, help="of each process, beside its sockets")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    reports, channel = os.pipe()
    held, release = os.pipe()
    for _ in range(options.processes):
        if not fork():
            os.close(release)
            os.close(reports)
            be_busy(options, channel, held)
    left = options.processes
    while left:
        left -= len(os.read(reports, left))
    sockets = 2 * options.connections + 1 + DATAGRAMS
    tell("ready", sockets=options.processes * sockets, processes=options.processes)
    wait_for_line()


def be_busy(options: argparse.Namespace, channel: int, held: int) -> None:
    """Hold sockets and files until the parent ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    kept = [listener]
    for _ in range(options.connections):
        kept.append(socket.create_connection(listener.getsockname()))
        kept.append(listener.accept()[0])
    for _ in range(DATAGRAMS):
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagram.bind(("127.0.0.1", 0))
        kept.append(datagram)
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(options.files)]
    os.write(channel, b".")
    os.read(held, 1)
    os._exit(len(files) & len(kept) & 0)


if __name__ == "__main__":
    main()
