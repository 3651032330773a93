"""Make so many connections to itself, one after another and so many a second; tell how many there were."""

from __future__ import annotations

import argparse
import socket
import sys
import time

from bed.programs.telling import tell, wait_for_line

RESET = (1).to_bytes(4, sys.byteorder) + bytes(4)  # struct linger: both ends are gone at once, no port stays taken


def main() -> None:
    """Begin when a line arrives on standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=1000)
    options = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", 0))
    tell("ready", port=listener.getsockname()[1])
    wait_for_line()
    begin = time.monotonic()
    for number in range(options.count):
        early = begin + number / options.rate - time.monotonic()
        if early > 0:
            time.sleep(early)
        with socket.create_connection(listener.getsockname()) as client, listener.accept()[0]:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    tell("done", connections=options.count)


if __name__ == "__main__":
    main()
