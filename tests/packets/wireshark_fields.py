"""What tshark says about the packets of a capture file, in the words of our columns."""

from __future__ import annotations

import ipaddress
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree as ET

from pktproc.model import V4_MAPPED_PREFIX

ETHERTYPES = {"ip": 0x0800, "ipv6": 0x86DD}
PORT_PREFIXES = {"tcp": "tcp", "udp": "udp", "udplite": "udp", "sctp": "sctp", "dccp": "dccp"}
ICMPS = {"icmp": "icmp.ident", "icmpv6": "icmpv6.echo.identifier"}
REQUESTS = {("icmp", 8), ("icmp", 13), ("icmpv6", 128)}
REPLIES = {("icmp", 0), ("icmp", 14), ("icmpv6", 129)}
HEADER_BYTES = {"tcp": 20, "udp": 8, "udplite": 8, "sctp": 12, "dccp": 12}
LAYERS = {*ETHERTYPES, *PORT_PREFIXES, *ICMPS}
ETHERTYPE_FIELDS = {"eth.type", "vlan.etype", "ieee8021ah.etype", "sll.etype"}
LENGTH_FIELDS = {"eth.len", "vlan.len", "sll.ltype"}
VLAN_FIELDS = {"vlan.id", "ieee8021ad.id", "ieee8021ad.svid", "ieee8021ad.cvid"}
NEXT_HEADER_FIELDS = {
    "ip.proto",
    "ipv6.nxt",
    "ipv6.hopopts.nxt",
    "ipv6.dstopts.nxt",
    "ipv6.routing.nxt",
    "ipv6.fraghdr.nxt",
    "ah.next_header",
    "mip6.proto",
    "hip.proto",
    "shim6.nxt",
}


@dataclass(frozen=True)
class Dissected:
    """A packet; what is None, tshark does not show."""

    ethertype: int = 0
    vlans: tuple[int, ...] = ()
    network: int = 0
    protocol: int = -1
    source: bytes = bytes(16)
    destination: bytes = bytes(16)
    fragment: int = 0
    identification: int | None = None
    network_at: int | None = None
    transport_at: int | None = None
    source_port: int | None = None
    destination_port: int | None = None
    tcp_flags: int = 0
    icmp_type: int = -1
    icmp_code: int = -1
    ports_known: bool = True
    payload_bytes: int | None = None
    quoted: Dissected | None = None


@dataclass(frozen=True)
class Layer:
    """A protocol of a packet: its fields in order, and the layers of the packet that it quotes."""

    name: str
    at: int
    fields: tuple[tuple[str, str], ...]
    quoted: tuple[Layer, ...]

    def first(self, *names: str) -> int | None:
        return next((int(value, 0) for name, value in self.fields if name in names), None)

    def text(self, name: str) -> str | None:
        return next((value for field, value in self.fields if field == name), None)


def dissect(path: Path) -> list[Dissected]:
    preferences = ("ip.defragment", "ipv6.defragment", "tcp.desegment_tcp_streams")
    options = [word for name in preferences for word in ("-o", f"{name}:FALSE")]
    run = subprocess.run(["tshark", "-n", "-r", path, "-T", "pdml", *options], capture_output=True, check=True)
    packets = [[_layer(proto) for proto in packet] for packet in ET.fromstring(run.stdout)]
    return [_packet(layers[2:], frame_bytes=layers[1].first("frame.len") or 0) for layers in packets]


def _layer(proto: ET.Element) -> Layer:
    fields: list[tuple[str, str]] = []
    quoted: list[Layer] = []

    def visit(element: ET.Element) -> None:
        for child in element:
            if child.tag == "proto" and child.get("name") in LAYERS:
                quoted.append(_layer(child))
            else:
                fields.append((child.get("name", ""), child.get("show", "")))
                visit(child)

    visit(proto)
    return Layer(proto.get("name", ""), int(proto.get("pos", "-1")), tuple(fields), tuple(quoted))


