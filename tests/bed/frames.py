"""Raw Ethernet frames for injection, built from the RFCs' layouts."""

from __future__ import annotations

import socket
import struct

from bed.namespaces import Namespace

End = tuple[str, int]
ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_VLAN = 0x8100


def ethernet(source: Namespace, destination: Namespace, payload: bytes, vlan: int | None = None) -> bytes:
    """Return an Ethernet II frame that carries IPv4, with an IEEE 802.1Q tag when `vlan` is an id."""
    tag = b"" if vlan is None else struct.pack("!HH", ETHERTYPE_VLAN, vlan)
    return _mac(destination.mac) + _mac(source.mac) + tag + struct.pack("!H", ETHERTYPE_IPV4) + payload


def ipv4(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    """Return an IPv4 packet (RFC 791 section 3.1) without options."""
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0) + addresses
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + payload


def udp(source_port: int, destination_port: int, payload: bytes) -> bytes:
    """Return a UDP datagram (RFC 768) without a checksum."""
    return struct.pack("!HHHH", source_port, destination_port, 8 + len(payload), 0) + payload


def tcp(source: End, destination: End, *, sequence: int, acknowledgement: int, flags: int, data: bytes = b"") -> bytes:
    """Return a TCP segment (RFC 9293 section 3.1) over IPv4, with its checksum."""
    numbers = (source[1], destination[1], sequence & 0xFFFFFFFF, acknowledgement & 0xFFFFFFFF)
    header = struct.pack("!HHIIBBHHH", *numbers, 0x50, flags, 1000, 0, 0)
    addresses = socket.inet_aton(source[0]) + socket.inet_aton(destination[0])
    pseudo = addresses + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(header) + len(data))
    text = pseudo + header + data
    checksum = _checksum(text + bytes(len(text) % 2))
    return header[:16] + struct.pack("!H", checksum) + header[18:] + data


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
