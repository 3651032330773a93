"""What a line of text says about the packet itself, apart from who is behind it."""

from __future__ import annotations

import numpy as np

from pktproc.model import V4_MAPPED_PREFIX, Flow, Protocol, format_address
from pktproc.output.names import ETHERTYPES, ICMP_TYPES, ICMPV6_TYPES, PORT_PROTOCOLS, protocol_label, services
from pktproc.packets.batch import Column
from pktproc.packets.linktypes import ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6

ARP_HEADER = np.dtype(
    [
        ("hardware", ">u2"),
        ("protocol", ">u2"),
        ("hardware_bytes", "u1"),
        ("protocol_bytes", "u1"),
        ("operation", ">u2"),
        ("sender_link", "u1", 6),
        ("sender", "u1", 4),
        ("target_link", "u1", 6),
        ("target", "u1", 4),
    ]
)
"""ARP for IPv4 over Ethernet (RFC 826)."""

ECHO_HEADER = np.dtype({"names": ["sequence"], "formats": [">u2"], "offsets": [6], "itemsize": 8})
"""The sequence number of an ICMP or ICMPv6 echo or an ICMP time stamp message (RFC 792, RFC 4443)."""

_ICMP_HEADER_BYTES = 8
# One entry more than there are numbers, so that -1 (not IP, no ICMP type) finds the last, which is False.
_IS_ICMP = np.zeros(257, bool)
_IS_ICMP[[Protocol.ICMP, Protocol.ICMPV6]] = True
_V4_ECHO = np.zeros(257, bool)
_V4_ECHO[[0, 8, 13, 14]] = True
_V6_ECHO = np.zeros(257, bool)
_V6_ECHO[[128, 129]] = True
_QUERIES = {(1, 8), (1, 13), (58, 128)}
_REPLIES = {(1, 0), (1, 14), (58, 129)}


def address_text(address: bytes, protocol: int, port: int | None, *, numeric: bool) -> str:
    """Return `10.77.0.1.80`, or without the port if that is None; ports have service names unless `numeric`."""
    text = format_address(address)
    if port is None:
        return text
    if not numeric:
        return f"{text}.{services().get((protocol, port), port)}"
    return f"{text}.{port}"


def endpoints(flow: Flow, *, numeric: bool) -> tuple[str, str]:
    """Return the texts of a flow's two addresses, with ports where the protocol has them and the packet shows them."""
    shown = flow.protocol in PORT_PROTOCOLS and flow.ports_known
    source_port, destination_port = (flow.source_port, flow.destination_port) if shown else (None, None)
    return (
        address_text(flow.source_address, flow.protocol, source_port, numeric=numeric),
        address_text(flow.destination_address, flow.protocol, destination_port, numeric=numeric),
    )


def family(flow: Flow) -> str:
    """Return the network protocol in front of a line: `IP `, `IP6 `, `ARP, `, or nothing."""
    if flow.protocol < 0:
        return "ARP, " if flow.ethertype == ETHERTYPE_ARP else ""
    return "IP " if flow.source_address.startswith(V4_MAPPED_PREFIX) else "IP6 "


def label(flow: Flow, icmp_code: int, *, quiet: bool, numeric: bool) -> str:
    """Return what comes before the length: `UDP`, `ICMP echo request, id 7`, `OSPF`, `ethertype 0x88b5`."""
    if flow.protocol < 0:
        return _not_ip(flow.ethertype)
    if _IS_ICMP[flow.protocol] and flow.icmp_type >= 0:
        return _icmp(flow, icmp_code, quiet=quiet, numeric=numeric)
    return protocol_label(flow.protocol)


def is_echo(protocol: Column, icmp_type: Column) -> Column:
    """Return a bool column: packets whose ICMP header has an id and a sequence number."""
    mask: Column = _IS_ICMP[protocol] & np.where(protocol == Protocol.ICMP, _V4_ECHO[icmp_type], _V6_ECHO[icmp_type])
    return mask


def lengths(protocol: Column, payload_bytes: Column, fragment: Column) -> Column:
    """Return the lengths that tcpdump shows: of the payload, but of the whole message for ICMP and ICMPv6."""
    shown: Column = payload_bytes + _ICMP_HEADER_BYTES * (_IS_ICMP[protocol] & (fragment != 2))
    return shown


def arp(header: np.void, length: int) -> str:
    """Return the text of an ARP message from a row of `ARP_HEADER` and the length after the link header."""
    layout = (header["hardware"], header["protocol"], header["hardware_bytes"], header["protocol_bytes"])
    operation = int(header["operation"])
    if layout != (1, 0x0800, 6, 4) or operation not in (1, 2):
        return f"operation {operation}, length {length}"
    sender, target = (".".join(map(str, header[field].tolist())) for field in ("sender", "target"))
    if operation == 2:
        return f"Reply {sender} is-at {link_address(header['sender_link'].tobytes())}, length {length}"
    return f"Request who-has {target} tell {sender}, length {length}"


def link_address(octets: bytes) -> str:
    """Return a link-layer address as `02:00:00:00:00:01`."""
    return octets.hex(":")


def ethertype_text(ethertype: int) -> str:
    """Return `IPv4 (0x0800)`, or `Unknown (0x88b5)`, as `-e` shows it."""
    return f"{ETHERTYPES.get(ethertype, 'Unknown')} (0x{ethertype:04x})"


def _not_ip(ethertype: int) -> str:
    if ethertype in (ETHERTYPE_IPV4, ETHERTYPE_IPV6):
        return f"{'IP' if ethertype == ETHERTYPE_IPV4 else 'IP6'} header cut or broken"
    if ethertype == ETHERTYPE_ARP:
        return "cut"
    name = ETHERTYPES.get(ethertype)
    if ethertype == 0:
        return "unknown network protocol"
    return f"ethertype 0x{ethertype:04x}" if name is None else f"ethertype {name} (0x{ethertype:04x})"


def _icmp(flow: Flow, code: int, *, quiet: bool, numeric: bool) -> str:
    v4 = flow.protocol == Protocol.ICMP
    name = (ICMP_TYPES if v4 else ICMPV6_TYPES).get(flow.icmp_type)
    head = "ICMP " if v4 else "ICMP6, "
    kind = (int(flow.protocol), flow.icmp_type)
    if kind in _QUERIES or kind in _REPLIES:
        identifier = flow.source_port if kind in _QUERIES else flow.destination_port
        return f"{head}{name}, id {identifier}" if flow.ports_known else f"{head}{name}"
    if name is None:
        return f"{head}type {flow.icmp_type} code {code}"
    if flow.quoted is None:
        return f"{head}{name} (type {flow.icmp_type} code {code})" if code > 0 else f"{head}{name}"
    text = f"{head}{name} (type {flow.icmp_type} code {code})"
    if quiet:
        return text
    source, destination = endpoints(flow.quoted, numeric=numeric)
    return f"{text} for {protocol_label(flow.quoted.protocol)} {source} > {destination}"
