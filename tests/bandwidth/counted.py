"""Blocks of packets with owners, made to be counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from pktproc.attribution.answers import AttributedBatch
from pktproc.bandwidth.views import Amount, View
from pktproc.model import Attribution, Interface, Match, PacketType, Process, Reason
from pktproc.packets.batch import PacketBatch
from pktproc.packets.decode import decode
from pktproc.packets.flows import distinct_flows
from pktproc.packets.fragments import FragmentTable

NS_PER_S = 1_000_000_000
START_NS = 1_790_000_000_000_000_000
ETH0 = Interface("eth0", 2, 1)
BRIDGE = Interface("br0", 3, 1)
LOOPBACK = Interface("lo", 1, 1, loopback=True)
HOST, OUT = PacketType.HOST, PacketType.OUTGOING

Ends = tuple[Attribution | None, Attribution | None]


def process(number: int, name: str = "", **facts: object) -> Process:
    """A process of its own for each number."""
    return Process(pid=1000 + number, start_ticks=number, start_ns=START_NS, name=name or f"program{number}", **facts)  # type: ignore[arg-type]


def by(number: int, name: str = "", **facts: object) -> Attribution:
    """The answer that names such a process."""
    return Attribution(process(number, name, **facts), Match.EXACT, "netlink")


def why(reason: Reason, *, final: bool = False) -> Attribution:
    """The answer that names nobody."""
    return Attribution(reason=reason, evidence="netlink", final=final)


class Seen(NamedTuple):
    """A packet as an interface saw it, with the owners of its ends."""

    frame: bytes
    ends: Ends
    packet_type: int = OUT
    interface: Interface = ETH0
    time_ns: int = START_NS
    wire_bytes: int | None = None


def block(seen: Sequence[Seen], interfaces: Sequence[Interface] = ()) -> AttributedBatch:
    """A block of packets; a flow has the ends of its first packet in the block."""
    known = list(dict.fromkeys([*interfaces, *(one.interface for one in seen)]))
    sizes = np.array([len(one.frame) for one in seen], np.int64)
    batch = PacketBatch(
        data=np.frombuffer(b"".join(one.frame for one in seen), np.uint8),
        offset=np.cumsum(sizes) - sizes,
        captured_bytes=sizes,
        wire_bytes=np.array([len(one.frame) if one.wire_bytes is None else one.wire_bytes for one in seen], np.int64),
        time_ns=np.array([one.time_ns for one in seen], np.int64),
        interface=np.array([known.index(one.interface) for one in seen], np.int64),
        packet_type=np.array([one.packet_type for one in seen], np.uint8),
        linktype=np.full(len(seen), 1, np.uint16),
        interfaces=tuple(known),
    )
    columns = decode(batch, FragmentTable())
    table = distinct_flows(batch, columns)
    ends = [seen[row].ends for row in table.first.tolist()]
    return AttributedBatch(
        batch, columns, table.flow_of, table.flows, table.first, [end[0] for end in ends], [end[1] for end in ends]
    )


def frame(*layers: Packet | bytes) -> bytes:
    """The bytes of an Ethernet frame that carries some layers."""
    packet: Packet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    for layer in layers:
        packet /= layer
    return bytes(packet)


def _ip(source: str, destination: str, fields: Mapping[str, int]) -> Packet:
    header = IP(src=source, dst=destination)
    for name, value in fields.items():
        setattr(header, name, value)
    return header


def tcp(
    source: int, destination: int, flags: str = "A", size: int = 0, *, local: str = "10.77.0.1", **fields: int
) -> bytes:
    """A TCP segment from a port of 10.77.0.1 (or of 10.77.0.2, if `local` says so) to one of the other."""
    remote = "10.77.0.2" if local == "10.77.0.1" else "10.77.0.1"
    head = TCP(sport=source, dport=destination, flags=flags, seq=fields.pop("seq", 1))
    return frame(_ip(local, remote, fields), head, b"x" * size)


def udp(source: int, destination: int, size: int = 0, *, local: str = "10.77.0.1", **fields: int) -> bytes:
    """A datagram, likewise."""
    remote = "10.77.0.2" if local == "10.77.0.1" else "10.77.0.1"
    return frame(_ip(local, remote, fields), UDP(sport=source, dport=destination), b"x" * size)


def arp() -> bytes:
    """A request that asks for a link address."""
    return frame(ARP(psrc="10.77.0.1", pdst="10.77.0.2"))


def sums(view: View) -> Amount:
    """The sums of a view's rows."""
    return (
        Amount(*(sum(values) for values in zip(*(row.total for row in view.rows), strict=True)))
        if view.rows
        else Amount()
    )


def adds_up(view: View) -> None:
    """Assert that the rows are all that was captured, exactly."""
    total = sums(view)
    rows = total.sent_bytes + total.received_bytes - total.local_received_bytes + total.passed_bytes
    assert rows == view.captured.bytes
    assert total.local_sent_bytes == total.local_received_bytes
    assert all(isinstance(value, int) for row in view.rows for value in row.total)


def totals(view: View) -> Mapping[tuple[str, ...], tuple[int, int]]:
    """What each row sent and received."""
    return {row.key: (int(row.total.sent_bytes), int(row.total.received_bytes)) for row in view.rows}
