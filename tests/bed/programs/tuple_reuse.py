"""Two processes, one right after the other, use the very same addresses and ports; tell who sent how many packets."""

from __future__ import annotations

import argparse
import os
import socket
import struct

from bed.programs.leash import fork
from bed.programs.telling import end, family_of, tell, wait_for_line


def main() -> None:
    """Run the first process to its end and the second at once after it, when a line arrives on standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--source-port", type=int, required=True)
    parser.add_argument("--udp", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+", default=[101, 202], help="payload of each process in turn")
    parser.add_argument("--paced", action="store_true", help="each process stays until a line arrives")
    parser.add_argument("--count", type=int, default=5, help="payloads of each process")
    options = parser.parse_args()
    tell("ready")
    wait_for_line()
    for size in options.sizes:
        child = fork()
        if not child:
            use(options, size)
            os._exit(0)
        os.waitpid(child, 0)
    tell("done")
    wait_for_line()


def use(options: argparse.Namespace, size: int) -> None:
    """Be one of the processes: send and take back `count` payloads of `size` bytes."""
    kind = socket.SOCK_DGRAM if options.udp else socket.SOCK_STREAM
    with socket.socket(family_of(options.address), kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if not options.udp:
            # RST instead of FIN: no TIME_WAIT keeps the next process from the same tuple.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.bind(("", options.source_port))
        sock.connect((options.address, options.port))
        for _ in range(options.count):
            sock.sendall(bytes(size))
            sock.recv(size, socket.MSG_WAITALL)
        tell("used", local=end(sock.getsockname()), bytes=size, count=options.count)
        if options.paced:
            wait_for_line()


if __name__ == "__main__":
    main()
