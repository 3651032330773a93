"""Take datagrams that are sent to a multicast group, or to a broadcast address; tell each one's sender."""

from __future__ import annotations

import argparse
import socket
import struct

from bed.programs.telling import end, family_of, tell


def main() -> None:
    """Listen until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("interface")
    parser.add_argument("address", help="the group, or the wildcard to take broadcasts")
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    family = family_of(options.address)
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((options.address, options.port))
    index = socket.if_nametoindex(options.interface)
    group = socket.inet_pton(family, options.address)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group + struct.pack("@I", index))
    elif any(group):
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("@4s4si", group, bytes(4), index))
    tell("ready")
    while True:
        data, sender = sock.recvfrom(65535)
        tell("datagram", remote=end(sender), bytes=len(data))


if __name__ == "__main__":
    main()
