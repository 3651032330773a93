"""Lines of text that read like tcpdump's, with the process right behind each end that is on this host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pktproc.attribution.answers import AttributedBatch
from pktproc.model import Attribution, Direction, Flow, PacketType, Protocol
from pktproc.output import dump, owners, wording
from pktproc.output.clock import Clock, Precision, TimeFormat
from pktproc.output.details import Details, FlowText, Head
from pktproc.output.escape import escape
from pktproc.output.perflow import PerFlow
from pktproc.output.tcp import Conversations
from pktproc.packets.batch import Column, PacketBatch
from pktproc.packets.linktypes import LINKTYPE_ETHERNET, LINKTYPE_LINUX_SLL, LINKTYPE_LINUX_SLL2

Dump = Literal["", "x", "xx", "X", "XX", "A", "AA"]

_FLOWS = 16_384  # what a busy host talks on at one time; about 1 KiB each
_WAYS: dict[int, str] = {
    PacketType.HOST: "In",
    PacketType.BROADCAST: "B",
    PacketType.MULTICAST: "M",
    PacketType.OTHERHOST: "P",
    PacketType.OUTGOING: "Out",
}
_WAYS_BY_DIRECTION: dict[int, str] = {
    Direction.INCOMING: "In",
    Direction.OUTGOING: "Out",
    Direction.LOOPBACK: "In",
    Direction.PASSING: "P",
}
_LINK_SOURCES = {LINKTYPE_LINUX_SLL: 6, LINKTYPE_LINUX_SLL2: 12}


class TextFormat:
    """Turn attributed packets into lines of text.

    - `verbose`: 1 adds below each line who owns its ends (exe, command line, user, parent, container, how it was found)
      and scapy's summary of the packet; 2 adds all fields that scapy finds instead of the summary.
    - `quiet`: shorter lines. `link`: the link-level header in each line. `dump`: tcpdump's options of that letter.
    - `colour`: process names in colour and reasons dim, by ANSI escape sequences; nothing else changes.
    - `numeric`: ports are always numbers. Without it TCP and UDP ports have their names of /etc/services, as in
      tcpdump; addresses are numbers in any case, since a name look-up would put packets of its own on the wire.
    - `cmdline`: False leaves command lines out.
    - `time_format`, `precision`: see `Clock`.

    TCP sequence numbers are relative to the conversation's start, as in tcpdump; its options, checksums and the
    payload's protocol are left to `verbose`.
    """

    def __init__(
        self,
        *,
        verbose: int = 0,
        quiet: bool = False,
        link: bool = False,
        dump: Dump = "",
        colour: bool = False,
        numeric: bool = False,
        cmdline: bool = True,
        time_format: TimeFormat = "time",
        precision: Precision = "micro",
    ) -> None:
        self._verbose = verbose
        self._quiet = quiet
        self._link = link
        self._dump = dump
        self._numeric = numeric
        self._cmdline = cmdline
        self._paint = owners.ansi if colour else owners.plain
        self._clock = Clock(time_format, precision)
        self._conversations = Conversations()
        self._flows = PerFlow(self._flow_text, _FLOWS)

    def lines(self, attributed: AttributedBatch, rows: Column) -> str:
        """Return the lines of the given packets (int64 row numbers), in that order, each ending with a newline."""
        if not len(rows):
            return ""
        stamps = self._clock.stamps(attributed.batch.time_ns[rows])
        heads = self._heads(attributed, rows)
        details = Details(attributed, rows, heads).texts(quiet=self._quiet)
        if self._link:
            links = _link_headers(attributed, rows)
            lines = [
                f"{stamp}{head.where}{link}{head.flow.between}{detail}\n"
                for stamp, head, link, detail in zip(stamps, heads, links, details, strict=True)
            ]
        else:
            lines = [
                f"{stamp}{head.text}{detail}\n" for stamp, head, detail in zip(stamps, heads, details, strict=True)
            ]
        if self._verbose or self._dump:
            lines = [line + below for line, below in zip(lines, self._below(attributed, rows), strict=True)]
        return "".join(lines)

    def _heads(self, attributed: AttributedBatch, rows: Column) -> list[Head]:
        batch, columns = attributed.batch, attributed.columns
        keyed = (attributed.flow_of, batch.interface, batch.packet_type, columns.icmp_code)
        known: dict[tuple[int, int, int, int], Head] = {}
        heads = []
        for key in zip(*(column[rows].tolist() for column in keyed), strict=True):
            head = known.get(key)
            if head is None:
                head = known[key] = self._head(attributed, *key)
            heads.append(head)
        return heads

    def _head(self, attributed: AttributedBatch, flow: int, interface: int, packet_type: int, icmp_code: int) -> Head:
        made = self._flows.of(attributed, flow)
        way = _WAYS.get(packet_type) or _WAYS_BY_DIRECTION.get(made.flow.direction, "?")
        name = escape(attributed.batch.interfaces[interface].name)
        where = f"{name:<5} {way:<3} " if name else "" if way == "?" else f"{way:<3} "
        label = wording.label(made.flow, icmp_code, quiet=self._quiet, numeric=self._numeric)
        sized = "tcp " if self._quiet and made.flow.protocol == Protocol.TCP else f"{label}, length "
        return Head(where, f"{where}{made.family}{made.between}", label, sized, made)

    def _flow_text(self, flow: Flow, source: Attribution | None, destination: Attribution | None) -> FlowText:
        conversation = self._conversations.of(flow)
        by, to = owners.short(source, self._paint), owners.short(destination, self._paint)
        if flow.protocol < 0:
            suffix = (f", from{by}" if by else "") + (f", to{to}" if to else "")
            return FlowText(flow, wording.family(flow), "", suffix, conversation)
        left, right = wording.endpoints(flow, numeric=self._numeric)
        return FlowText(flow, wording.family(flow), f"{left}{by} > {right}{to}: ", "", conversation)

    def _below(self, attributed: AttributedBatch, rows: Column) -> Iterator[str]:
        """Yield what stands below the line of each packet, every line of it with a newline at its end."""
        for row in rows.tolist():
            data = attributed.batch.packet(row)
            parts: list[str] = []
            if self._verbose:
                parts += _owner_lines(attributed, int(attributed.flow_of[row]), cmdline=self._cmdline)
                parts.append(_scapy_lines(data, int(attributed.batch.linktype[row]), whole=self._verbose > 1))
            parts += self._dump_lines(data, _link_bytes(attributed, row))
            yield "".join(f"{part}\n" for part in parts)

    def _dump_lines(self, data: bytes, link_bytes: int) -> Iterator[str]:
        kind = self._dump[:1]
        shown = data if len(self._dump) == 2 else data[link_bytes:]
        if kind == "A":
            yield dump.ascii_text(shown)
        elif kind:
            yield from dump.hexadecimal(shown, characters=kind == "X")


def _owner_lines(attributed: AttributedBatch, flow: int, *, cmdline: bool) -> Iterator[str]:
    for side, ends in (("source", attributed.source), ("destination", attributed.destination)):
        end = ends[flow]
        if end is not None:
            yield from owners.long(side, end, cmdline=cmdline)


def _scapy_lines(data: bytes, linktype: int, *, whole: bool) -> str:
    from pktproc.output.dissection import describe  # noqa: PLC0415 - scapy is slow to import and only needed here

    return describe(data, linktype, whole=whole)


def _link_bytes(attributed: AttributedBatch, row: int) -> int:
    start = int(attributed.columns.network_offset[row])
    return 0 if start < 0 else start - int(attributed.batch.offset[row])


def _link_headers(attributed: AttributedBatch, rows: Column) -> list[str]:
    """Return the link-level header of each packet: addresses, VLAN ids, ethertype and length on the wire."""
    batch, columns = attributed.batch, attributed.columns
    shown = (columns.vlan, columns.inner_vlan, columns.ethertype, batch.wire_bytes)
    texts = []
    for row, vlan, inner, ethertype, size in zip(rows.tolist(), *(c[rows].tolist() for c in shown), strict=True):
        tags = "".join(f"vlan {tag}, " for tag in (vlan, inner) if tag >= 0)
        texts.append(
            f"{_link_addresses(batch, row)}{tags}ethertype {wording.ethertype_text(ethertype)}, length {size}: "
        )
    return texts


def _link_addresses(batch: PacketBatch, row: int) -> str:
    start, end = int(batch.offset[row]), int(batch.offset[row] + batch.captured_bytes[row])
    linktype = int(batch.linktype[row])
    if linktype == LINKTYPE_ETHERNET and end - start >= 14:
        octets = batch.data[start : start + 12].tobytes()
        return f"{wording.link_address(octets[6:])} > {wording.link_address(octets[:6])}, "
    at = _LINK_SOURCES.get(linktype)
    if at is not None and end - start >= at + 8:
        return f"{wording.link_address(batch.data[start + at : start + at + 6].tobytes())}, "
    return ""
