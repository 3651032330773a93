"""Send UDP datagrams from a thread that has a name of its own."""

from __future__ import annotations

import argparse
import ctypes
import socket
import threading
from pathlib import Path

from bed.programs.telling import end, tell, wait_for_line

PR_SET_NAME = 15


def main() -> None:
    """Send from the thread and tell the names of the process and of the thread as the kernel has them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--name", default="the-process")
    parser.add_argument("--thread-name", default="the-thread")
    options = parser.parse_args()
    set_name(options.name)
    thread = threading.Thread(target=send, args=(options,))
    thread.start()
    thread.join()
    wait_for_line()


def set_name(name: str) -> None:
    """Set the calling thread's comm."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode(errors="surrogateescape"), 0, 0, 0)


def send(options: argparse.Namespace) -> None:
    """Be the thread: it makes the socket, uses it and stays."""
    set_name(options.thread_name)
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((options.address, options.port))
    for _ in range(3):
        sock.send(b"from a thread")
        sock.recv(100)
    tell(
        "done",
        local=end(sock.getsockname()),
        process_name=Path("/proc/self/comm").read_text(errors="surrogateescape").removesuffix("\n"),
        thread_name=Path("/proc/thread-self/comm").read_text(errors="surrogateescape").removesuffix("\n"),
    )
    wait_for_line()


if __name__ == "__main__":
    main()
