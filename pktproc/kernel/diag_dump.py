"""Whole tables of sockets over NETLINK_SOCK_DIAG, family by family (sock_diag(7))."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from pktproc.errors import Denied, EngineError, Unsupported
from pktproc.kernel import netlink
from pktproc.kernel.sock_diag import RECEIVE_BYTES, diag_socket

_TIMEOUT_S = 5
SOCK_DIAG_BY_FAMILY = 20
_SOCK_DESTROY = 21
_DONE_BYTES = netlink.HEADER.size + 4
_ABSENT = frozenset({errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT})


class DumpSocket:
    """Ask the network namespace in which this object was made for tables of sockets.

    `netns` is the inode number of that namespace.
    """

    def __init__(self, netns: int) -> None:
        self.netns = netns
        self._sequence = 0
        self._socket = diag_socket(_TIMEOUT_S)
        self._buffer = bytearray(RECEIVE_BYTES)

    def close(self) -> None:
        """Close the socket, which also lets go of the namespace."""
        self._socket.close()

    def datagrams(self, body: bytes, what: str, *, kind: int = SOCK_DIAG_BY_FAMILY) -> Iterator[memoryview]:
        """Yield what the kernel answers to a request for a whole table, netlink messages in a row, up to its end.

        A view is good until the next one is asked for. Raise `Unsupported` if the kernel has no such table, which
        `what` names in the message.
        """
        self._sequence += 1
        flags = netlink.NLM_F_REQUEST | netlink.NLM_F_DUMP
        self._socket.send(netlink.build(kind, flags, self._sequence, body))
        whole = memoryview(self._buffer)
        while True:
            view = whole[: self._receive(what)]
            _, first, _, sequence, _ = netlink.HEADER.unpack_from(view)
            if sequence != self._sequence:
                continue
            if first in (netlink.NLMSG_ERROR, netlink.NLMSG_DONE):
                _check_end(view, what)
                return
            yield view
            last = self._last(view)
            if last is not None:
                _check_end(last, what)
                return

    def messages(self, body: bytes, what: str) -> Iterator[memoryview]:
        """Yield the payloads of the messages of a whole table; one is good until the next one is asked for."""
        for view in self.datagrams(body, what):
            for message in netlink.messages(view):
                if message.type == SOCK_DIAG_BY_FAMILY:
                    yield message.payload

    def destroy(self, body: bytes) -> int:
        """Have a socket closed by the kernel (SOCK_DESTROY); return 0, or the errno with which it refuses."""
        self._sequence += 1
        flags = netlink.NLM_F_REQUEST | netlink.NLM_F_ACK
        self._socket.send(netlink.build(_SOCK_DESTROY, flags, self._sequence, body))
        while True:
            view = memoryview(self._buffer)[: self._receive("SOCK_DESTROY")]
            for message in netlink.messages(view):
                if message.sequence == self._sequence and message.type == netlink.NLMSG_ERROR:
                    return netlink.error_code(message)

    def _receive(self, what: str) -> int:
        try:
            return self._socket.recv_into(self._buffer)
        except BlockingIOError as error:
            raise EngineError(f"the kernel did not answer for {what} within {_TIMEOUT_S} s") from error

    def _last(self, view: memoryview) -> memoryview | None:
        """Return the message that ends a dump, if it is the last one of a datagram."""
        end = view[-_DONE_BYTES:]
        if len(end) < _DONE_BYTES:
            return None
        length, kind, _, sequence, _ = netlink.HEADER.unpack_from(end)
        ends = (length, kind, sequence) == (_DONE_BYTES, netlink.NLMSG_DONE, self._sequence)
        return end if ends else None


def _check_end(view: memoryview, what: str) -> None:
    code = netlink.error_code(next(netlink.messages(view)))
    if not code:
        return
    if code in _ABSENT:
        raise Unsupported(f"the kernel does not list {what} by sock_diag")
    if code in (errno.EPERM, errno.EACCES):
        raise Denied(f"listing {what} by sock_diag is not permitted: {os.strerror(code)}")
    raise EngineError(f"listing {what} by sock_diag failed: {os.strerror(code)}")
