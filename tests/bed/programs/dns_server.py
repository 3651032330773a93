"""Answer every DNS question (RFC 1035): type A with one address, anything else with no records."""

from __future__ import annotations

import argparse
import socket
import struct
import time

from bed.programs.telling import end, tell

TYPE_A = 1


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("answer", help="IPv4 address that every name has")
    parser.add_argument("--delay-ms", type=float, default=0, help="how long an answer takes, as over a network")
    options = parser.parse_args()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((options.address, 53))
    tell("ready", local=end(sock.getsockname()))
    while True:
        query, client = sock.recvfrom(512)
        time.sleep(options.delay_ms / 1000)
        sock.sendto(reply(query, socket.inet_aton(options.answer)), client)
        tell("query", remote=end(client))


def reply(query: bytes, address: bytes) -> bytes:
    """Return the response to a query with one question (RFC 1035 section 4.1)."""
    name_end = query.index(b"\0", 12) + 1
    question = query[12 : name_end + 4]
    (kind,) = struct.unpack_from("!H", query, name_end)
    answers = 1 if kind == TYPE_A else 0
    header = query[:2] + struct.pack("!HHHHH", 0x8580, 1, answers, 0, 0)
    record = b"\xc0\x0c" + struct.pack("!HHIH", TYPE_A, 1, 60, 4) + address
    return header + question + record * answers


if __name__ == "__main__":
    main()
