"""One packet socket, opened through scapy in some network namespace, and its ring."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pktproc.capture import filter as packet_filter
from pktproc.capture.blocks import Frames
from pktproc.capture.filter import ANY, Instruction
from pktproc.capture.interfaces import interfaces, is_up
from pktproc.capture.plain import PlainReader
from pktproc.capture.ring import Ring
from pktproc.errors import CaptureError, Denied, UsageError
from pktproc.kernel import namespaces
from pktproc.model import Interface

if TYPE_CHECKING:
    from scapy.supersocket import SuperSocket

_SOL_PACKET = 263
_PACKET_ADD_MEMBERSHIP, _PACKET_STATISTICS = 1, 6
_PACKET_MR_PROMISC = 1
_MEMBERSHIP = struct.Struct("=iHH8x")  # struct packet_mreq: ifindex, type; alen, address
_STATISTICS = struct.Struct("=II")
_ETH_P_ALL = 3
_SOCKADDR_LL = struct.Struct("=HHi12x")  # family, protocol, ifindex; hatype, pkttype, halen, addr
_DENIED = "capturing packets needs CAP_NET_RAW: run as root, for example with sudo"


class Statistics(NamedTuple):
    """Packets that passed the filter, those dropped for want of room included, and the dropped ones."""

    received: int
    dropped: int


class Tap:
    """Capture on one interface, or on all of them (`any`), of one network namespace.

    `ring_refused` says why packets are read one by one, None with a ring; `expression` is the program of the user's
    filter, None without. Raise `UsageError` for an unknown interface
    or a bad filter, `Denied` without CAP_NET_RAW.
    """

    def __init__(
        self,
        interface: str,
        space: Path | None,
        *,
        expression: str,
        snaplen: int,
        promiscuous: bool,
        buffer_bytes: int,
        timeout_ms: int,
        way: str,
    ) -> None:
        self.name = interface
        self.ring_refused: str | None = None
        self.is_down = False
        self._space = space
        self._received = self._dropped = 0
        self.netns, self.interfaces, self.ifindex, program, self._scapy = namespaces.run_inside(
            space, lambda: _open(interface, expression, snaplen)
        )
        self.expression = program if expression else None
        self._program = packet_filter.loopback_once(packet_filter.one_way(program, way))
        self._socket: socket.socket = self._scapy.ins
        try:
            self._reader = self._start(buffer_bytes, timeout_ms)
            listen(self._socket, interface, self.ifindex, promiscuous=promiscuous)
        except BaseException:
            self._socket.close()
            raise

    def _start(self, buffer_bytes: int, timeout_ms: int) -> Ring | PlainReader:
        reader: Ring | PlainReader
        try:
            reader = Ring(self._socket, buffer_bytes, timeout_ms)
        except OSError as error:
            self.ring_refused = error.strerror
            reader = PlainReader(self._socket, buffer_bytes, lambda: self.ifindexes)
        packet_filter.attach(self._socket, self._program)
        return reader

    @property
    def ifindexes(self) -> dict[str, int]:
        """Return the indexes of the interfaces by name."""
        return {known.name: index for index, known in self.interfaces.items()}

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def read(self) -> Frames | None:
        """Return the frames that are ready, None if there are none."""
        return self._reader.read()

    def filter_with(self, descriptor: int) -> None:
        """Have a loaded eBPF program decide from now on which packets are handed over, and of what length."""
        packet_filter.attach_loaded(self._socket, descriptor)

    def refresh(self) -> None:
        """Read the names of the interfaces again."""
        self.interfaces = namespaces.run_inside(self._space, lambda: interfaces(self.netns))

    def check(self) -> None:
        """Raise `CaptureError` if the interface is gone; one that is merely down may come back."""
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if not code and not self.is_down:
            return
        self.is_down = True  # said once, so it must be looked at again
        self.refresh()
        if self.ifindex and self.ifindex not in self.interfaces:
            message = f"interface {self.name} disappeared"
            raise CaptureError(message)
        if code not in (0, errno.ENETDOWN, errno.ENOBUFS):
            message = f"capturing on {self.name} failed: {errno.errorcode.get(code, code)}"
            raise CaptureError(message)
        self.is_down = not (self.ifindex == 0 or namespaces.run_inside(self._space, lambda: is_up(self.name)))

    def statistics(self) -> Statistics:
        """Return the totals since the start (PACKET_STATISTICS, which the kernel resets at each read)."""
        received, dropped = self._statistics()
        self._received += received
        self._dropped += dropped
        return Statistics(self._received, self._dropped)

    def _statistics(self) -> tuple[int, int]:
        data = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12)
        received, dropped = _STATISTICS.unpack_from(data)
        return received, dropped

    def close(self) -> None:
        """Stop capturing."""
        self._reader.close()
        self._socket.close()  # which also ends promiscuous mode, wherever the namespace is by now


def _open(
    interface: str, expression: str, snaplen: int
) -> tuple[int, dict[int, Interface], int, tuple[Instruction, ...], SuperSocket]:
    """Open the socket; runs inside the namespace."""
    netns = namespaces.current()
    known = interfaces(netns)
    ifindex = index_of(interface, known)
    scapy_socket = open_socket(interface, ifindex)
    try:
        if expression:
            program = packet_filter.compile_filter(expression, interface, snaplen)
        else:
            program = packet_filter.keep_all(snaplen)
    except BaseException:
        scapy_socket.close()
        raise
    return netns, known, ifindex, program, scapy_socket


def index_of(interface: str, known: Mapping[int, Interface]) -> int:
    """Return the index of an interface, 0 for `any`; raise `UsageError` for one that is not known."""
    indexes = {found.name: index for index, found in known.items()} | {ANY: 0}
    if interface not in indexes:
        message = f"no interface {interface!r} here; there are {', '.join(found.name for found in known.values())}"
        raise UsageError(message)
    return indexes[interface]


def open_socket(interface: str, ifindex: int) -> SuperSocket:
    """Return scapy's listening socket for an interface of this thread's namespace, which `listen` has to start."""
    logging.getLogger("scapy").setLevel(logging.CRITICAL)  # it warns of every link type whose layer is not loaded
    from scapy.arch.linux import L2ListenSocket  # noqa: PLC0415 - 130 ms, only where packets are captured
    from scapy.interfaces import InterfaceProvider, NetworkInterface  # noqa: PLC0415

    # Told what the interface is, scapy does not look for it in all of them, and without a protocol nothing is received:
    # to take a socket off the network again, to bind it or to give it a ring, costs 15 ms each time.
    name = "lo" if interface == ANY else interface
    told = NetworkInterface(InterfaceProvider(), {"name": name, "network_name": name, "index": ifindex})
    try:
        return L2ListenSocket(iface=told, type=0, promisc=False)
    except PermissionError as error:
        raise Denied(_DENIED) from error
    except (OSError, ValueError) as error:
        message = f"cannot capture on {interface}: {error}"
        raise CaptureError(message) from error


def listen(target: socket.socket, name: str, ifindex: int, *, promiscuous: bool) -> None:
    """Begin to receive all that passes an interface, or all of them for 0; raise `CaptureError` if it is gone."""
    try:
        if ifindex and promiscuous:
            membership = _MEMBERSHIP.pack(ifindex, _PACKET_MR_PROMISC, 0)
            target.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
        _bind(target, ifindex)
    except OSError as error:
        message = f"cannot capture on {name}: {error.strerror}"
        raise CaptureError(message) from error


def _bind(target: socket.socket, ifindex: int) -> None:
    """Bind a packet socket to an interface, or to 0, which is all of them; socket.bind takes only names."""
    address = _SOCKADDR_LL.pack(socket.AF_PACKET, socket.htons(_ETH_P_ALL), ifindex)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.bind(target.fileno(), address, len(address)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
