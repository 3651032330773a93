"""Ping without privileges: an ICMP datagram socket (icmp(7)), whose local port is the echo id."""

from __future__ import annotations

import argparse
import socket
import struct

from bed.programs.telling import tell, wait_for_line

ECHO_REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}


def main() -> None:
    """Send echo requests, take the replies, tell the id; stay until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--bytes", type=int, default=32)
    options = parser.parse_args()
    family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
    protocol = socket.IPPROTO_ICMPV6 if family == socket.AF_INET6 else socket.IPPROTO_ICMP
    sock = socket.socket(family, socket.SOCK_DGRAM, protocol)
    sock.connect((options.address, 0))
    for sequence in range(options.count):
        sock.send(struct.pack("!BBHHH", ECHO_REQUEST[family], 0, 0, 0, sequence) + bytes(options.bytes))
        sock.recv(1000)
    tell("done", id=sock.getsockname()[1], count=options.count)
    wait_for_line()


if __name__ == "__main__":
    main()
