"""Send one packet of a protocol by a raw socket (raw(7)) when a line arrives on standard input."""

from __future__ import annotations

import argparse
import socket

from bed.programs.telling import family_of, tell, wait_for_line


def main() -> None:
    """Send it and wait for the end of standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("protocol", type=int)
    options = parser.parse_args()
    sock = socket.socket(family_of(options.address), socket.SOCK_RAW, options.protocol)
    tell("ready")
    wait_for_line()
    sock.sendto(b"an experiment", (options.address, 0))
    tell("sent")
    wait_for_line()


if __name__ == "__main__":
    main()
