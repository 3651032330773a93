"""Blocks of real packets, built by scapy, put to an attributor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from attribution.host import HOME, Clock, Host
from pktproc.attribution.answers import AttributedBatch
from pktproc.attribution.attributor import BatchAttributor
from pktproc.attribution.engine import Addresses
from pktproc.model import Attribution, Interface, PacketType, pack_address
from pktproc.packets.batch import PacketBatch

ETH0 = Interface("eth0", 2, HOME)
LO = Interface("lo", 1, HOME, loopback=True)
OURS, THEIRS = "10.77.0.1", "10.77.0.2"
OURS6, THEIRS6 = "fd77::1", "fd77::2"
NEIGHBOUR = HOME + 1
IN_NEIGHBOUR = "10.77.1.1"
ETHERNET = 1

Ends = tuple[Attribution | None, Attribution | None]


def addresses(*local: str, broadcast: Sequence[str] = ()) -> Addresses:
    return Addresses(frozenset(map(pack_address, local)), frozenset(map(pack_address, broadcast)))


class Walk:
    """An attributor at work on a host that has `OURS` and `OURS6`; a neighbouring namespace has `IN_NEIGHBOUR`."""

    def __init__(self, clock: Clock, host: Host) -> None:
        self.clock = clock
        self.host = host
        host.spaces[HOME] = addresses(OURS, OURS6, "fe80::1", broadcast=["10.77.255.255"])
        host.spaces[NEIGHBOUR] = addresses(IN_NEIGHBOUR)
        self.attributor = BatchAttributor(host, [HOME], clock, clock.wall_ns)

    def block(
        self,
        packets: Sequence[Packet],
        packet_type: PacketType | Sequence[PacketType] = PacketType.OUTGOING,
        interface: Interface = ETH0,
    ) -> PacketBatch:
        """Return a block of packets that were captured just now, a microsecond apart."""
        return self.frames([_frame(packet) for packet in packets], packet_type, interface)

    def frames(
        self,
        frames: Sequence[bytes],
        packet_type: PacketType | Sequence[PacketType] = PacketType.OUTGOING,
        interface: Interface = ETH0,
    ) -> PacketBatch:
        """Return a block of frames that were captured just now, a microsecond apart."""
        lengths = np.array([len(frame) for frame in frames], np.int64)
        return PacketBatch(
            data=np.frombuffer(b"".join(frames), np.uint8),
            offset=np.cumsum(lengths) - lengths,
            captured_bytes=lengths,
            wire_bytes=lengths.copy(),
            time_ns=self.clock.wall_ns() + np.arange(len(frames), dtype=np.int64) * 1000,
            interface=np.zeros(len(frames), np.int64),
            packet_type=np.full(len(frames), packet_type, np.uint8),
            linktype=np.full(len(frames), ETHERNET, np.uint16),
            interfaces=(interface,),
        )

    def see(
        self,
        *packets: Packet,
        packet_type: PacketType | Sequence[PacketType] = PacketType.OUTGOING,
        interface: Interface = ETH0,
    ) -> list[Ends]:
        """Attribute a block a millisecond after it was captured; return the ends of each packet."""
        batch = self.block(packets, packet_type, interface)
        self.clock.advance(1)
        return ends_of(self.attributor.attribute(batch))

    def later(self, attributed: AttributedBatch, ms: float) -> list[Ends]:
        """Ask again for what is not final after a while."""
        self.clock.advance(ms)
        self.attributor.again(attributed)
        return ends_of(attributed)


def ends_of(attributed: AttributedBatch) -> list[Ends]:
    """Return the answers for source and destination of each packet."""
    return [(attributed.source[flow], attributed.destination[flow]) for flow in attributed.flow_of.tolist()]


def _frame(packet: Packet) -> bytes:
    return bytes(Ether(src="02:77:00:00:00:01", dst="02:77:00:00:00:02") / packet)
