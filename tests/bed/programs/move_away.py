"""Open a UDP socket, move to another network namespace, and use the socket from there."""

from __future__ import annotations

import argparse
import ctypes
import os
import socket
from pathlib import Path

from bed.programs.telling import end, tell, wait_for_line

CLONE_NEWNET = 0x40000000


def main() -> None:
    """Send and take one echo when a line arrives on standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("netns", type=Path, help="file of the namespace to move to")
    options = parser.parse_args()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((options.address, options.port))
    with options.netns.open() as file:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    tell("ready")
    wait_for_line()
    sock.send(b"from abroad")
    sock.recv(100)
    tell("done", local=end(sock.getsockname()), netns=Path("/proc/self/ns/net").stat().st_ino)
    wait_for_line()


if __name__ == "__main__":
    main()
