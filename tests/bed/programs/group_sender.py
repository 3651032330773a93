"""Send a datagram to a multicast group or a broadcast address at each line on standard input; tell the local port."""

from __future__ import annotations

import argparse
import socket

from bed.programs.telling import family_of, tell, wait_for_line


def main() -> None:
    """Send until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("interface")
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    family = family_of(options.address)
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, options.interface.encode())
    sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
    tell("ready", port=sock.getsockname()[1])
    while wait_for_line():
        sock.sendto(b"to all", (options.address, options.port))
        tell("sent")


if __name__ == "__main__":
    main()
