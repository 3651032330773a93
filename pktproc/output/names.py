"""Names for numbers: protocols, ethertypes, ICMP types, TCP flags, services and users.

Tables are fixed where output is a contract, so that it does not depend on files of the machine; service and user names
are the machine's own. Nothing here asks the network.
"""

from __future__ import annotations

import pwd
from functools import cache
from pathlib import Path

from pktproc.model import Protocol

TRANSPORTS = {
    0: "hopopt",
    1: "icmp",
    2: "igmp",
    4: "ipv4",
    6: "tcp",
    17: "udp",
    33: "dccp",
    41: "ipv6",
    46: "rsvp",
    47: "gre",
    50: "esp",
    51: "ah",
    58: "ipv6-icmp",
    59: "ipv6-nonxt",
    88: "eigrp",
    89: "ospf",
    94: "ipip",
    103: "pim",
    108: "ipcomp",
    112: "vrrp",
    115: "l2tp",
    132: "sctp",
    136: "udplite",
    137: "mpls-in-ip",
    139: "hip",
    143: "ethernet",
}
"""IANA keywords of protocol numbers, in lower case, as ECS wants `network.transport`."""

PORT_PROTOCOLS = frozenset({Protocol.TCP, Protocol.UDP, Protocol.UDPLITE, Protocol.SCTP, Protocol.DCCP})
"""Protocols whose flows carry port numbers, as opposed to an echo id or nothing."""

ETHERTYPES = {
    0x0800: "IPv4",
    0x0806: "ARP",
    0x8035: "RARP",
    0x86DD: "IPv6",
    0x8847: "MPLS",
    0x8848: "MPLS",
    0x8863: "PPPoE-D",
    0x8864: "PPPoE",
    0x888E: "EAPOL",
    0x88CC: "LLDP",
    0x88E5: "MACsec",
    0x88F7: "PTP",
}
"""Names of IEEE 802 ethertypes for people."""

ICMP_TYPES = {
    0: "echo reply",
    3: "destination unreachable",
    4: "source quench",
    5: "redirect",
    8: "echo request",
    9: "router advertisement",
    10: "router solicitation",
    11: "time exceeded",
    12: "parameter problem",
    13: "time stamp query",
    14: "time stamp reply",
    17: "address mask request",
    18: "address mask reply",
}
"""ICMP types (RFC 792, RFC 950, RFC 1256) in tcpdump's words."""

ICMPV6_TYPES = {
    1: "destination unreachable",
    2: "packet too big",
    3: "time exceeded",
    4: "parameter problem",
    128: "echo request",
    129: "echo reply",
    130: "multicast listener query",
    131: "multicast listener report",
    132: "multicast listener done",
    133: "router solicitation",
    134: "router advertisement",
    135: "neighbor solicitation",
    136: "neighbor advertisement",
    137: "redirect",
    143: "multicast listener report v2",
}
"""ICMPv6 types (RFC 4443, RFC 4861, RFC 2710, RFC 3810) in tcpdump's words."""

_TCP_FLAGS = ((1, "F"), (2, "S"), (4, "R"), (8, "P"), (16, "."), (32, "U"), (64, "E"), (128, "W"))
_LABELS = {"ipv6-icmp": "ICMP6", "ipip": "IPIP", "ipv4": "IPv4", "ipv6": "IPv6", "udplite": "UDP-Lite"}
_SERVICES = Path("/etc/services")


def tcp_flags(flags: int) -> str:
    """Return the flags of a TCP header as tcpdump writes them: `S`, `P.`, `F.`, `none`."""
    return "".join(letter for bit, letter in _TCP_FLAGS if flags & bit) or "none"


def transport(protocol: int) -> str | None:
    """Return the IANA keyword of an IP protocol number, None for one without a common name."""
    return TRANSPORTS.get(protocol)


def protocol_label(protocol: int) -> str:
    """Return how a line of text calls an IP protocol: `UDP`, `ICMP6`, `OSPF`, or `proto 253`."""
    name = TRANSPORTS.get(protocol)
    if name is None:
        return f"proto {protocol}"
    return _LABELS.get(name) or name.upper()


def network_type(network: int, ethertype: int) -> str | None:
    """Return ECS `network.type`: `ipv4`, `ipv6`, another ethertype's name or `0x88b5`; None when unknown."""
    if network:
        return "ipv4" if network == 4 else "ipv6"
    if not ethertype:
        return None
    return ETHERTYPES.get(ethertype, f"0x{ethertype:04x}").lower()


@cache
def services() -> dict[tuple[int, int], str]:
    """Return the names of /etc/services by protocol and port; it is read once, and nothing is known without it."""
    known = {"tcp": int(Protocol.TCP), "udp": int(Protocol.UDP)}
    table: dict[tuple[int, int], str] = {}
    try:
        text = _SERVICES.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return table
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        port, _, protocol = words[1].partition("/") if len(words) > 1 else ("", "", "")
        if protocol in known and port.isascii() and port.isdigit() and words[0].isprintable():
            table.setdefault((known[protocol], int(port)), words[0])
    return table


@cache
def user_name(uid: int) -> str | None:
    """Return the login name of a user id, None when there is none; asked once per run."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return None
