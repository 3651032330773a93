"""Send raw frames, given as hexadecimal lines on standard input, out of an interface by a packet socket."""

from __future__ import annotations

import argparse
import socket
import sys

from bed.programs.telling import tell


def main() -> None:
    """Send each line and tell its size; end with standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("interface")
    options = parser.parse_args()
    # Protocol 0: the socket receives nothing.
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind((options.interface, 0))
    tell("ready")
    for line in sys.stdin:
        frame = bytes.fromhex(line)
        tell("sent", bytes=sock.send(frame))


if __name__ == "__main__":
    main()
