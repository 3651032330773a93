"""Echo UDP datagrams; tell each one's sender. `--silent` swallows them untold."""

from __future__ import annotations

import argparse
import socket

from bed.programs.telling import end, family_of, tell, wait_for_line

SO_RCVBUFFORCE = 33
RECEIVE_BYTES = 32 << 20


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--reuseport", action="store_true")
    parser.add_argument("--dual", action="store_true", help="take IPv4 on an IPv6 socket")
    parser.add_argument("--silent", action="store_true", help="bind and never read")
    parser.add_argument("--roomy", action="store_true", help="lose nothing while the machine stands still for a moment")
    options = parser.parse_args()
    sock = socket.socket(family_of(options.address), socket.SOCK_DGRAM)
    if options.reuseport:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if options.dual:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    if options.roomy:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BYTES)
    sock.bind((options.address, options.port))
    tell("ready", local=end(sock.getsockname()))
    if options.silent:
        wait_for_line()
        return
    while True:
        data, sender = sock.recvfrom(65535)
        sock.sendto(data, sender)
        tell("datagram", remote=end(sender), bytes=len(data))


if __name__ == "__main__":
    main()
