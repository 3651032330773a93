"""Blocks of packets with their owners, and the same packets as a capture file for other people's tools."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from pktproc.attribution.answers import AttributedBatch
from pktproc.model import Attribution, Flow, Interface, Match, PacketType, Process, Reason
from pktproc.packets.batch import PacketBatch
from pktproc.packets.decode import decode
from pktproc.packets.flows import distinct_flows
from pktproc.packets.fragments import FragmentTable

Ends = tuple[Attribution | None, Attribution | None]

LEFT, RIGHT = "02:00:00:00:00:01", "02:00:00:00:00:02"
ETH0 = Interface("eth0", 2, 4026531840)
LOOPBACK = Interface("lo", 1, 4026531840, loopback=True)
ETHERNET = 1
LINUX_SLL2 = 276
START_NS = 1_714_979_289_123_456_789

CURL = Process(
    pid=4711,
    start_ticks=100,
    start_ns=1_714_979_200_000_000_001,
    name="curl",
    exe="/usr/bin/curl",
    cmdline=("curl", "-s", "http://10.77.0.2/a b"),
    uid=0,
    ppid=4600,
    parent_name="bash",
)
SERVER = Process(pid=4700, start_ticks=90, start_ns=1_714_979_100_000_000_000, name="python3", uid=65534)
BY_CURL = Attribution(process=CURL, match=Match.EXACT, evidence="netlink")
BY_SERVER = Attribution(process=SERVER, match=Match.EXACT, evidence="procfs")
NO_SOCKET = Attribution(reason=Reason.NO_SOCKET, evidence="netlink")


def nobody(_flow: Flow) -> Ends:
    """No end is on this host."""
    return None, None


def ethernet(*payloads: Packet) -> list[bytes]:
    """The bytes of packets, each in an Ethernet frame from left to right."""
    return [bytes(Ether(src=LEFT, dst=RIGHT) / payload) for payload in payloads]


def attributed(
    packets: Sequence[bytes],
    ends: Callable[[Flow], Ends] | Ends = nobody,
    *,
    linktype: int = ETHERNET,
    packet_type: int | Sequence[int] = PacketType.OUTGOING,
    interface: Interface = ETH0,
    times_ns: Sequence[int] | None = None,
    wire_bytes: Sequence[int] | None = None,
) -> AttributedBatch:
    """A block of the given packets, a second and a microsecond apart unless `times_ns` says otherwise."""
    count = len(packets)
    lengths = np.array([len(packet) for packet in packets], np.int64)
    if times_ns is None:
        times_ns = [START_NS + row * 1_000_001_000 for row in range(count)]
    batch = PacketBatch(
        data=np.frombuffer(b"".join(packets), np.uint8),
        offset=np.cumsum(lengths) - lengths,
        captured_bytes=lengths,
        wire_bytes=lengths.copy() if wire_bytes is None else np.array(wire_bytes, np.int64),
        time_ns=np.array(times_ns, np.int64),
        interface=np.zeros(count, np.int64),
        packet_type=np.full(count, packet_type, np.uint8),
        linktype=np.full(count, linktype, np.uint16),
        interfaces=(interface,),
    )
    columns = decode(batch, FragmentTable())
    table = distinct_flows(batch, columns)
    owners = [ends(flow) if callable(ends) else ends for flow in table.flows]
    return AttributedBatch(
        batch=batch,
        columns=columns,
        flow_of=table.flow_of,
        flows=table.flows,
        first=table.first,
        source=[owner[0] for owner in owners],
        destination=[owner[1] for owner in owners],
    )


def rows(block: AttributedBatch) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The numbers of all packets of a block."""
    return np.arange(len(block.batch), dtype=np.int64)


def write_pcap(path: Path, block: AttributedBatch) -> Path:
    """Write a block as a pcap file with nanoseconds (tcpdump.org/manpages/pcap-savefile.5.txt)."""
    batch = block.batch
    with path.open("wb") as file:
        linktype = int(batch.linktype[0])
        file.write(struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, linktype))
        for row in range(len(batch)):
            data = batch.packet(row)
            second, fraction = divmod(int(batch.time_ns[row]), 10**9)
            file.write(struct.pack("=IIII", second, fraction, len(data), int(batch.wire_bytes[row])) + data)
    return path
