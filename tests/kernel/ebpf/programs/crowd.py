"""Start short-lived processes, many at a time, with one connection or datagram each; tell each one's pid and port.

A process ends as soon as it has sent, or with `--listen` as soon as it listens at the address, of UDP as soon as it has
received there, or with `--refused` as soon as its connection is refused. With `--port` the first is bound to that port,
the next to the one after, so that no two share one.
"""

from __future__ import annotations

import argparse
import errno
import os
import socket
import struct
from pathlib import Path

from bed.programs.telling import family_of, tell, wait_for_line

REPORT = struct.Struct("=iH")


def main() -> None:
    """Let the crowd loose when a line arrives on standard input."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("server_port", type=int)
    parser.add_argument("--udp", action="store_true")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--parallel", type=int, default=1)
    parser.add_argument("--packets", type=int, default=1)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--wait", action="store_true", help="take an answer to each packet")
    parser.add_argument("--listen", action="store_true")
    parser.add_argument("--refused", action="store_true")
    parser.add_argument("--named", action="store_true", help="each has a name of its own, one-0 and so on")
    options = parser.parse_args()
    reports, channel = os.pipe()
    tell("ready")
    wait_for_line()
    begun = ended = 0
    while ended < options.count:
        while begun < options.count and begun - ended < options.parallel:
            if not os.fork():
                if options.named:
                    Path("/proc/self/comm").write_text(f"one-{begun}")
                live(options, channel, options.port and options.port + begun)
            begun += 1
        os.wait()
        ended += 1
        pid, port = REPORT.unpack(os.read(reports, REPORT.size))
        tell("child", child=pid, port=port)
    tell("done")
    wait_for_line()


def live(options: argparse.Namespace, channel: int, port: int) -> None:
    """Be one of the crowd."""
    kind = socket.SOCK_DGRAM if options.udp else socket.SOCK_STREAM
    sock = socket.socket(family_of(options.address), kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if options.listen:
        sock.bind((options.address, port))
        if options.udp:
            socket.socket(sock.family, kind).sendto(b"x", sock.getsockname())
            sock.recv(1)
        else:
            sock.listen()
    else:
        if port:
            sock.bind(("::" if ":" in options.address else "0.0.0.0", port))
        error = sock.connect_ex((options.address, options.server_port))
        assert error == (errno.ECONNREFUSED if options.refused else 0)
    os.write(channel, REPORT.pack(os.getpid(), sock.getsockname()[1]))
    for _ in range(0 if options.listen or options.refused else options.packets):
        sock.send(b"x")
        if options.wait:
            sock.recv(1)
    os._exit(0)


if __name__ == "__main__":
    main()
