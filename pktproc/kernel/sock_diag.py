"""Ask one network namespace for its sockets over NETLINK_SOCK_DIAG, and hear of those that end (sock_diag(7))."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Container, Iterable, Iterator, Mapping

from pktproc.errors import Denied, EngineError, Unsupported
from pktproc.kernel import inet_diag, netlink
from pktproc.model import Protocol
from pktproc.model import Socket as SocketFact

_NETLINK_SOCK_DIAG = 4
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_SO_RCVBUFFORCE = 33

# The groups of linux/sock_diag.h for the end of TCP and UDP sockets: SKNLGRP_INET_... and SKNLGRP_INET6_...
DESTROY_GROUPS = (1, 2, 3, 4)
FAMILIES = (socket.AF_INET, socket.AF_INET6)

RECEIVE_BYTES = 1 << 18
_DESTROY_BUFFER_BYTES = 4 << 20
_TIMEOUT_S = 2
Facts = Mapping[inet_diag.Lasting, SocketFact]

# inet_diag answers a look-up for which there is no socket with ENOENT; UDP on some kernels with ESTALE for a cookie.
_NO_SOCKET = frozenset({errno.ENOENT, errno.ESTALE})


def diag_socket(timeout_s: int) -> socket.socket:
    """Return a sock_diag(7) socket in this thread's namespace, whose answers are waited for so many seconds."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG)
    # A timeout of Python's own would cost a poll(2) for each call.
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", timeout_s, 0))
    return opened


class DiagSocket:
    """Look sockets up in the network namespace in which this object was made.

    `netns` is the inode number of that namespace and marks the sockets that come back.
    """

    def __init__(self, netns: int) -> None:
        self.netns = netns
        self._sequence = 0
        self._socket = diag_socket(_TIMEOUT_S)
        self._buffer = bytearray(RECEIVE_BYTES)

    def close(self) -> None:
        """Close the socket, which also lets go of the namespace."""
        self._socket.close()

    def find(
        self, protocol: int, *, local: tuple[bytes, int], remote: tuple[bytes, int], ifindex: int = 0
    ) -> SocketFact | None:
        """Return the socket that packets from `remote` to `local` reach, or None.

        The answer may be a listener or a socket that is not connected; the caller compares.
        """
        self._sequence += 1
        request = inet_diag.exact_request(
            protocol, local=local, remote=remote, ifindex=ifindex, sequence=self._sequence
        )
        return next(self._transact(request, protocol), None)

    def dump(self, protocol: int, *, states: int = inet_diag.ALL_STATES, port: int = 0) -> Iterator[SocketFact]:
        """Yield the sockets of a protocol, of both families; those with local `port` alone if it is not 0.

        Raise `Unsupported` if the kernel has no handler for the protocol.
        """
        for family in FAMILIES:
            self._sequence += 1
            request = inet_diag.dump_request(family, protocol, states=states, port=port, sequence=self._sequence)
            yield from self._transact(request, protocol)

    def survey(
        self, protocol: int, known: Facts, *, states: int = inet_diag.ALL_STATES
    ) -> dict[inet_diag.Lasting, SocketFact]:
        """Return all sockets of a protocol by what lasts of their messages; those in `known` are the same objects.

        To find a socket unchanged costs a tenth of reading its message. Raise `Unsupported` if the kernel has no
        handler for the protocol.
        """
        found: dict[inet_diag.Lasting, SocketFact] = {}
        for request in self._surveys(protocol, states):
            self._socket.send(request)
            while self._take_in(self._receive(), protocol, known, found):
                pass
        return found

    def _surveys(self, protocol: int, states: int) -> Iterator[bytes]:
        if protocol == Protocol.TCP:
            self._sequence += 1
            yield inet_diag.tcp_request(states=states, sequence=self._sequence)
            return
        for family in FAMILIES:
            self._sequence += 1
            yield inet_diag.dump_request(family, protocol, states=states, sequence=self._sequence)

    def _take_in(self, data: bytes, protocol: int, known: Facts, found: dict[inet_diag.Lasting, SocketFact]) -> bool:
        """Add the sockets of one datagram; return whether more follow."""
        view = memoryview(data)
        while (message := next(netlink.messages(view), None)) is not None:
            ours = message.sequence == self._sequence
            if ours and message.type in (netlink.NLMSG_ERROR, netlink.NLMSG_DONE):
                _raise_for(netlink.error_code(message), protocol, dump=True)
                return False
            taken = self._take_run(view, len(message.payload), protocol, known, found) if ours else 0
            view = view[taken or netlink.align(netlink.HEADER.size + len(message.payload)) :]
        return True

    def _take_run(
        self, view: memoryview, size: int, protocol: int, known: Facts, found: dict[inet_diag.Lasting, SocketFact]
    ) -> int:
        """Add the sockets of messages of one size, as most are that follow each other; return their length."""
        layout = inet_diag.lasting_layout(size)
        if layout is None:
            return 0
        position = 0
        whole = len(view) // layout.size * layout.size
        for length, kind, _, sequence, _, *lasting in layout.iter_unpack(view[:whole]):
            if length != layout.size or sequence != self._sequence or kind in (netlink.NLMSG_ERROR, netlink.NLMSG_DONE):
                break
            key = tuple(lasting)
            fact = known.get(key)
            if fact is None:
                payload = view[position + netlink.HEADER.size : position + length]
                fact = inet_diag.parse_socket(payload, self.netns, protocol, dumped=True)
            if fact is not None:
                found[key] = fact
            position += length
        return position

    def _receive(self) -> bytes:
        try:
            length = self._socket.recv_into(self._buffer)
        except BlockingIOError as error:
            raise EngineError("the kernel did not answer a sock_diag request within 2 s") from error
        # An answer is copied out of the buffer since the caller may ask again before it has read all.
        return bytes(memoryview(self._buffer)[:length])

    def _transact(self, request: bytes, protocol: int) -> Iterator[SocketFact]:
        dump = bool(netlink.HEADER.unpack_from(request)[2] & netlink.NLM_F_DUMP)
        self._socket.send(request)
        while True:
            for message in netlink.messages(self._receive()):
                if message.sequence != self._sequence:
                    continue
                if message.type in (netlink.NLMSG_ERROR, netlink.NLMSG_DONE):
                    _raise_for(netlink.error_code(message), protocol, dump=dump)
                    return
                fact = inet_diag.parse_socket(message.payload, self.netns, protocol)
                if fact is not None:
                    yield fact
                if not dump:
                    return


