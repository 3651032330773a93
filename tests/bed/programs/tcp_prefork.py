"""A pre-fork TCP server: every worker accepts on the listening socket that it inherited and tells whom it served."""

from __future__ import annotations

import argparse
import socket

from bed.programs.leash import fork
from bed.programs.telling import end, family_of, tell, wait_for_line


def main() -> None:
    """Serve until standard input ends; the workers end with their parent."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--workers", type=int, default=4)
    options = parser.parse_args()
    listener = socket.socket(family_of(options.address), socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((options.address, options.port))
    listener.listen(1024)
    workers = [start_worker(listener) for _ in range(options.workers)]
    tell("ready", local=end(listener.getsockname()), workers=workers)
    wait_for_line()


def start_worker(listener: socket.socket) -> int:
    """Fork a worker and return its pid."""
    worker = fork()
    if not worker:
        while True:
            serve(*listener.accept())
    return worker


def serve(connection: socket.socket, remote: tuple[str, int]) -> None:
    """Echo until the peer closes."""
    tell("accepted", local=end(connection.getsockname()), remote=end(remote))
    with connection:
        while data := connection.recv(65536):
            connection.sendall(data)


if __name__ == "__main__":
    main()
