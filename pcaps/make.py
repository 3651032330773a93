"""Write the capture files of this directory, one for each theme; the same bytes at every run.

Usage: python make.py [DIRECTORY]
"""  # noqa: INP001 - a program, not a package

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from pathlib import Path

import themes
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import CookedLinux, CookedLinuxV2
from scapy.packet import Packet, Raw
from scapy.utils import RawPcapNgWriter, RawPcapWriter

START = 1_700_000_000


def write(path: Path, linktype: int, packets: Iterable[Packet | tuple[bytes, int]]) -> None:
    """Write packets, one a millisecond; a packet that is cut comes with its length on the wire."""
    writer = RawPcapWriter(str(path), endianness="<")
    writer.linktype = linktype
    writer.write_header(None)
    for number, packet in enumerate(packets):
        data, wire_bytes = packet if isinstance(packet, tuple) else (bytes(packet), None)
        writer.write_packet(data, sec=START, usec=1000 * number, wirelen=wire_bytes)
    writer.close()


def write_mixed(path: Path) -> None:
    """Write one pcapng file with interfaces of several link types, their packets interleaved."""
    writer = RawPcapNgWriter(str(path))
    writer.linktype = 1
    writer.write_header(None)
    for number, packet in enumerate(themes.network_packets()):
        data = bytes(packet)
        family = struct.pack("<I", 2 if isinstance(packet, IP) else 30)
        cooked = bytes(CookedLinux(pkttype=4, proto=0x0800 if isinstance(packet, IP) else 0x86DD))
        cooked2 = bytes(CookedLinuxV2(proto=0x0800 if isinstance(packet, IP) else 0x86DD, ifindex=3))
        frames = [
            (b"eth0", 1, bytes(themes.ethernet() / packet)),
            (b"tun0", 101, data),
            (b"any", 113, cooked + data),
            (b"any2", 276, cooked2 + data),
            (b"lo0", 0, family + data),
            (b"unknown", 147, data),
        ]
        for name, linktype, frame in frames:
            writer._write_packet(frame, linktype, sec=START + number, ifname=name)  # noqa: SLF001 - takes interfaces
    writer.close()


def main(directory: Path) -> None:
    """Write all capture files into a directory."""
    write(directory / "ethernet.pcap", 1, themes.ethernet_packets())
    write(directory / "ipv4.pcap", 1, themes.ipv4_packets())
    write(directory / "ipv6.pcap", 1, themes.ipv6_packets())
    write(directory / "offload.pcap", 1, themes.offload_packets())
    write(directory / "vlan.pcap", 1, themes.vlan_packets())
    write(directory / "llc.pcap", 1, themes.llc_packets())
    write(directory / "icmp.pcap", 1, themes.icmp_packets())
    write(directory / "icmpv6.pcap", 1, themes.icmpv6_packets())
    write(directory / "fragments.pcap", 1, themes.fragment_packets())
    cooked, cooked2 = CookedLinux(pkttype=4, lladdrtype=1), CookedLinuxV2(pkttype=4, lladdrtype=1, ifindex=2)
    write(directory / "sll.pcap", 113, themes.cooked_packets(cooked))
    write(directory / "sll2.pcap", 276, themes.cooked_packets(cooked2))
    write(directory / "null-little.pcap", 0, themes.loopback_packets("<"))
    write(directory / "null-big.pcap", 0, themes.loopback_packets(">"))
    write(directory / "loop.pcap", 108, themes.loopback_packets(">"))
    write(directory / "raw.pcap", 101, [*themes.network_packets(), Raw(b"\x70" + bytes(40)), Raw(b"")])
    write(directory / "ipv4-only.pcap", 228, [p for p in themes.network_packets() if isinstance(p, IP)])
    write(directory / "ipv6-only.pcap", 229, [p for p in themes.network_packets() if isinstance(p, IPv6)])
    whole = [bytes(packet) for packet in themes.cut_packets()]
    write(directory / "cut.pcap", 1, [(data[:length], len(data)) for data in whole for length in range(len(data) + 1)])
    write_mixed(directory / "mixed.pcapng")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