def _raise_for(code: int, protocol: int, *, dump: bool) -> None:
    if not code or (code in _NO_SOCKET and not dump):
        return
    name = Protocol(protocol).name if protocol in Protocol.__members__.values() else str(protocol)
    if code in (errno.ENOENT, errno.EOPNOTSUPP, errno.EINVAL):
        message = f"the kernel has no sock_diag handler for protocol {name}"
        raise Unsupported(message)
    if code in (errno.EPERM, errno.EACCES):
        message = f"sock_diag for protocol {name} is not permitted: {os.strerror(code)}"
        raise Denied(message)
    message = f"sock_diag for protocol {name} failed: {os.strerror(code)}"
    raise EngineError(message)


class EndedSockets:
    """Hear of each TCP and UDP socket that ends in the namespace in which this object was made.

    The kernel multicasts a socket's addresses and cookie when it is destroyed (sock_diag_broadcast_destroy in
    net/core/sock_diag.c); joining needs CAP_NET_ADMIN, without it `Denied` is raised. `overruns` counts how often the
    kernel had to drop notifications because nobody read them.
    """

    def __init__(self, netns: int) -> None:
        self.netns = netns
        self.overruns = 0
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
        )
        # Without a port id of its own the kernel takes the socket for the sender and passes it over (do_one_broadcast).
        self._socket.bind((0, 0))
        try:
            for group in DESTROY_GROUPS:
                self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _DESTROY_BUFFER_BYTES)
        except OSError as error:
            self._socket.close()
            if error.errno in (errno.EPERM, errno.EACCES):
                message = "notice of closed sockets needs CAP_NET_ADMIN"
                raise Denied(message) from error
            message = f"the kernel gives no notice of closed sockets: {error.strerror}"
            raise Unsupported(message) from error

    def fileno(self) -> int:
        """Return the descriptor that is readable while there are ends to tell of."""
        return self._socket.fileno()

    def close(self) -> None:
        """Leave the groups."""
        self._socket.close()

    def drain(self) -> tuple[list[SocketFact], bool]:
        """Return the sockets that ended since the last call, and whether some notifications were lost."""
        received, lost = self.receive()
        return self.sockets_in(received), lost

    def sockets_in(self, received: Iterable[bytes], known: Container[int] = ()) -> list[SocketFact]:
        """Return the sockets that notifications are of, without those whose cookies are `known`."""
        ended: list[SocketFact] = []
        for data in received:
            for message in netlink.messages(data):
                if inet_diag.cookie_in(message.payload) in known:
                    continue
                fact = inet_diag.parse_socket(message.payload, self.netns, Protocol.TCP)
                if fact is not None:
                    ended.append(fact)
        return ended

    def receive(self) -> tuple[list[bytes], bool]:
        """Return the notifications since the last call, and whether some were lost."""
        received: list[bytes] = []
        lost = False
        while True:
            try:
                received.append(self._socket.recv(RECEIVE_BYTES))
            except BlockingIOError:
                return received, lost
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.overruns += 1
                lost = True
