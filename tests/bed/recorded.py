"""The recorded captures: which process was at which end of their packets, and how near to it pktproc comes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bed.evidence import tshark
from bed.sniff import Packet
from bed.verdict import SIDES, End, Verdict

ECHOES = {"icmp": ("icmp.type", "icmp.ident", 8, 0), "ipv6-icmp": ("icmpv6.type", "icmpv6.echo.identifier", 128, 129)}
"""tshark's fields of the type and identifier, and the types of request and reply (RFC 792, RFC 4443 section 4)."""
FIELDS = (
    *("ip.src", "ip.dst", "ip.id", "ip.flags.mf", "ip.frag_offset", "ipv6.src", "ipv6.dst", "ipv6.fraghdr.ident"),
    *("tcp.srcport", "tcp.dstport", "tcp.stream", "tcp.len", "udp.srcport", "udp.dstport", "udp.stream", "udp.length"),
    *("icmp.type", "icmp.ident", "icmpv6.type", "icmpv6.echo.identifier"),
)
TRUE = ("1", "True")
UDP_HEADER_BYTES = 8


class Owner(NamedTuple):
    """A process at an end: of all packets, of those of a stream (as tshark counts), or of those with such a payload."""

    transport: str
    address: str
    port: int
    pid: int
    name: str
    stream: int | None = None
    payload_bytes: int | None = None


class Shown(NamedTuple):
    """What tshark shows of a packet: its ends, as far as they have a port, its stream, the size of its payload."""

    source: End | None = None
    destination: End | None = None
    stream: int | None = None
    payload_bytes: int | None = None


def read_owners(path: Path) -> list[Owner]:
    """Return what a truth file tells."""
    return [Owner(**entry) for entry in json.loads(path.read_text())]


def write_owners(path: Path, owners: Sequence[Owner]) -> None:
    """Write a truth file, an owner a line."""
    entries = [{key: value for key, value in owner._asdict().items() if value is not None} for owner in owners]
    path.write_text("[\n" + ",\n".join(f"  {json.dumps(entry)}" for entry in entries) + "\n]\n")


def shown(capture: Path) -> list[Shown]:
    """Return what tshark shows of each packet; every fragment of a datagram has what the whole of it has."""
    arguments = [argument for field in FIELDS for argument in ("-e", field)]
    rows = tshark(capture, "-T", "fields", "-E", "occurrence=f", *arguments)
    packets = [dict(zip(FIELDS, row, strict=True)) for row in rows]
    alone = [_shown(packet) for packet in packets]
    datagrams = [_datagram(packet) for packet in packets]
    whole = {datagram: one for datagram, one in zip(datagrams, alone, strict=True) if datagram and one}
    return [one or whole.get(datagram, Shown()) for datagram, one in zip(datagrams, alone, strict=True)]


def owner_of(end: End, seen: Shown, owners: Sequence[Owner]) -> Owner:
    """Return the one owner of an end of a packet; AssertionError if there is none, or more than one."""
    found = [
        owner
        for owner in owners
        if owner[:3] == end
        and owner.stream in (None, seen.stream)
        and owner.payload_bytes in (None, seen.payload_bytes)
    ]
    assert len(found) == 1, f"{end} in {seen} has owners {found}"
    return found[0]


def judge_recorded(seen_packets: Sequence[Shown], packets: Sequence[Packet], owners: Sequence[Owner]) -> Verdict:
    """Return the verdict over every end that has a port; AssertionError for one whose owner is not known for sure."""
    verdict = Verdict()
    for packet, seen in zip(packets, seen_packets, strict=True):
        for side, end in zip(SIDES, (seen.source, seen.destination), strict=True):
            if end is not None:
                owner = owner_of(end, seen, owners)
                verdict.add(packet, side, owner.pid)
                process = packet.get("pktproc", {}).get(side, {}).get("process", {})
                assert process.get("pid") != owner.pid or process["name"] == owner.name, (process, owner)
    return verdict


def assert_well_named(verdict: Verdict, owners: Sequence[Owner]) -> None:
    """Raise AssertionError unless no end is wrong and all are right.

    Where only the payload tells two owners apart, no packet says when the second began: until the end of the first was
    heard it may be either.
    """
    assert verdict.total > 0, "no packet"
    assert verdict.wrong == 0, verdict
    if any(owner.payload_bytes is not None for owner in owners):
        assert set(verdict.unknown) <= {"ambiguous"}, verdict
        assert verdict.right >= verdict.total / 2, verdict
    else:
        assert verdict.right == verdict.total, verdict


def _datagram(packet: dict[str, str]) -> tuple[str, ...]:
    """Return what the fragments of a datagram have in common (RFC 791 section 3.2, RFC 8200 section 4.5), if it has."""
    if packet["ipv6.fraghdr.ident"]:
        return packet["ipv6.src"], packet["ipv6.dst"], packet["ipv6.fraghdr.ident"]
    if packet["ip.flags.mf"] in TRUE or packet["ip.frag_offset"] not in ("", "0"):
        return packet["ip.src"], packet["ip.dst"], packet["ip.id"]
    return ()


def _shown(packet: dict[str, str]) -> Shown | None:
    source, destination = packet["ip.src"] or packet["ipv6.src"], packet["ip.dst"] or packet["ipv6.dst"]
    for transport, (kind, identifier, request, reply) in ECHOES.items():
        if packet[kind] == str(request):
            return Shown(source=(transport, source, int(packet[identifier], 0)))
        if packet[kind] == str(reply):
            return Shown(destination=(transport, destination, int(packet[identifier], 0)))
        if packet[kind]:
            return None
    for transport in ("tcp", "udp"):
        if packet[f"{transport}.srcport"]:
            return Shown(
                source=(transport, source, int(packet[f"{transport}.srcport"])),
                destination=(transport, destination, int(packet[f"{transport}.dstport"])),
                stream=int(packet[f"{transport}.stream"]),
                payload_bytes=int(packet["tcp.len"] or 0)
                or int(packet["udp.length"] or UDP_HEADER_BYTES) - UDP_HEADER_BYTES,
            )
    return None