def _packet(layers: list[Layer], frame_bytes: int) -> Dissected:
    at = next((index for index, layer in enumerate(layers) if layer.name in ETHERTYPES), len(layers))
    link, rest = layers[:at], layers[at:]
    ethertype = 0
    vlans = []
    for layer in link:
        for name, value in layer.fields:
            if name in ETHERTYPE_FIELDS or (name == "llc.type" and layer.first("llc.oui") == 0):
                ethertype = int(value, 0)
            elif name in LENGTH_FIELDS:
                ethertype = 0
            elif name in VLAN_FIELDS:
                vlans.append(int(value, 0))
    if rest and all(layer.name in {"null", "raw"} for layer in link):
        ethertype = ETHERTYPES[rest[0].name]
    return replace(_datagram(rest, frame_bytes), ethertype=ethertype, vlans=tuple(vlans))


def _datagram(layers: list[Layer], frame_bytes: int) -> Dissected:
    """The outermost IP header, and what is above it below the next one."""
    if not layers or layers[0].text(f"{layers[0].name}.dst") is None:
        return Dissected()
    ip = layers[0]
    end = next((index for index, layer in enumerate(layers) if index and layer.name in ETHERTYPES), len(layers))
    fields = [field for layer in layers[:end] for field in layer.fields]
    whole = Layer("", 0, tuple(fields), ())
    more = whole.first("ip.flags.mf", "ipv6.fraghdr.more")
    datagram = Dissected(
        ethertype=ETHERTYPES[ip.name],
        network=4 if ip.name == "ip" else 6,
        network_at=ip.at,
        protocol=[int(value, 0) for name, value in fields if name in NEXT_HEADER_FIELDS][-1],
        source=_address(ip.text(f"{ip.name}.src")),
        destination=_address(ip.text(f"{ip.name}.dst")),
        fragment=2 if whole.first("ip.frag_offset", "ipv6.fraghdr.offset") else 1 if more else 0,
        identification=whole.first("ip.id", "ipv6.fraghdr.ident"),
    )
    length = ip.first("ip.len", "ipv6.plen")
    ends_at = ip.at + length + (40 if ip.name == "ipv6" else 0) if length else frame_bytes
    for layer in layers[1:end]:
        if layer.name in PORT_PREFIXES:
            return _with_ports(datagram, layer, ends_at)
        if layer.name in ICMPS:
            return _with_icmp(datagram, layer, ends_at)
    hdr_len = ip.first("ip.hdr_len")
    return datagram if hdr_len is None else replace(datagram, payload_bytes=ends_at - ip.at - hdr_len)


def _with_ports(datagram: Dissected, layer: Layer, ends_at: int) -> Dissected:
    prefix = PORT_PREFIXES[layer.name]
    dccp_words = layer.first("dccp.data_offset")
    header_bytes = dccp_words * 4 if dccp_words else layer.first("tcp.hdr_len") or HEADER_BYTES[layer.name]
    return replace(
        datagram,
        transport_at=layer.at,
        source_port=layer.first(f"{prefix}.srcport"),
        destination_port=layer.first(f"{prefix}.dstport"),
        tcp_flags=(layer.first("tcp.flags") or 0) & 0xFF,
        payload_bytes=max(0, ends_at - layer.at - header_bytes),
    )


def _with_icmp(datagram: Dissected, layer: Layer, ends_at: int) -> Dissected:
    icmp_type = layer.first(f"{layer.name}.type")
    icmp_code = layer.first(f"{layer.name}.code")
    identifier = layer.first(ICMPS[layer.name])
    return replace(
        datagram,
        transport_at=layer.at,
        source_port=identifier if (layer.name, icmp_type) in REQUESTS else None,
        destination_port=identifier if (layer.name, icmp_type) in REPLIES else None,
        icmp_type=-1 if icmp_type is None else icmp_type,
        icmp_code=-1 if icmp_code is None else icmp_code,
        payload_bytes=max(0, ends_at - layer.at - 8),
        quoted=_datagram(list(layer.quoted), 0) if layer.quoted else None,
    )


def _address(text: str | None) -> bytes:
    packed = ipaddress.ip_address(text or "").packed
    return V4_MAPPED_PREFIX + packed if len(packed) == 4 else packed
