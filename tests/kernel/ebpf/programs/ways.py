"""A socket that a parent connects and a child uses, in one of the ways there are to send and to receive.

The parent never sends or receives a byte. Waits for a line on standard input before the child uses the socket.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import socket
import tempfile
from collections.abc import Callable

from bed.programs.leash import fork
from bed.programs.telling import end, family_of, tell, wait_for_line
from kernel.ebpf.programs import uring

SO_ZEROCOPY = 60
MSG_ZEROCOPY = 0x4000000
MPTCP = 262
STREAMS = (socket.IPPROTO_TCP, MPTCP)
DATA = bytes(100)


class Vector(ctypes.Structure):
    """`struct iovec`."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class Message(ctypes.Structure):
    """`struct mmsghdr` (sendmmsg(2))."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_bytes", ctypes.c_uint32),
        ("vectors", ctypes.POINTER(Vector)),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_bytes", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("bytes", ctypes.c_uint),
    )


def several(call: Callable[..., int], sock: socket.socket) -> None:
    """Send or receive one message with the call for several."""
    buffer = ctypes.create_string_buffer(len(DATA))
    vector = Vector(ctypes.addressof(buffer), len(DATA))
    message = Message(vectors=ctypes.pointer(vector), vector_count=1)
    arguments = (sock.fileno(), ctypes.byref(message), 1, 0)
    assert call(*arguments, None) == 1 if call.__name__ == "recvmmsg" else call(*arguments) == 1


def by_sendfile(sock: socket.socket) -> None:
    """Send a file."""
    with tempfile.TemporaryFile() as file:
        file.write(DATA)
        file.flush()
        assert os.sendfile(sock.fileno(), file.fileno(), 0, len(DATA)) == len(DATA)


def by_splice(sock: socket.socket) -> None:
    """Send from a pipe."""
    out, into = os.pipe()
    os.write(into, DATA)
    assert os.splice(out, sock.fileno(), len(DATA)) == len(DATA)


def into_pipe(sock: socket.socket) -> None:
    """Receive into a pipe."""
    _, into = os.pipe()
    assert os.splice(sock.fileno(), into, len(DATA)) > 0


def without_copy(sock: socket.socket) -> None:
    """Send with MSG_ZEROCOPY."""
    sock.setsockopt(socket.SOL_SOCKET, SO_ZEROCOPY, 1)
    sock.send(DATA, MSG_ZEROCOPY)


def by_ring(sock: socket.socket) -> None:
    """Send with io_uring."""
    assert uring.transfer(uring.SEND, sock.fileno(), ctypes.create_string_buffer(DATA, len(DATA))) == len(DATA)


def from_ring(sock: socket.socket) -> None:
    """Receive with io_uring."""
    assert uring.transfer(uring.RECEIVE, sock.fileno(), ctypes.create_string_buffer(len(DATA))) > 0


def kind_of(protocol: int) -> int:
    """Return the type of sockets of a protocol."""
    return socket.SOCK_STREAM if protocol in STREAMS else socket.SOCK_DGRAM


LIBC = ctypes.CDLL(None)
SEND: dict[str, Callable[[socket.socket], object]] = {
    "write": lambda sock: os.write(sock.fileno(), DATA),
    "sendmsg": lambda sock: sock.sendmsg([DATA]),
    "sendmmsg": lambda sock: several(LIBC.sendmmsg, sock),
    "sendfile": by_sendfile,
    "splice": by_splice,
    "zerocopy": without_copy,
    "io_uring": by_ring,
}
RECEIVE: dict[str, Callable[[socket.socket], object]] = {
    "read": lambda sock: os.read(sock.fileno(), len(DATA)),
    "recvmsg": lambda sock: sock.recvmsg(len(DATA)),
    "recvmmsg": lambda sock: several(LIBC.recvmmsg, sock),
    "splice": into_pipe,
    "io_uring": from_ring,
}


def main() -> None:
    """Be the parent."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--protocol", type=int, default=socket.IPPROTO_TCP)
    parser.add_argument("--send", choices=SEND, default="write")
    parser.add_argument("--receive", choices=RECEIVE, default="read")
    options = parser.parse_args()
    sock = socket.socket(family_of(options.address), kind_of(options.protocol), options.protocol)
    sock.connect((options.address, options.port))
    tell("ready", local=end(sock.getsockname()))
    wait_for_line()
    if not fork():
        SEND[options.send](sock)
        RECEIVE[options.receive](sock)
        tell("used", child=os.getpid())
        os.read(0, 1)
        os._exit(0)
    os.wait()


if __name__ == "__main__":
    main()
