"""Where our lines mean to read like tcpdump's, they are tcpdump's, apart from what follows the addresses."""

from __future__ import annotations

import random
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP, CookedLinuxV2, Dot1Q, Ether
from scapy.packet import Packet

from output.attributed_packets import (
    ETHERNET,
    LEFT,
    LINUX_SLL2,
    LOOPBACK,
    RIGHT,
    attributed,
    ethernet,
    rows,
    write_pcap,
)
from pktproc.attribution.answers import AttributedBatch
from pktproc.model import PacketType
from pktproc.output.clock import Precision, TimeFormat
from pktproc.output.text import Dump, TextFormat

# What tcpdump adds of its own: TCP options, the urgent pointer, the protocol in the payload.
_ADDED = re.compile(r", options \[[^]]*]|, urg \d+")


def tcpdump(path: Path, *options: str) -> list[str]:
    told = subprocess.run(["tcpdump", "-n", *options, "-r", str(path)], capture_output=True, text=True, check=True)
    return [_ADDED.sub("", line) for line in told.stdout.splitlines()]


def ours(block: AttributedBatch, text: TextFormat) -> list[str]:
    lines = text.lines(block, rows(block)).splitlines()
    return [re.sub(r"^(.*?)(?:eth0|lo)  +(?:Out|In|B|M|P) +", r"\1", line, count=1) for line in lines]


def conversation(count: int, seed: int) -> Iterator[Packet]:
    """A TCP connection with random payloads, repeated segments, and sequence numbers that wrap around."""
    draw = random.Random(seed)
    position = {True: 0xFFFFFF00, False: 0xFFFFFFF0}
    ends = {True: ("10.77.0.1", 40522, "10.77.0.2", 49000), False: ("10.77.0.2", 49000, "10.77.0.1", 40522)}

    def segment(flags: str, *, forth: bool, size: int = 0) -> Packet:
        source, sport, destination, dport = ends[forth]
        window, ack = draw.randrange(65536), position[not forth] if "A" in flags else 0
        tcp = TCP(sport=sport, dport=dport, flags=flags, window=window, seq=position[forth], ack=ack)
        position[forth] = (position[forth] + size + ("S" in flags) + ("F" in flags)) % 2**32
        return IP(src=source, dst=destination) / tcp / bytes(size)

    yield segment("S", forth=True)
    yield segment("SA", forth=False)
    for _ in range(count):
        flags, size = draw.choice([("A", 0), ("PA", 1), ("A", 700), ("PAU", 33), ("AEC", 0), ("", 5)])
        yield segment(flags, forth=draw.random() < 0.5, size=size)
    yield segment("FA", forth=True)
    yield segment("RA", forth=False)
    yield segment("R", forth=False)


def v6(payload: Packet) -> Packet:
    return IPv6(src="fd77::1", dst="fd77::2:0:0:5") / payload


def v4(payload: Packet) -> Packet:
    return IP(src="10.77.0.1", dst="10.77.0.2") / payload


ASSORTED = [
    v4(UDP(sport=40000, dport=49001) / b"twelve bytes"),
    v4(UDP(sport=40000, dport=49001)),
    v4(ICMP(type=8, id=7, seq=3) / bytes(56)),
    v4(ICMP(type=0, id=7, seq=3) / bytes(56)),
    v6(ICMPv6EchoRequest(id=65535, seq=65534, data=bytes(56))),
    v6(ICMPv6EchoReply(id=65535, seq=65534, data=bytes(3))),
    v6(TCP(sport=40001, dport=49002, flags="S", seq=5)),
    v6(UDP(sport=40001, dport=49002) / b"x"),
    ARP(op=1, hwsrc=LEFT, psrc="10.77.0.1", pdst="10.77.0.2"),
    ARP(op=2, hwsrc=LEFT, psrc="10.77.0.1", pdst="10.77.0.2"),
    Dot1Q(vlan=5) / v4(UDP(sport=40000, dport=49001) / b"\tab\r\nc\rd\n\xff"),
]


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Live in a time zone that is half an hour off; gives the name of its standard time."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "NST3:30NDT,M3.2.0,M11.1.0")
        time.tzset()
        yield "NST"
    time.tzset()


@pytest.fixture
def assorted() -> AttributedBatch:
    return attributed(ethernet(*ASSORTED))


@pytest.mark.parametrize("seed", range(3))
def test_tcp_segments_read_the_same(tmp_path: Path, seed: int) -> None:
    block = attributed(ethernet(*conversation(150, seed)))
    assert ours(block, TextFormat()) == tcpdump(write_pcap(tmp_path / "tcp.pcap", block))


def test_tcp_from_the_middle_in_two_blocks_reads_the_same(tmp_path: Path) -> None:
    packets = ethernet(*conversation(60, 4))[20:]
    both = attributed(packets, times_ns=list(range(len(packets))))
    text = TextFormat()
    halves = [
        attributed(part, times_ns=list(range(start, start + len(part))))
        for part, start in ((packets[:25], 0), (packets[25:], 25))
    ]
    lines = [line for half in halves for line in ours(half, text)]
    assert lines == tcpdump(write_pcap(tmp_path / "tcp.pcap", both))


