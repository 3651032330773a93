"""The packets of the capture files, theme by theme."""  # noqa: INP001 - beside the program that writes them

# ruff: noqa: D103 - the names say which packets

from __future__ import annotations

import struct
from collections.abc import Iterable

from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.ipsec import AH, ESP
from scapy.layers.l2 import ARP, GRE, LLC, SNAP, STP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.layers.sctp import SCTP, SCTPChunkData, SCTPChunkInit
from scapy.packet import Packet, Raw

A4, B4, ROUTER4 = "10.77.0.1", "10.77.0.2", "10.77.0.254"
A6, B6, ROUTER6 = "fd77::1", "fd77::2", "fd77::fe"
# No dissector of Wireshark's claims these.
PORT, SERVICE = 40001, 40002
DATA = Raw(b"pktproc-" * 4)


def ethernet(ethertype: int | None = None) -> Packet:
    fields = {} if ethertype is None else {"type": ethertype}
    return Ether(dst="02:77:00:00:00:02", src="02:77:00:00:00:01", **fields)


def ip4(**fields: object) -> Packet:
    return IP(**{"src": A4, "dst": B4, "id": 77, **fields})


def ip6(**fields: object) -> Packet:
    return IPv6(**{"src": A6, "dst": B6, **fields})


def udp(source: int = PORT, destination: int = SERVICE) -> Packet:
    return UDP(sport=source, dport=destination)


def tcp(flags: str = "A", **fields: object) -> Packet:
    return TCP(**{"sport": PORT, "dport": SERVICE, "seq": 1, "flags": flags, **fields})


def udplite() -> Packet:
    return Raw(struct.pack("!HHHH", PORT, SERVICE, 8, 0xBEEF) + bytes(DATA))


def dccp() -> Packet:
    request = struct.pack("!HHBBHBBHII", PORT, SERVICE, 5, 0, 0, 0x01, 0, 0, 7, 0x12345678)
    return Raw(request + bytes(DATA))


