"""Fork a process for each number of bytes, all at once; each sends so many and tells its pid and ends.

With `--udp` they are sent as datagrams of 997 bytes, the last one shorter. Processes and sockets stay until standard
input ends.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import socket
import sys
import termios
import time

from bed.programs.leash import fork
from bed.programs.telling import end, family_of, tell, wait_for_line

DATAGRAM_BYTES = 997


def main() -> None:
    """Start the senders; end, with all of them, when standard input does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("bytes", type=int, nargs="+")
    parser.add_argument("--udp", action="store_true")
    options = parser.parse_args()
    held, release = os.pipe()
    for size in options.bytes:
        if not fork():
            os.close(release)
            send(options, size)
            os.read(held, 1)
            os._exit(0)
    wait_for_line()
    os.close(release)
    for _ in options.bytes:
        os.wait()


def send(options: argparse.Namespace, size: int) -> None:
    """Send so many bytes, tell it when all of them have arrived, and leave the socket open."""
    kind = socket.SOCK_DGRAM if options.udp else socket.SOCK_STREAM
    sock = socket.socket(family_of(options.address), kind)
    sock.connect((options.address, options.port))
    local = end(sock.getsockname())
    if options.udp:
        for begin in range(0, size, DATAGRAM_BYTES):
            sock.send(bytes(min(DATAGRAM_BYTES, size - begin)))
    else:
        sock.sendall(bytes(size))
        while unacknowledged(sock):
            time.sleep(0.001)
    tell("sent", local=local, bytes=size)
    sock.detach()


def unacknowledged(sock: socket.socket) -> int:
    """Return how many bytes the peer has not acknowledged yet (tcp(7), SIOCOUTQ)."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


if __name__ == "__main__":
    main()
