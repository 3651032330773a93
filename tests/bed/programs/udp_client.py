"""Send UDP datagrams and wait for each echo; tell the local and remote ends; stay until standard input ends.

With `--paced` each datagram waits for a line on standard input.
"""

from __future__ import annotations

import argparse
import socket

from bed.programs.telling import add_socket_options, end, open_socket, tell, wait_for_line


def main() -> None:
    """Send as the options say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--bytes", type=int, default=32)
    parser.add_argument("--unconnected", action="store_true")
    parser.add_argument("--no-echo", action="store_true", help="do not wait for answers")
    parser.add_argument("--paced", action="store_true")
    parser.add_argument("--leave", action="store_true", help="end at once when done")
    add_socket_options(parser)
    options = parser.parse_args()
    sock, peer = open_socket(options, socket.SOCK_DGRAM, options.address)
    if not options.unconnected:
        sock.connect((peer, options.port))
        tell("ready", local=end(sock.getsockname()), remote=[options.address, options.port])
    for _ in range(options.count):
        if options.paced and not wait_for_line():
            return
        exchange(sock, (peer, options.port), options)
    tell("done", local=end(sock.getsockname()), remote=[options.address, options.port], count=options.count)
    if not options.leave:
        wait_for_line()


def exchange(sock: socket.socket, peer: tuple[str, int], options: argparse.Namespace) -> None:
    """Send one datagram and, unless told not to, take its echo."""
    data = bytes(options.bytes)
    try:
        if options.unconnected:
            sock.sendto(data, peer)
        else:
            sock.send(data)
        if not options.no_echo:
            sock.recv(65535)
    except ConnectionRefusedError:
        tell("refused")


if __name__ == "__main__":
    main()
