"""Start short-lived processes one after another, each with one TCP connection; tell each one's pid and source port.

A process lives `--life-ms` from its fork to its exit, or as long as the connection takes when that is more. Its
connection is closed by its exit.
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import time

from bed.programs.telling import family_of, tell, wait_for_line

REPORT = struct.Struct("=Hq")


def main() -> None:
    """Run the storm when a line arrives on standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--life-ms", type=float, default=20)
    options = parser.parse_args()
    family = family_of(options.address)
    life_ns = int(options.life_ms * 1e6)
    reports, channel = os.pipe()
    tell("ready")
    wait_for_line()
    lives: list[int] = []
    for _ in range(options.count):
        born_ns = time.monotonic_ns()
        child = os.fork()
        if not child:
            live(family, (options.address, options.port), channel, born_ns + life_ns)
        os.waitpid(child, 0)
        port, died_ns = REPORT.unpack(os.read(reports, REPORT.size))
        lives.append(died_ns - born_ns)
        tell("child", child=child, port=port)
    lives.sort()
    tell("done", median_life_ms=lives[len(lives) // 2] / 1e6, longest_life_ms=lives[-1] / 1e6)
    wait_for_line()


def live(family: socket.AddressFamily, server: tuple[str, int], channel: int, until_ns: int) -> None:
    """Be one short-lived process."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.connect(server)
    remaining_ns = until_ns - time.monotonic_ns()
    if remaining_ns > 0:
        time.sleep(remaining_ns / 1e9)
    os.write(channel, REPORT.pack(sock.getsockname()[1], time.monotonic_ns()))
    os._exit(0)


if __name__ == "__main__":
    main()