def payloads() -> list[tuple[int, Packet]]:
    """Return every kind of thing above IP, with its protocol number."""
    return [
        (17, udp() / DATA),
        *((6, tcp(flags) / DATA) for flags in ("S", "SA", "A", "PA", "FA", "R", "RA", "UEC", "FSRPAUEC")),
        (6, tcp("S", options=[("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 7)])),
        (132, SCTP(sport=PORT, dport=SERVICE, tag=1) / SCTPChunkInit(init_tag=2)),
        (132, SCTP(sport=PORT, dport=SERVICE, tag=1) / SCTPChunkData(data=bytes(DATA), len=48)),
        (33, dccp()),
        (136, udplite()),
        (50, ESP(spi=1, seq=1, data=bytes(DATA))),
        (47, GRE(proto=0x0800) / IP(src="10.77.9.1", dst="10.77.9.2", id=1) / udp(7001, 7002) / DATA),
        (4, IP(src="10.77.9.1", dst="10.77.9.2", id=1) / udp(7001, 7002) / DATA),
        (41, IPv6(src="fd77:9::1", dst="fd77:9::2") / udp(7001, 7002) / DATA),
        (2, Raw(bytes.fromhex("1600f7b2e0000107"))),
        (89, Raw(bytes.fromhex("0201002c0a4d000100000000") + bytes(32))),
        (253, DATA),
    ]


def ethernet_packets() -> Iterable[Packet]:
    for protocol, payload in payloads():
        yield ethernet() / ip4(proto=protocol) / payload
        yield ethernet() / ip6(nh=protocol) / payload
    yield ethernet() / ip6(nh=59) / DATA
    yield ethernet() / ARP(hwsrc="02:77:00:00:00:01", psrc=A4, pdst=B4)
    yield ethernet(0x88CC) / Raw(bytes.fromhex("0207040277000000010403070000060200780000"))
    yield ethernet(0x88B5) / DATA
    yield ethernet(0x88B5)


def ipv4_packets() -> Iterable[Packet]:
    yield ethernet() / ip4(options=[IPOption_NOP()] * 4) / udp() / DATA
    yield ethernet() / ip4(options=[IPOption_RR(length=39, pointer=4, routers=[B4] * 9), IPOption_NOP()]) / tcp()
    # Link padding is no payload, not even where it looks like a header.
    yield ethernet() / ip4(len=20, proto=17) / udp() / DATA
    yield ethernet() / ip4(len=24, proto=17) / udp() / DATA
    yield ethernet() / ip4() / udp() / Raw(b"a") / Raw(b"\x00" * 17)
    yield ethernet() / ip4(len=40) / tcp("A") / Raw(bytes(6))
    # Broken headers.
    yield ethernet() / ip4(ihl=4) / udp() / DATA
    yield ethernet() / ip4(ihl=0) / udp() / DATA
    yield ethernet() / ip4(version=6) / udp() / DATA
    yield ethernet() / ip4(version=5) / udp() / DATA
    yield ethernet() / ip4(len=19) / udp() / DATA
    yield ethernet(0x86DD) / ip4() / udp() / DATA
    yield ethernet(0x0800) / ip6() / udp() / DATA


def offload_packets() -> Iterable[Packet]:
    big = Raw(b"0123456789" * 300)
    yield ethernet() / ip4(len=0) / tcp("PA") / big
    yield ethernet() / ip4(len=0) / udp() / big


def extensions(next_header: int) -> list[Packet]:
    """Return every IPv6 extension header, and all of them in a row; scapy leaves it to us what follows AH."""
    hop_by_hop = IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\x00" * 4)])
    destination = IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\x00" * 12)])
    routing = IPv6ExtHdrRouting(type=0, segleft=0, addresses=[ROUTER6])
    authentication = {"spi": 1, "seq": 1, "icv": b"\x00" * 12, "payloadlen": 4}
    atomic = IPv6ExtHdrFragment(offset=0, m=0, id=9)
    return [
        hop_by_hop,
        destination,
        routing,
        AH(nh=next_header, **authentication),
        atomic,
        hop_by_hop / destination / routing / atomic / AH(nh=60, **authentication) / destination.copy(),
        IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt() / IPv6ExtHdrDestOpt(),
    ]


def simple_extension(next_header: int, number_of_words: int = 1) -> bytes:
    """Return an extension header in the uniform format of RFC 6564."""
    return struct.pack("!BB", next_header, number_of_words - 1) + bytes(8 * number_of_words - 2)


def ipv6_packets() -> Iterable[Packet]:
    for protocol, payload in ((17, udp() / DATA), (6, tcp("S")), (58, ICMPv6EchoRequest(id=0x7777, seq=1) / DATA)):
        for extension in extensions(protocol):
            yield ethernet() / ip6() / extension / payload
    for protocol in (135, 139, 140):
        yield ethernet() / ip6(nh=protocol) / Raw(simple_extension(59, 3))
    yield ethernet() / ip6(nh=0) / Raw(simple_extension(60) + simple_extension(17, 2)) / udp() / DATA
    yield ethernet() / ip6(nh=60) / Raw(simple_extension(59)) / DATA
    yield ethernet() / ip6(nh=60) / Raw(simple_extension(50)) / ESP(spi=1, seq=1, data=bytes(DATA))
    yield ethernet() / ip6(src="::", dst="ff02::1:ff00:2") / ICMPv6ND_NS(tgt=B6)
    yield ethernet() / ip6(plen=12) / udp() / DATA


def vlan_packets() -> Iterable[Packet]:
    for network in (ip4() / udp() / DATA, ip6() / tcp("S"), ARP(psrc=A4, pdst=B4)):
        yield ethernet() / Dot1Q(vlan=77, prio=5) / network
        yield ethernet() / Dot1Q(vlan=0, prio=7) / network
        yield ethernet() / Dot1Q(vlan=4095) / network
        yield ethernet() / Dot1AD(vlan=100) / Dot1Q(vlan=200) / network
        yield ethernet(0x9100) / Dot1Q(vlan=101) / Dot1Q(vlan=201) / network
        yield ethernet() / Dot1Q(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / network
        yield ethernet() / Dot1AD(vlan=10) / Dot1AD(vlan=20) / Dot1Q(vlan=30) / Dot1Q(vlan=40) / network
    yield ethernet() / Dot1Q(vlan=77) / ip4(options=[IPOption_NOP()] * 8) / tcp("SA")


def llc_packets() -> Iterable[Packet]:
    frame = Dot3(dst="02:77:00:00:00:02", src="02:77:00:00:00:01")
    snap = LLC(dsap=0xAA, ssap=0xAA, ctrl=3)
    inner = bytes(ip4() / udp() / DATA)
    yield frame / snap / SNAP(OUI=0, code=0x0800) / Raw(inner)
    yield frame / snap / SNAP(OUI=0, code=0x86DD) / Raw(bytes(ip6() / tcp("S")))
    yield frame / snap / SNAP(OUI=0, code=0x0806) / Raw(bytes(ARP(psrc=A4, pdst=B4)))
    # Another organisation's protocol 0x0800 is not IP.
    yield frame / snap / SNAP(OUI=0x00000C, code=0x2000) / Raw(inner)
    yield frame / snap / SNAP(OUI=0x123456, code=0x0800) / Raw(inner)
    yield frame / LLC(dsap=0x42, ssap=0x42, ctrl=3) / STP()
    tagged = bytes(snap / SNAP(OUI=0, code=0x0800) / Raw(inner))
    yield ethernet() / Dot1Q(vlan=77, type=len(tagged)) / Raw(tagged)
    yield frame / snap / SNAP(OUI=0, code=0x8100) / Raw(struct.pack("!HH", 77, 0x0800) + inner)


def quotes4() -> list[Packet]:
    """Return what a router quotes: the IP header and 8 bytes more, or more."""
    options = ip4(src=B4, dst=A4, options=[IPOption_NOP()] * 4) / udp() / DATA
    return [
        Raw(bytes(ip4(src=B4, dst=A4) / udp() / DATA)),
        Raw(bytes(ip4(src=B4, dst=A4) / udp() / DATA)[:28]),
        Raw(bytes(ip4(src=B4, dst=A4) / tcp("S"))[:28]),
        Raw(bytes(options)[:32]),
        Raw(bytes(ip4(src=B4, dst=A4) / ICMP(type=8, id=0x1234, seq=1) / DATA)[:28]),
        Raw(bytes(ip4(src=B4, dst=A4, proto=132) / SCTP(sport=PORT, dport=SERVICE, tag=1))),
        Raw(bytes(ip4(src=B4, dst=A4, proto=253) / DATA)[:28]),
    ]


def icmp_packets() -> Iterable[Packet]:
    for kind in (8, 0):
        yield ethernet() / ip4() / ICMP(type=kind, id=0xABCD, seq=3) / DATA
    for kind in (13, 14):
        yield ethernet() / ip4() / ICMP(type=kind, id=0xABCE, seq=4, ts_ori=1, ts_rx=2, ts_tx=3)
    yield ethernet() / ip4() / ICMP(type=10)
    errors = [(3, 0), (3, 1), (3, 3), (3, 4), (4, 0), (5, 1), (11, 0), (12, 0)]
    for kind, code in errors:
        yield ethernet() / ip4(src=ROUTER4) / ICMP(type=kind, code=code) / quotes4()[0]
    for quote in quotes4():
        yield ethernet() / ip4(src=ROUTER4) / ICMP(type=3, code=3) / quote
        yield ethernet() / Dot1Q(vlan=77) / ip4(src=ROUTER4, options=[IPOption_NOP()] * 4) / ICMP(type=11) / quote
    unreachable = ip4(src=B4, dst=A4) / ICMP(type=3, code=1) / Raw(bytes(ip4() / udp())[:28])
    yield ethernet() / ip4(src=ROUTER4) / ICMP(type=3, code=1) / Raw(bytes(unreachable))


def icmpv6_packets() -> Iterable[Packet]:
    yield ethernet() / ip6() / ICMPv6EchoRequest(id=0xABCD, seq=3, data=bytes(DATA))
    yield ethernet() / ip6() / ICMPv6EchoReply(id=0xABCD, seq=3, data=bytes(DATA))
    yield ethernet() / ip6() / ICMPv6ND_NS(tgt=B6)
    back = {"src": B6, "dst": A6}
    quotes = [
        ip6(**back) / udp() / DATA,
        ip6(**back) / tcp("S"),
        ip6(**back) / IPv6ExtHdrDestOpt() / udp() / DATA,
        ip6(**back) / IPv6ExtHdrFragment(offset=0, m=1, id=5) / udp() / DATA,
        ip6(**back) / ICMPv6EchoRequest(id=0x4321, seq=1),
        ip6(**back, nh=253) / DATA,
    ]
    kinds = [ICMPv6DestUnreach(code=4), ICMPv6PacketTooBig(mtu=1280), ICMPv6TimeExceeded(), ICMPv6ParamProblem(code=1)]
    for kind in kinds:
        for quote in quotes:
            yield ethernet() / ip6(src=ROUTER6) / kind / Raw(bytes(quote))
            yield ethernet() / ip6(src=ROUTER6) / IPv6ExtHdrHopByHop() / kind / Raw(bytes(quote))


def split4(datagram: Packet, size: int) -> list[Packet]:
    header, payload = datagram.copy(), bytes(datagram.payload)
    header.remove_payload()
    pieces = range(0, len(payload), size)
    same = {"src": header.src, "dst": header.dst, "id": header.id, "proto": header.proto}
    return [
        ethernet() / ip4(**same, frag=at // 8, flags=int(at != pieces[-1])) / Raw(payload[at : at + size])
        for at in pieces
    ]


def split6(datagram: Packet, size: int, identification: int, *, next_header: int) -> list[Packet]:
    payload = bytes(datagram.payload)
    pieces = range(0, len(payload), size)
    return [
        ethernet()
        / ip6(nh=44)
        / IPv6ExtHdrFragment(nh=next_header, offset=at // 8, m=int(at != pieces[-1]), id=identification)
        / Raw(payload[at : at + size])
        for at in pieces
    ]


def fragment_packets() -> Iterable[Packet]:
    long = Raw(b"fragment" * 12)
    yield from split4(IP(bytes(ip4(id=1) / udp() / long)), 40)
    yield from reversed(split4(IP(bytes(ip4(id=2) / udp(40003) / long)), 40))
    yield from split4(IP(bytes(ip4(id=3) / ICMP(type=8, id=0x7777, seq=1) / long)), 40)
    yield from split4(IP(bytes(ip4(id=3, proto=253) / long)), 40)
    # The same identification between other hosts, and again for another datagram.
    yield from split4(IP(bytes(ip4(id=1, src=ROUTER4) / udp(40004) / long)), 40)
    yield from split4(IP(bytes(ip4(id=1) / udp(40005) / long)), 40)
    # Later fragments of a datagram whose first one got lost.
    yield from split4(IP(bytes(ip4(id=4) / udp(40006) / long)), 40)[1:]
    yield from split6(ip6() / udp() / long, 40, 1, next_header=17)
    yield from reversed(split6(ip6() / udp(40003) / long, 40, 2, next_header=17))
    yield from split6(ip6() / ICMPv6EchoRequest(id=0x7777, seq=1) / long, 40, 3, next_header=58)
    yield from split6(ip6(nh=60) / Raw(simple_extension(17)) / udp(40007) / long, 40, 4, next_header=60)
    yield from split6(ip6() / udp(40008) / long, 40, 5, next_header=17)[1:]
    yield ethernet() / ip6() / IPv6ExtHdrFragment(nh=17, offset=0, m=0, id=6) / udp(40009) / DATA


def cooked_packets(cooked: Packet) -> Iterable[Packet]:
    """Yield packets behind a cooked header; `cooked` has everything but its protocol."""

    def behind(protocol: int, rest: Packet) -> Packet:
        return type(cooked)(**{**cooked.fields, "proto": protocol}) / Raw(bytes(rest))

    yield behind(0x0800, ip4() / udp() / DATA)
    yield behind(0x86DD, ip6() / tcp("S"))
    yield behind(0x0806, ARP(psrc=A4, pdst=B4))
    yield behind(0x8100, Dot1Q(vlan=77, prio=1) / ip4() / udp() / DATA)
    yield behind(0x88A8, Dot1AD(vlan=100) / Dot1Q(vlan=200) / ip6() / udp() / DATA)
    yield behind(0x0004, LLC(dsap=0xAA, ssap=0xAA, ctrl=3) / SNAP(OUI=0, code=0x0800) / ip4() / udp() / DATA)
    yield behind(0x0004, LLC(dsap=0x42, ssap=0x42, ctrl=3) / STP())
    yield behind(0x0001, DATA)
    yield behind(0x000C, Raw(bytes(16)))
    yield type(cooked)(**{**cooked.fields, "lladdrtype": 824, "proto": 0}) / Raw(bytes(32))


def network_packets() -> list[Packet]:
    return [
        ip4() / udp() / DATA,
        ip4(options=[IPOption_NOP()] * 4) / tcp("S"),
        ip6() / tcp("PA") / DATA,
        ip6() / IPv6ExtHdrHopByHop() / udp() / DATA,
        ip4(src=ROUTER4) / ICMP(type=3, code=3) / quotes4()[0],
    ]


def loopback_packets(order: str) -> Iterable[Packet]:
    """Yield packets behind a BSD address family in the byte order `order`."""
    for packet in network_packets():
        families = (2,) if isinstance(packet, IP) else (24, 28, 30)
        for family in families:
            yield Raw(struct.pack(order + "I", family)) / Raw(bytes(packet))
    yield Raw(struct.pack(order + "I", 7)) / DATA


def cut_packets() -> Iterable[Packet]:
    """Yield packets to be stored cut after each of their bytes."""
    yield ethernet() / Dot1Q(vlan=77) / ip4(options=[IPOption_NOP()] * 4) / tcp("PA")
    yield ethernet() / ip6() / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / udp() / Raw(b"data")
    yield ethernet() / ip4(src=ROUTER4) / ICMP(type=3, code=3) / quotes4()[1]
    yield ethernet() / ip6() / ICMPv6EchoRequest(id=0x7777, seq=1)
