"""The record of a host whose every fact is known, and packets of any time put to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from attribution.host import CLOSE, ESTABLISHED, HOME, LISTEN, NS_PER_S, End
from attribution.traffic import ends_of
from pktproc.attribution.history import Coverage, RecordedAddress, RecordedHolder, RecordedSocket, Span, Testimony
from pktproc.attribution.replay import ReplayAttributor
from pktproc.model import (
    UNSPECIFIED_V4,
    Attribution,
    Interface,
    PacketType,
    Process,
    Protocol,
    Socket,
    pack_address,
)
from pktproc.packets.batch import PacketBatch

EPOCH_NS = 1_700_000_000 * NS_PER_S
ALWAYS = Span(None, EPOCH_NS, EPOCH_NS + 1_000 * NS_PER_S, None)
Ends = tuple[Attribution | None, Attribution | None]
Timed = tuple[float, Packet]
_FREE = frozenset({"0.0.0.0", "::"})


def at(seconds: float) -> int:
    """Return a time in ns since the epoch, by seconds since the record began."""
    return EPOCH_NS + round(seconds * NS_PER_S)


def span(first: float, last: float, after: float | None = None, before: float | None = None) -> Span:
    return Span(None if after is None else at(after), at(first), at(last), None if before is None else at(before))


def process(name: str, pid: int, start_ticks: int = 1) -> Process:
    return Process(pid=pid, start_ticks=start_ticks, start_ns=EPOCH_NS, name=name)


@dataclass
class Record:
    """What was recorded of a host; a recorder looked once a second and heard of ends, unless told otherwise."""

    name: str = "snapshot"
    boots: frozenset[str] = frozenset()
    covered: list[Coverage] = field(
        default_factory=lambda: [Coverage(at(0), at(1_000), "netlink", hears_ends=True, interval_ns=NS_PER_S)]
    )
    homes: list[tuple[bytes, RecordedAddress]] = field(default_factory=list)
    table: list[RecordedSocket] = field(default_factory=list)

    def has(self, *addresses: str, netns: int = HOME, when: Span = ALWAYS, broadcast: bool = False) -> None:
        """Give a namespace addresses."""
        self.homes += [(pack_address(a), RecordedAddress(netns, when, broadcast)) for a in addresses]

    def saw(
        self,
        holders: Process | Iterable[tuple[Process, Span]] | None,
        when: Span,
        local: End,
        remote: End | None = None,
        *,
        protocol: int = Protocol.TCP,
        netns: int = HOME,
        raw: bool = False,
    ) -> None:
        """Add a socket; a process that holds it does so all the time, None leaves it without a holder."""
        if isinstance(holders, Process):
            holders = [(holders, when)]
        free = ESTABLISHED if remote else LISTEN if protocol == Protocol.TCP else CLOSE
        unspecified = bytes(16) if ":" in local[0] else UNSPECIFIED_V4
        self.table.append(
            RecordedSocket(
                Socket(
                    netns=netns,
                    protocol=protocol,
                    local_address=pack_address(local[0]),
                    local_port=local[1],
                    remote_address=pack_address(remote[0]) if remote else unspecified,
                    remote_port=remote[1] if remote else 0,
                    state=free,
                    inode=0,
                    cookie=len(self.table) + 1,
                    uid=None,
                    raw=raw,
                ),
                when,
                tuple(RecordedHolder(*pair) for pair in holders or ()),
            )
        )

    # What the join asks.

    def hosts(self) -> frozenset[str]:
        return self.boots

    def coverage(self) -> Sequence[Coverage]:
        return self.covered

    def namespaces(self) -> frozenset[int]:
        return frozenset(recorded.netns for _, recorded in self.homes)

    def namespaces_with(self, protocol: int, local_port: int) -> frozenset[int]:
        return frozenset(netns for netns in self.namespaces() if self._on(netns, protocol, local_port))

    def addresses(self, address: bytes) -> Sequence[RecordedAddress]:
        return [recorded for known, recorded in self.homes if known == address]

    def connected(
        self, netns: int, protocol: int, local_port: int, remote_address: bytes, remote_port: int
    ) -> Sequence[RecordedSocket]:
        remote = (remote_address, remote_port)
        found = self._on(netns, protocol, local_port)
        return [one for one in found if one.socket.remote_port and one.socket[4:6] == remote]

    def free(self, netns: int, protocol: int, local_port: int) -> Sequence[RecordedSocket]:
        return [one for one in self._on(netns, protocol, local_port) if not one.socket.remote_port]

    def users(
        self, netns: int, protocol: int, local_port: int, first_ns: int, last_ns: int
    ) -> frozenset[tuple[int, int]]:
        return frozenset(
            holder.process.id
            for recorded in self._on(netns, protocol, local_port)
            if recorded.socket.remote_port and recorded.span.first_ns <= last_ns
            for holder in recorded.holders
            if holder.span.first_ns >= first_ns
        )

    def testimonies(self) -> Sequence[Testimony]:
        return ()

    def _on(self, netns: int, protocol: int, local_port: int) -> list[RecordedSocket]:
        return [
            recorded
            for recorded in self.table
            if recorded.socket[:2] == (netns, protocol)
            and (recorded.socket.raw or recorded.socket.local_port == local_port)
        ]


def tcp(source: End, destination: End, flags: str = "A", sequence: int = 0) -> Packet:
    network = IPv6 if ":" in source[0] else IP
    return network(src=source[0], dst=destination[0]) / TCP(
        sport=source[1], dport=destination[1], flags=flags, seq=sequence
    )


def udp(source: End, destination: End) -> Packet:
    network = IPv6 if ":" in source[0] else IP
    return network(src=source[0], dst=destination[0]) / UDP(sport=source[1], dport=destination[1]) / b"payload"


def file_batch(packets: Sequence[Timed]) -> PacketBatch:
    """Return a block as from a file, each packet with its seconds since the record began."""
    frames = [bytes(Ether(src="02:77:00:00:00:01", dst="02:77:00:00:00:02") / packet) for _, packet in packets]
    lengths = np.array([len(frame) for frame in frames], np.int64)
    return PacketBatch(
        data=np.frombuffer(b"".join(frames), np.uint8),
        offset=np.cumsum(lengths) - lengths,
        captured_bytes=lengths,
        wire_bytes=lengths.copy(),
        time_ns=np.array([at(seconds) for seconds, _ in packets], np.int64),
        interface=np.zeros(len(frames), np.int64),
        packet_type=np.full(len(frames), PacketType.UNKNOWN, np.uint8),
        linktype=np.ones(len(frames), np.uint16),
        interfaces=(Interface("if0", 1, 0),),
    )


def replay(records: Record | Sequence[Record], packets: Sequence[Timed], *, skew: float = 0) -> list[Ends]:
    """Return the answers for packets that stand in a file together."""
    histories = [records] if isinstance(records, Record) else records
    attributor = ReplayAttributor(histories, skew_ns=round(skew * NS_PER_S))
    return ends_of(attributor.attribute(file_batch(packets)))


def name_of(end: Attribution | None) -> str | None:
    """Return a process's name, `?reason`, or None for an end that is not on a recorded host."""
    if end is None:
        return None
    return end.process.name if end.process else f"?{end.reason}"


def names(ends: Iterable[Ends]) -> list[tuple[str | None, str | None]]:
    return [(name_of(source), name_of(destination)) for source, destination in ends]
