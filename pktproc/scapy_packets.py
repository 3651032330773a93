"""Attribution for scapy's own packets: `pktproc.sniff` and `pktproc.Attributor`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from scapy.packet import Packet
from scapy.plist import PacketList
from scapy.utils import EDecimal

from pktproc.attribution.answers import AttributedBatch
from pktproc.attribution.attributor import BatchAttributor
from pktproc.capture.interfaces import interfaces
from pktproc.capture.live import CaptureOptions
from pktproc.kernel import namespaces
from pktproc.kernel.engines import AUTO, open_engine, witness_of
from pktproc.live import LiveAttribution
from pktproc.model import Attribution, Interface, PacketType
from pktproc.output.dissection import dissect
from pktproc.packets import linktypes
from pktproc.packets.batch import one_packet

_NS_PER_S = 1_000_000_000
_ASK_AGAIN_S = 0.005
_LINKTYPES = {
    "Ethernet": linktypes.LINKTYPE_ETHERNET,
    "cooked linux": linktypes.LINKTYPE_LINUX_SLL,
    "cooked linux v2": linktypes.LINKTYPE_LINUX_SLL2,
    "Loopback": linktypes.LINKTYPE_NULL,
    "IP": linktypes.LINKTYPE_IPV4,
    "IPv6": linktypes.LINKTYPE_IPV6,
}


class PacketAttribution(NamedTuple):
    """The owners of a packet's two ends; an end that is not on this host is None."""

    source: Attribution | None
    destination: Attribution | None

    def __str__(self) -> str:
        """Return `curl[4711] > ?kernel`, with `-` for an end that is not on this host."""
        return " > ".join(_words(end) for end in self)


def _words(end: Attribution | None) -> str:
    if end is None:
        return "-"
    return f"{end.process.name}[{end.process.pid}]" if end.process else f"?{end.reason}"


class Attributor:
    """Name the processes at the ends of scapy packets, as of now.

    For live packets, in the `prn` of scapy's `sniff` or `AsyncSniffer`::

        with pktproc.Attributor() as attributor:
            scapy.sniff(iface="lo", count=10, prn=lambda packet: print(attributor.attribute(packet)))

    `engine` is `auto`, `ebpf`, `netlink` or `procfs`; `wait_s` is the longest time that a packet waits for a better
    answer. Not for packets from files: their sockets are gone. Raise what `pktproc.errors` has, `Denied` above all.
    """

    def __init__(self, engine: str = AUTO, *, wait_s: float = 0.05) -> None:
        self._engine, self.notes = open_engine(engine)
        self._wait_s = wait_s
        self._netns = namespaces.current()
        self._interfaces: dict[str, Interface] = {}
        witness = witness_of(self._engine)
        self._attributor = BatchAttributor(self._engine, [self._netns], time.monotonic_ns, time.time_ns, witness)

    def attribute(self, packet: Packet) -> PacketAttribution:
        """Return who is at the ends of a packet, and leave it in the packet too.

        The packet gets `attribution` and `process_information`, as `pktproc.sniff` gives them.
        """
        linktype = _LINKTYPES.get(packet.name or "", linktypes.LINKTYPE_ETHERNET)
        data = packet.original or bytes(packet)
        time_ns = int(packet.time * _NS_PER_S)
        batch = one_packet(data, linktype, self._interface(packet.sniffed_on), PacketType.UNKNOWN, time_ns)
        attributed = self._attributor.attribute(batch)
        deadline = time.monotonic() + self._wait_s
        while attributed.pending and time.monotonic() < deadline:
            time.sleep(_ASK_AGAIN_S)
            self._attributor.again(attributed)
        return _annotate(packet, attributed, 0)

    def _interface(self, sniffed_on: Any) -> Interface:
        name = str(sniffed_on or "")
        if name not in self._interfaces:
            self._interfaces = {known.name: known for known in interfaces(self._netns).values()}
        return self._interfaces.get(name) or self._interfaces.setdefault(name, Interface(name, 0, self._netns))

    def close(self) -> None:
        """Let go of the engine."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def sniff(
    count: int = 0,
    *,
    store: bool = True,
    prn: Callable[[Packet], Any] | None = None,
    lfilter: Callable[[Packet], bool] | None = None,
    filter: str | None = None,  # noqa: A002 - scapy's name
    iface: str | Sequence[str] | None = None,
    timeout: float | None = None,
    stop_filter: Callable[[Packet], bool] | None = None,
    netns: Sequence[str] = (),
    engine: str = AUTO,
    started_callback: Callable[[], Any] | None = None,
) -> PacketList:
    """Capture packets and return them as scapy's, each with its processes.

    The arguments are a choice of those of `scapy.sniff`, and some more. `iface` is a name, several names, or None for
    all interfaces; `netns` are network namespaces, by default the current one. Each packet has `attribution`, a
    `PacketAttribution`, and `process_information`, as scapy reads it from pcapng files:
    `{"proc": {"id": pid, "name": name}}` for the end on this host (the sender's where both are), empty if no process is
    known. While it runs, threads of this program take turns every 10 us (`sys.setswitchinterval`), and a thread with
    priority looks processes up.
    """
    names = (iface,) if isinstance(iface, str) else tuple(iface or ("any",))
    options = CaptureOptions(interfaces=names, netns=tuple(netns), expression=filter or "")
    kept: list[Packet] = []
    seen = 0
    with LiveAttribution(options, engine=engine) as live:
        if timeout is not None:
            live.stop(after_ns=int(timeout * _NS_PER_S))
        if started_callback:
            started_callback()
        try:
            for packet in _packets(live):
                if lfilter and not lfilter(packet):
                    continue
                seen += 1
                if store:
                    kept.append(packet)
                if prn and (shown := prn(packet)) is not None:
                    print(shown)  # noqa: T201 - as scapy.sniff does
                if seen == count or (stop_filter and stop_filter(packet)):
                    break
        except KeyboardInterrupt:
            live.stop()
    return PacketList(kept, "Sniffed")


def _packets(live: LiveAttribution) -> Iterator[Packet]:
    for block in live.blocks():
        if block is None:
            continue
        for row in range(len(block.batch)):
            batch = block.batch
            packet = dissect(batch.packet(row), int(batch.linktype[row]))
            packet.time = EDecimal(int(batch.time_ns[row])) / _NS_PER_S
            packet.wirelen = int(batch.wire_bytes[row])
            packet.sniffed_on = batch.interfaces[int(batch.interface[row])].name
            _annotate(packet, block, row)
            yield packet


def _annotate(packet: Packet, attributed: AttributedBatch, row: int) -> PacketAttribution:
    flow = int(attributed.flow_of[row])
    ends = PacketAttribution(attributed.source[flow], attributed.destination[flow])
    packet.attribution = ends
    local = ends.source or ends.destination
    known = local.process if local else None
    packet.process_information = {"proc": {"id": known.pid, "name": known.name}} if known else {}
    return ends