def test_assorted_packets_read_the_same(tmp_path: Path, assorted: AttributedBatch) -> None:
    assert ours(assorted, TextFormat(numeric=True)) == tcpdump(write_pcap(tmp_path / "all.pcap", assorted))


@pytest.mark.parametrize("kind", ["x", "xx", "X", "XX", "A", "AA"])
def test_contents_read_the_same(tmp_path: Path, assorted: AttributedBatch, kind: Dump) -> None:
    lines = ours(assorted, TextFormat(dump=kind))
    assert lines == tcpdump(write_pcap(tmp_path / "all.pcap", assorted), f"-{kind}")


def test_quiet_lines_read_the_same(tmp_path: Path) -> None:
    block = attributed(ethernet(*ASSORTED, *conversation(20, 9)))
    assert ours(block, TextFormat(quiet=True)) == tcpdump(write_pcap(tmp_path / "all.pcap", block), "-q")


def test_link_headers_read_the_same(tmp_path: Path) -> None:
    block = attributed(ethernet(*(packet for packet in ASSORTED if Dot1Q not in packet)))
    assert ours(block, TextFormat(link=True)) == tcpdump(write_pcap(tmp_path / "all.pcap", block), "-e")


@pytest.mark.parametrize(
    ("time_format", "precision", "options"),
    [
        ("time", "micro", []),
        ("time", "nano", ["--time-stamp-precision=nano"]),
        ("epoch", "micro", ["-tt"]),
        ("epoch", "nano", ["-tt", "--time-stamp-precision=nano"]),
        ("date", "micro", ["-tttt"]),
        ("none", "micro", ["-t"]),
    ],
)
def test_times_read_the_same(
    tmp_path: Path, far_away: str, time_format: TimeFormat, precision: Precision, options: list[str]
) -> None:
    # Around the end of daylight saving time there, 2024-11-03 04:30 UTC.
    times = [1_730_608_199_999_999_999, 1_730_608_200_000_000_000, 1_730_608_200_000_000_999]
    block = attributed(ethernet(*ASSORTED[:3]), times_ns=times)
    lines = ours(block, TextFormat(time_format=time_format, precision=precision))
    assert lines == tcpdump(write_pcap(tmp_path / "times.pcap", block), *options)
    assert far_away == time.tzname[0]


def test_the_interface_and_the_way_read_the_same(tmp_path: Path) -> None:
    kinds = [PacketType.HOST, PacketType.BROADCAST, PacketType.MULTICAST, PacketType.OTHERHOST, PacketType.OUTGOING]
    packets = [
        bytes(CookedLinuxV2(proto=0x0800, ifindex=1, lladdrtype=1, pkttype=kind, src=bytes(6)) / ASSORTED[0])
        for kind in kinds
    ]
    block = attributed(packets, linktype=LINUX_SLL2, packet_type=kinds, interface=LOOPBACK)
    lines = TextFormat().lines(block, rows(block)).splitlines()
    assert lines == tcpdump(write_pcap(tmp_path / "cooked.pcap", block))


def test_a_cut_packet_says_so_like_tcpdump(tmp_path: Path) -> None:
    whole = ethernet(v4(TCP(sport=40000, dport=49000, flags="S")))[0]
    block = attributed([whole[:45]], wire_bytes=[len(whole)])
    (line,) = ours(block, TextFormat())
    assert line.endswith("10.77.0.1.40000 > 10.77.0.2.49000: [|tcp]")
    assert "[|tcp]" in tcpdump(write_pcap(tmp_path / "cut.pcap", block))[0]


def test_ports_have_the_names_of_this_machine() -> None:
    told = subprocess.run(["getent", "services", "80/tcp", "53/udp"], capture_output=True, text=True, check=True)
    tcp, udp = (line.split()[0] for line in told.stdout.splitlines())
    block = attributed(ethernet(v4(TCP(sport=1, dport=80)), v4(UDP(sport=49001, dport=53))))
    lines = TextFormat().lines(block, rows(block)).splitlines()
    assert f" > 10.77.0.2.{tcp}: " in lines[0]
    assert f"10.77.0.1.49001 > 10.77.0.2.{udp}: " in lines[1]
    numbers = TextFormat(numeric=True).lines(block, rows(block)).splitlines()
    assert " > 10.77.0.2.80: " in numbers[0]
    assert " > 10.77.0.2.53: " in numbers[1]


def test_frames_of_both_link_types_are_ethernet_or_cooked() -> None:
    cooked = bytes(
        CookedLinuxV2(proto=0x0800, ifindex=1, lladdrtype=1, src=bytes.fromhex("020000000001")) / ASSORTED[0]
    )
    block = attributed([cooked], linktype=LINUX_SLL2)
    (line,) = TextFormat(link=True).lines(block, rows(block)).splitlines()
    assert f" {LEFT}, ethertype IPv4 (0x0800), length {len(cooked)}: 10.77.0.1.40000 > " in line
    tagged = bytes(Ether(src=LEFT, dst=RIGHT) / Dot1Q(vlan=5) / Dot1Q(vlan=7) / ASSORTED[0])
    block = attributed([tagged], linktype=ETHERNET)
    (line,) = TextFormat(link=True).lines(block, rows(block)).splitlines()
    assert f" {LEFT} > {RIGHT}, vlan 5, vlan 7, ethertype IPv4 (0x0800), length {len(tagged)}: 10.77.0.1" in line
