"""Hear of first packets at once: a second socket that takes only what opens a flow, and does not wait for a block.

A process can be gone a millisecond after its first packet, and a ring's block takes that long to be handed over. So
outgoing packets that open something (TCP SYN; UDP and ICMP as long as there are few) also come here, cut to their
headers, only to be looked up early. Nothing is shown from here, and nothing is lost if some are missed.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pktproc.capture import filter as packet_filter
from pktproc.capture.interfaces import interfaces
from pktproc.capture.plain import timestamp_ns
from pktproc.capture.tap import index_of, listen, open_socket
from pktproc.errors import PktprocError
from pktproc.kernel import namespaces
from pktproc.model import V4_MAPPED_PREFIX, Direction, Flow, Protocol

if TYPE_CHECKING:
    from scapy.supersocket import SuperSocket

_SYN = "((tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn) or (ip6[6] = 6 and ip6[53] & 0x12 = 2))"
_EXPRESSIONS = (f"{_SYN} or udp or icmp or icmp6", _SYN)
_HEADER_BYTES = 128
_ANCILLARY_BYTES = 256
_BUFFER_BYTES = 1 << 15
# More than this at once is a flood, not a new program: take less for a second, and longer while the flood lasts.
_MOST_AT_ONCE = 32
_QUIET_NS = 1_000_000_000
_LONGEST_QUIET_NS = 4 * _QUIET_NS
_SOON_NS = _QUIET_NS // 10
_ETHERNET_HEADER_BYTES = 14
_ETHERNET_LIKE = frozenset({1, 772})  # ARPHRD_ETHER, ARPHRD_LOOPBACK
_PORTS = struct.Struct("!HH")
_ECHO_REQUEST: dict[int, int] = {Protocol.ICMP: 8, Protocol.ICMPV6: 128}
_WITH_PORTS = frozenset({Protocol.TCP, Protocol.UDP})


class Scout:
    """Take the first packets of flows that leave an interface.

    Raise `PktprocError` if the user's `expression` cannot be combined with that.
    """

    def __init__(self, interface: str, space: Path | None, expression: str) -> None:
        narrowed = [f"({first}) and ({expression})" if expression else first for first in _EXPRESSIONS]
        self._programs: list[tuple[packet_filter.Instruction, ...]] = []

        def work() -> tuple[SuperSocket, int]:
            ifindex = index_of(interface, interfaces(namespaces.current()))
            opened = open_socket(interface, ifindex)
            self._programs += [
                packet_filter.one_way(packet_filter.compile_filter(text, interface, _HEADER_BYTES), "out")
                for text in narrowed
            ]
            return opened, ifindex

        self._scapy, ifindex = namespaces.run_inside(space, work)
        self._socket: socket.socket = self._scapy.ins
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._programs.append(packet_filter.DROP_ALL)
        self._level = 0
        self._widened_ns = self._widen_ns = -_QUIET_NS
        self._quiet_ns = _QUIET_NS
        packet_filter.attach(self._socket, self._programs[0])
        listen(self._socket, interface, ifindex, promiscuous=False)

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def read(self, netns: int, ifindexes: Mapping[str, int], now_ns: int) -> list[tuple[Flow, int]]:
        """Return the flows of the packets that are waiting, each with its packet's time since the epoch in ns.

        A flood narrows what is taken for the next second.
        """
        flows: list[tuple[Flow, int]] = []
        for taken in range(_MOST_AT_ONCE + 1):
            try:
                data, ancillary, _, address = self._socket.recvmsg(_HEADER_BYTES, _ANCILLARY_BYTES)
            except OSError:
                break
            if taken == _MOST_AT_ONCE:
                self._narrow(now_ns)
            flow = parse(data, netns, ifindexes.get(address[0], 0), ethernet=address[3] in _ETHERNET_LIKE)
            if flow is not None:
                flows.append((flow, timestamp_ns(ancillary) or time.time_ns()))
        return flows

    def _narrow(self, now_ns: int) -> None:
        if not self._level:
            goes_on = now_ns - self._widened_ns < _SOON_NS
            self._quiet_ns = min(2 * self._quiet_ns, _LONGEST_QUIET_NS) if goes_on else _QUIET_NS
        self._level = min(self._level + 1, len(self._programs) - 1)
        self._widen_ns = now_ns + self._quiet_ns
        packet_filter.attach(self._socket, self._programs[self._level])
        _discard(self._socket)

    def widen(self, now_ns: int) -> None:
        """Take everything again if the last flood is long enough ago."""
        if self._level and now_ns >= self._widen_ns:
            self._level = 0
            self._widened_ns = now_ns
            packet_filter.attach(self._socket, self._programs[0])

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


def _discard(target: socket.socket) -> None:
    """Throw away what arrived before a filter."""
    try:
        while target.recv(1, socket.MSG_DONTWAIT | socket.MSG_TRUNC):
            pass
    except OSError:
        return


def open_scout(interface: str, space: Path | None, expression: str) -> Scout | None:
    """Return a scout, or None where there can be none: the capture does without, later answers are the only loss."""
    try:
        return Scout(interface, space, expression)
    except (PktprocError, OSError):
        return None


def parse(data: bytes, netns: int, ifindex: int, *, ethernet: bool) -> Flow | None:
    """Return the flow of an outgoing packet of the plain kind, None for any other.

    Plain is IP without IPv6 extension headers, unfragmented; blocks are decoded in full by `pktproc.packets`.
    """
    ip = data[_ETHERNET_HEADER_BYTES:] if ethernet else data
    if len(ip) < 20:
        return None
    if ip[0] >> 4 == 4:
        protocol, transport = ip[9], (ip[0] & 0x0F) * 4
        addresses = V4_MAPPED_PREFIX + ip[12:16], V4_MAPPED_PREFIX + ip[16:20]
        if int.from_bytes(ip[6:8]) & 0x3FFF:
            return None
    elif ip[0] >> 4 == 6 and len(ip) >= 40:
        protocol, transport = ip[6], 40
        addresses = ip[8:24], ip[24:40]
    else:
        return None
    if len(ip) < transport + 8:
        return None
    ports, icmp_type = (0, 0), -1
    if protocol in _WITH_PORTS:
        ports = _PORTS.unpack_from(ip, transport)
    elif _ECHO_REQUEST.get(protocol) == ip[transport]:
        icmp_type = ip[transport]
        ports = (int.from_bytes(ip[transport + 4 : transport + 6]), 0)
    else:
        return None
    return Flow(
        netns=netns,
        ifindex=ifindex,
        direction=Direction.OUTGOING,
        protocol=protocol,
        source_address=addresses[0],
        source_port=ports[0],
        destination_address=addresses[1],
        destination_port=ports[1],
        icmp_type=icmp_type,
    )
