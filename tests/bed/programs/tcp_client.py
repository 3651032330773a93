"""Make one TCP connection, exchange bytes with an echo server, tell the ends; hold it until standard input ends.

With `--paced` each exchange waits for a line on standard input.
"""

from __future__ import annotations

import argparse
import socket
import struct

from bed.programs.telling import add_socket_options, end, open_socket, tell, wait_for_line


def main() -> None:
    """Connect as the options say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--count", type=int, default=1, help="exchanges")
    parser.add_argument("--bytes", type=int, default=64)
    parser.add_argument("--paced", action="store_true")
    parser.add_argument("--reset", action="store_true", help="end the connection by RST, without TIME_WAIT")
    parser.add_argument("--leave", action="store_true", help="end at once when done")
    add_socket_options(parser)
    options = parser.parse_args()
    sock, peer = open_socket(options, socket.SOCK_STREAM, options.address)
    if options.reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    try:
        sock.connect((peer, options.port))
    except (ConnectionRefusedError, TimeoutError) as error:
        tell("refused" if isinstance(error, ConnectionRefusedError) else "timed out", local=end(sock.getsockname()))
        wait_for_line()
        return
    tell("ready", local=end(sock.getsockname()), remote=end(sock.getpeername()))
    for _ in range(options.count):
        if options.paced and not wait_for_line():
            return
        exchange(sock, options.bytes)
    tell("done", local=end(sock.getsockname()), remote=end(sock.getpeername()))
    if not options.leave:
        wait_for_line()


def exchange(sock: socket.socket, count: int) -> None:
    """Send `count` bytes and take them back."""
    sock.sendall(bytes(count))
    left = count
    while left:
        left -= len(sock.recv(left)) or left


if __name__ == "__main__":
    main()
