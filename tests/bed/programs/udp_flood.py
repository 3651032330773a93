"""Send small UDP datagrams at a steady high rate with sendmmsg(2); tell how many left and how long it took.

Flows are spread over `--sources` sockets and `--ports` destination ports: sources x ports distinct flows, visited in
turn. Starts when a line arrives on standard input.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import socket
import time

from bed.programs.telling import end, tell, wait_for_line


class IoVec(ctypes.Structure):
    """`struct iovec`."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class MsgHdr(ctypes.Structure):
    """`struct msghdr`."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class MMsgHdr(ctypes.Structure):
    """`struct mmsghdr`."""

    _fields_ = (("header", MsgHdr), ("sent", ctypes.c_uint32))


class SockAddrIn(ctypes.Structure):
    """`struct sockaddr_in`; port and address in network order."""

    _fields_ = (
        ("family", ctypes.c_uint16),
        ("port", ctypes.c_uint8 * 2),
        ("address", ctypes.c_uint8 * 4),
        ("zero", ctypes.c_uint8 * 8),
    )


class Messages:
    """Datagrams prepared for sendmmsg(2), one after another to each destination port in turn."""

    def __init__(self, address: str, first_port: int, ports: int, payload_bytes: int, at_least: int) -> None:
        self.count = ports * -(-at_least // ports)
        self._payload = ctypes.create_string_buffer(payload_bytes)
        self._iov = IoVec(ctypes.addressof(self._payload), payload_bytes)
        self._names = (SockAddrIn * ports)()
        for index in range(ports):
            port = (first_port + index).to_bytes(2, "big")
            packed = socket.inet_aton(address)
            self._names[index] = SockAddrIn(socket.AF_INET, tuple(port), tuple(packed))
        self._headers = (MMsgHdr * self.count)()
        names, name_bytes = ctypes.addressof(self._names), ctypes.sizeof(SockAddrIn)
        for index in range(self.count):
            header = self._headers[index].header
            header.name, header.name_length = names + index % ports * name_bytes, name_bytes
            header.iov, header.iov_length = ctypes.addressof(self._iov), 1
        self._sendmmsg = ctypes.CDLL(None, use_errno=True).sendmmsg

    def send(self, sock: socket.socket, first: int, count: int) -> int:
        """Send `count` messages from index `first` on and return how many the kernel took."""
        start = ctypes.byref(self._headers, first * ctypes.sizeof(MMsgHdr))
        sent: int = self._sendmmsg(sock.fileno(), start, count, 0)
        if sent < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return sent


def main() -> None:
    """Flood as the options say."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=int, default=200_000, help="packets a second; 0 for as fast as it goes")
    parser.add_argument("--count", type=int, required=True, help="packets in all")
    parser.add_argument("--bytes", type=int, default=18, help="payload of a packet")
    parser.add_argument("--sources", type=int, default=1)
    parser.add_argument("--ports", type=int, default=1)
    parser.add_argument("--burst", type=int, default=64, help="packets of one system call")
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, options.sources + 64)), hard))
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(options.sources)]
    for sock in sockets:
        sock.bind(("", 0))
    messages = Messages(options.address, options.port, options.ports, options.bytes, options.burst)
    tell("ready", sources=[end(sock.getsockname())[1] for sock in sockets])
    wait_for_line()
    started_ns = time.monotonic_ns()
    sent = flood(messages, sockets, options)
    elapsed_ns = time.monotonic_ns() - started_ns
    tell("done", sent=sent, seconds=elapsed_ns / 1e9, rate=sent * 1e9 / elapsed_ns)
    wait_for_line()


def flood(messages: Messages, sockets: list[socket.socket], options: argparse.Namespace) -> int:
    """Send until the count is reached, never ahead of the rate; return the packets sent."""
    sent = position = turn = 0
    interval_ns = 1e9 / options.rate if options.rate else 0.0
    started_ns = time.monotonic_ns()
    while sent < options.count:
        early_ns = started_ns + sent * interval_ns - time.monotonic_ns()
        if early_ns > 0:
            time.sleep(early_ns / 1e9)
        burst = min(options.burst, options.count - sent, messages.count - position)
        taken = messages.send(sockets[turn], position, burst)
        sent += taken
        position += taken
        if position == messages.count:
            position, turn = 0, (turn + 1) % len(sockets)
    return sent


if __name__ == "__main__":
    main()
