"""Open and close sockets without end, a thousand at a time: connections to a listener, and datagram sockets."""

from __future__ import annotations

import argparse
import resource
import socket

from bed.programs.telling import tell

AT_A_TIME = 250


def main() -> None:
    """Go on for so many rounds, or until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    listener = socket.create_server(("127.0.0.1", 0), backlog=AT_A_TIME)
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind(("127.0.0.1", 0))
    tell("ready", tcp=listener.getsockname()[1], udp=bound.getsockname()[1])
    for _ in range(options.rounds):
        opened = []
        for _ in range(AT_A_TIME):
            opened.append(socket.create_connection(listener.getsockname()))
            opened.append(listener.accept()[0])
            datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            datagram.connect(bound.getsockname())
            opened.append(datagram)
        for sock in opened:
            # Reset instead of TIME_WAIT, which would use up the ports.
            if sock.type == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            sock.close()


if __name__ == "__main__":
    main()
