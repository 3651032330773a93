"""A process that changes before it sends: it begins another program, takes another name, or moves to another cgroup."""

from __future__ import annotations

import argparse
import ctypes
import os
import socket
import sys
from pathlib import Path

from bed.programs.telling import family_of, tell, wait_for_line

PR_SET_NAME = 15
DATA = bytes(100)
SEND = f"import os; os.write(0, bytes({len(DATA)}))"


def main() -> None:
    """Connect, wait for a line, change, send, end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("change", choices=["exec", "rename", "cgroup", "exit"])
    parser.add_argument("--cgroup", type=Path)
    options = parser.parse_args()
    sock = socket.socket(family_of(options.address), socket.SOCK_DGRAM)
    sock.connect((options.address, options.port))
    tell("ready")
    wait_for_line()
    if options.change == "exec":
        os.dup2(sock.fileno(), 0)
        os.execv(sys.executable, ["another-program", "-S", "-c", SEND])
    if options.change == "rename":
        ctypes.CDLL(None).prctl(PR_SET_NAME, b"another name", 0, 0, 0)
    if options.cgroup:
        (options.cgroup / "cgroup.procs").write_text("0")
    sock.send(DATA)


if __name__ == "__main__":
    main()
