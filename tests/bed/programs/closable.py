"""Hold a socket of some kind; tell when the kernel takes it away, and with which error.

Ends when standard input does, or when a signal that it waits for came, which it tells.
"""

from __future__ import annotations

import argparse
import errno
import os
import select
import signal
import socket
import sys

from bed.programs.leash import fork
from bed.programs.telling import family_of, tell, wait_for_line


def main() -> None:
    """Open the socket, share it with children if there are to be any, and wait."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["udp", "udp-connected", "tcp-listener", "tcp-client", "unix"])
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--share", type=int, default=0, help="so many children hold the socket, too")
    parser.add_argument("--tell-signals", action="store_true", help="tell of HUP and USR1 instead of ending by them")
    options = parser.parse_args()
    sock = opened(options.kind, options.address, options.port)
    children = []
    for _ in range(options.share):
        child = fork()
        if not child:
            while True:
                signal.pause()
        children.append(child)
    if options.tell_signals:
        for number in (signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, lambda came, _: tell("signal", name=signal.Signals(came).name))
    tell("ready", inode=os.fstat(sock.fileno()).st_ino, children=children)
    wait(sock)


def opened(kind: str, address: str, port: int) -> socket.socket:
    """Return the socket."""
    if kind == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(address)
        sock.listen()
        return sock
    family = family_of(address)
    if kind == "tcp-client":
        return socket.create_connection((address, port))
    if kind == "tcp-listener":
        return socket.create_server((address, port), family=family)
    sock = socket.socket(family, socket.SOCK_DGRAM)
    if kind == "udp":
        sock.bind((address, port))
    else:
        sock.connect((address, port))
    return sock


def wait(sock: socket.socket) -> None:
    """Wait for what happens to the socket or to standard input."""
    waiting = select.poll()
    waiting.register(sys.stdin.fileno(), select.POLLIN)
    waiting.register(sock.fileno(), 0)  # errors alone
    for descriptor, _ in waiting.poll():
        if descriptor == sock.fileno():
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            tell("taken", error=errno.errorcode.get(code, str(code)))
    wait_for_line()


if __name__ == "__main__":
    main()
