"""Hold a raw ICMP socket and do nothing: a bystander of everybody's ICMP."""

from __future__ import annotations

import socket

from bed.programs.telling import tell, wait_for_line


def main() -> None:
    """Hold the sockets until standard input ends."""
    v4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    v6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    tell("ready", sockets=[v4.fileno(), v6.fileno()])
    wait_for_line()


if __name__ == "__main__":
    main()
