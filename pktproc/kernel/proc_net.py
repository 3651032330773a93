"""Sockets in the tables of /proc/net (proc_pid_net(5)): text to sockets, one function for each layout."""

from __future__ import annotations

import sys
from collections.abc import Container, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pktproc.model import UNSPECIFIED, V4_MAPPED_PREFIX, Protocol, Socket

# table -> (protocol or None for raw, where the local "port" is the protocol number). The "6" tables have the same
# layout.
INET_TABLES: dict[str, Protocol | None] = {
    "tcp": Protocol.TCP,
    "tcp6": Protocol.TCP,
    "udp": Protocol.UDP,
    "udp6": Protocol.UDP,
    "udplite": Protocol.UDPLITE,
    "udplite6": Protocol.UDPLITE,
    "raw": None,
    "raw6": None,
    "icmp": Protocol.ICMP,
    "icmp6": Protocol.ICMPV6,
}
RAW_TABLES = ("raw", "raw6")
ICMP_TABLES = ("icmp", "icmp6")
PACKET_TABLE = "packet"
_INET_FIELDS = 10  # sl local remote st queues timer retrnsmt uid timeout inode
_PACKET_FIELDS = 9  # sk RefCnt Type Proto Iface R Rmem User Inode


def parse_address(text: str) -> tuple[bytes, int]:
    """Return (address, port) of `0100007F:1F90`: 32-bit words in host order, in hexadecimal; raise ValueError."""
    digits, _, port = text.partition(":")
    words = bytes.fromhex(digits)
    if sys.byteorder == "little":
        words = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
    if len(words) == 4:
        words = V4_MAPPED_PREFIX + words
    if len(words) != 16:
        message = f"not an address: {text!r}"
        raise ValueError(message)
    return words, int(port, 16)


class InetLine(NamedTuple):
    """What a line of an inet table says; `uid` is None where the inode is 0, since the kernel then prints 0."""

    local_address: bytes
    local_port: int
    remote_address: bytes
    remote_port: int
    state: int
    uid: int | None
    inode: int


def parse_line(fields: Sequence[str]) -> InetLine | None:
    """Return what the fields of a line say, None for the heading and what does not parse."""
    if len(fields) < _INET_FIELDS:
        return None
    try:
        state, uid, inode = int(fields[3], 16), int(fields[7]), int(fields[9])
        return InetLine(*parse_address(fields[1]), *parse_address(fields[2]), state, uid if inode else None, inode)
    except ValueError:
        return None


def parse_inet(
    lines: Iterator[str], netns: int, protocol: Protocol | None, ports: Container[str] | None = None
) -> Iterator[Socket]:
    """Yield the sockets of an inet table; `protocol` None means a raw table. Lines that do not parse are passed over.

    With `ports`, four hexadecimal digits each, sockets with other local ports are, too. The cookie is 0: procfs does
    not tell it.
    """
    for line in lines:
        fields = line.split()
        if ports is not None and (len(fields) < _INET_FIELDS or fields[1][-4:] not in ports):
            continue
        told = parse_line(fields)
        if told is not None:
            yield Socket(
                netns=netns,
                protocol=told.local_port if protocol is None else protocol,
                local_address=told.local_address,
                local_port=told.local_port,
                remote_address=told.remote_address,
                remote_port=told.remote_port,
                state=told.state,
                inode=told.inode,
                cookie=0,
                uid=told.uid,
                raw=protocol is None,
            )


def parse_packet(lines: Iterator[str], netns: int) -> Iterator[Socket]:
    """Yield the packet sockets of /proc/net/packet.

    `protocol` is -1, `local_port` the ethertype that the socket takes (3 for all), `ifindex` its interface or 0.
    """
    for line in lines:
        fields = line.split()
        if len(fields) < _PACKET_FIELDS:
            continue
        try:
            ethertype, ifindex = int(fields[3], 16), int(fields[4])
            uid, inode = int(fields[7]), int(fields[8])
        except ValueError:
            continue
        yield Socket(
            netns=netns,
            protocol=-1,
            local_address=UNSPECIFIED,
            local_port=ethertype,
            remote_address=UNSPECIFIED,
            remote_port=0,
            state=0,
            inode=inode,
            cookie=0,
            uid=uid if inode else None,
            ifindex=ifindex,
            raw=True,
        )


def hexadecimal(port: int) -> str:
    """Return a port as the tables show it."""
    return f"{port:04X}"


def read_table(net: Path, table: str, netns: int, ports: Container[str] | None = None) -> list[Socket]:
    """Return the sockets of one table under `net` (/proc/PID/net); none if the kernel has no such table.

    `ports` leaves out all with other local ports, except raw sockets, which have none.
    """
    try:
        with (net / table).open(encoding="ascii", errors="replace") as lines:
            if table == PACKET_TABLE:
                return list(parse_packet(lines, netns))
            protocol = INET_TABLES[table]
            return list(parse_inet(lines, netns, protocol, None if protocol is None else ports))
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return []


def in_use(net: Path) -> dict[str, int]:
    """Return how many sockets a namespace has by kind: `TCP`, `UDP`, `UDPLITE`, `RAW`; nothing of what is not told.

    The numbers are those in `TCP: inuse 12 ...` of sockstat and sockstat6 (sockstat_seq_show in net/ipv4/proc.c). Of
    TCP those in TIME_WAIT or half open do not count.
    """
    counts: dict[str, int] = {}
    for name in ("sockstat", "sockstat6"):
        try:
            text = (net / name).read_text(encoding="ascii", errors="replace")
        except OSError:
            if name == "sockstat":
                return {}
            continue  # without IPv6
        for line in text.splitlines():
            kind, _, rest = line.partition(": inuse ")
            number = rest.partition(" ")[0]
            if number.isdecimal():
                kind = kind.removesuffix("6")
                counts[kind] = counts.get(kind, 0) + int(number)
    return counts


def tables_of(protocol: int) -> tuple[str, ...]:
    """Return the tables that can hold a socket which sends or takes packets of an IP protocol."""
    wanted = tuple(name for name, number in INET_TABLES.items() if number == protocol)
    return wanted if protocol in (Protocol.TCP, Protocol.UDP, Protocol.UDPLITE) else (*wanted, "raw", "raw6")
