"""Filters, run by the kernel on frames of every kind, against what tcpdump makes of the same frames."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import PcapReader, wrpcap

from bed.namespaces import Namespace, NamespacePair
from bed.program import TIMEOUT, Command
from capture.wire import Captured, capturing, frame, read_rest, read_until, sender
from pktproc.capture import filter as packet_filter
from pktproc.errors import CaptureError, UsageError
from pktproc.kernel import namespaces

pytestmark = pytest.mark.live
V4 = IP(src="10.77.0.1", dst="10.77.0.2", ttl=9)
V6 = IPv6(src="fd77::1", dst="fd77::2")
MARK = Raw(b"marked by a test of pktproc's filters")
TAGGED_MARK = Raw(b"marked as well, and tagged")
PACKETS: dict[str, Packet] = {
    "syn": V4 / TCP(sport=5000, dport=80, flags="S") / MARK,
    "ack": V4 / TCP(sport=80, dport=5000, flags="A") / MARK,
    "dns": V4 / UDP(sport=5000, dport=53) / MARK,
    "other udp": V4 / UDP(sport=5001, dport=5353) / MARK,
    "long udp": V4 / UDP(sport=5001, dport=9) / Raw(bytes(900)) / MARK,
    "options": IP(src="10.77.0.1", dst="10.77.0.2", options=[b"\x94\x04\x00\x00"]) / UDP(sport=1, dport=53) / MARK,
    "echo": V4 / ICMP(type=8, id=7) / MARK,
    "unreachable": V4 / ICMP(type=3, code=3) / V4 / UDP(sport=1, dport=2) / MARK,
    "ospf": IP(src="10.77.0.1", dst="10.77.0.2", proto=89) / MARK,
    "fragment": IP(src="10.77.0.1", dst="10.77.0.2", frag=100, proto=17) / MARK,
    "syn 6": V6 / TCP(sport=5000, dport=80, flags="S") / MARK,
    "dns 6": V6 / UDP(sport=5000, dport=53) / MARK,
    "echo 6": V6 / ICMPv6EchoRequest(id=7) / MARK,
    "hop by hop": V6 / IPv6ExtHdrHopByHop() / UDP(sport=5000, dport=53) / MARK,
    "arp": ARP(psrc="10.77.0.1", pdst="10.77.0.2") / MARK,
}
TAGGED: dict[str, Packet] = {
    "tagged dns": Dot1Q(vlan=100) / V4 / UDP(sport=5000, dport=53) / TAGGED_MARK,
    "tagged syn": Dot1Q(vlan=200) / V4 / TCP(sport=5000, dport=80, flags="S") / TAGGED_MARK,
    "tagged 6": Dot1Q(vlan=100) / V6 / UDP(sport=5000, dport=53) / TAGGED_MARK,
    "twice tagged": Dot1AD(vlan=300) / Dot1Q(vlan=100) / V4 / UDP(sport=5000, dport=53) / TAGGED_MARK,
}
OF_THE_NETWORK = [
    "",
    "ip",
    "ip6",
    "arp",
    "tcp",
    "udp",
    "icmp",
    "icmp6",
    "not ip",
    "not (udp or arp)",
    "tcp port 80",
    "udp port 53",
    "port 53 or port 80",
    "src port 5000",
    "udp portrange 5000-6000",
    "host 10.77.0.1",
    "dst host 10.77.0.1",
    "net 10.77.0.0/24",
    "net 10.78.0.0/16",
    "src host fd77::1",
    "ip6 net fd77::/16",
    "tcp[tcpflags] & tcp-syn != 0",
    "tcp[2:2] = 80",
    "udp[8:4] = 0x6d61726b",
    "ip[8] < 10",
    "ip[6:2] & 0x1fff != 0",
    "ip6[6] = 17",
    "ip proto 89",
    "icmp[icmptype] = icmp-echo",
]
OF_THE_LINK = [
    "ether src 02:77:00:00:00:01",
    "ether dst 02:77:00:00:00:09",
    "ether proto 0x0806",
    "greater 500",
    "less 100",
    "ether[0] & 1 = 0",
]
OF_TAGS = [
    "",
    "ip",
    "udp",
    "vlan",
    "vlan 100",
    "vlan and udp",
    "vlan 100 and udp port 53",
    "not vlan",
    "arp or vlan 200",
]
TAGS = (b"\x81\x00", b"\x88\xa8")
ETH_P_ALL = 3
Kept = dict[str, set[str]]


def framed(pair: NamespacePair, packets: dict[str, Packet]) -> dict[str, bytes]:
    return {name: frame(pair.left, pair.right, packet) for name, packet in packets.items()}


def has_all(frames: dict[str, bytes]) -> Callable[[list[Captured]], bool]:
    return lambda found: {packet.data for packet in found} >= set(frames.values())


def kept_in_files(files: dict[str, Path], names: dict[bytes, str]) -> Kept:
    kept = {}
    for expression, file in files.items():
        with PcapReader(str(file)) as reader:
            kept[expression] = {names[bytes(packet)] for packet in reader if bytes(packet) in names}
    return kept


def kept_in_a_file(folder: Path, frames: dict[str, bytes], expressions: Sequence[str]) -> Kept:
    """Return what tcpdump keeps of the frames, written to a file."""
    names = {data: name for name, data in frames.items()}
    unfiltered, filtered = folder / "all.pcap", folder / "kept.pcap"
    wrpcap(str(unfiltered), [Ether(data) for data in frames.values()])
    kept: Kept = {}
    for expression in expressions:
        command = ["tcpdump", "-r", str(unfiltered), "-w", str(filtered), expression]
        subprocess.run(command, check=True, capture_output=True, timeout=30)
        kept |= kept_in_files({expression: filtered}, names)
    return kept


def listening(space: Namespace, interface: str, expression: str) -> socket.socket:
    """Return a packet socket with a filter, as a capture has it."""

    def work() -> socket.socket:
        everywhere = interface == "any"
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL) if everywhere else 0)
        program = packet_filter.compile_filter(expression, interface, 65535)
        packet_filter.attach(sock, packet_filter.loopback_once(program))
        if not everywhere:
            sock.bind((interface, ETH_P_ALL))
        sock.setblocking(False)
        return sock

    return namespaces.run_inside(namespaces.named(space.name), work)


def everything_waiting(sock: socket.socket) -> list[bytes]:
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(sock.recv(65535))
    return found


def kept_by_the_kernel(
    sending: Namespace, watching: Namespace, interface: str, frames: dict[str, bytes], expressions: Sequence[str]
) -> Kept:
    """Send every frame once past sockets with all the filters; return what each of them let through."""
    names = {data: name for name, data in frames.items()}
    # Of a frame that came in, the kernel keeps the outermost tag beside the bytes.
    names |= {data[:12] + data[16:]: name for name, data in frames.items() if data[12:14] in TAGS}
    with ExitStack() as stack:
        filtered = {
            expression: stack.enter_context(listening(watching, interface, expression)) for expression in expressions
        }
        everything = stack.enter_context(capturing(watching))
        send = stack.enter_context(sender(sending))
        for data in frames.values():
            send(data)
        read_until(everything, has_all(frames))
        return {
            expression: {names[data] for data in everything_waiting(sock) if data in names}
            for expression, sock in filtered.items()
        }


def test_an_interface_is_filtered_as_tcpdump_does(pair: NamespacePair, tmp_path: Path) -> None:
    frames, expressions = framed(pair, PACKETS), OF_THE_NETWORK + OF_THE_LINK
    expected = kept_in_a_file(tmp_path, frames, expressions)
    assert kept_by_the_kernel(pair.left, pair.right, pair.right.interface, frames, expressions) == expected


def test_any_is_filtered_as_tcpdump_does(pair: NamespacePair, tmp_path: Path) -> None:
    """Compiled for cooked headers, run on frames with Ethernet ones."""
    frames = framed(pair, PACKETS)
    expected = kept_in_a_file(tmp_path, frames, OF_THE_NETWORK)
    assert kept_by_the_kernel(pair.left, pair.right, "any", frames, OF_THE_NETWORK) == expected


@pytest.mark.parametrize("interface", ["left0", "any"])
def test_what_is_sent_is_filtered_like_what_comes(pair: NamespacePair, tmp_path: Path, interface: str) -> None:
    frames = framed(pair, PACKETS)
    expected = kept_in_a_file(tmp_path, frames, OF_THE_NETWORK)
    assert kept_by_the_kernel(pair.left, pair.left, interface, frames, OF_THE_NETWORK) == expected


def test_tagged_frames_are_filtered_as_a_live_tcpdump_does(pair: NamespacePair, tmp_path: Path) -> None:
    """The kernel takes the tag out of a frame that comes in, so that a file says something else."""
    left, right = pair.left, pair.right
    frames = framed(pair, PACKETS | TAGGED)
    names = {data: name for name, data in frames.items()}
    files = {expression: tmp_path / f"{number}.pcap" for number, expression in enumerate(OF_TAGS)}
    with ExitStack() as stack:
        command = ["tcpdump", "--immediate-mode", "-Uni", right.interface, "-w"]
        running = [
            stack.enter_context(Command([*command, str(file), expression], right)) for expression, file in files.items()
        ]
        for tcpdump in running:
            assert tcpdump.stderr.find(lambda line: "listening" in line, 1, TIMEOUT), tcpdump.describe()
        kept = kept_by_the_kernel(left, right, right.interface, frames, OF_TAGS)
        deadline = time.monotonic() + TIMEOUT / 6
        while (expected := kept_in_files(files, names)) != kept and time.monotonic() < deadline:
            time.sleep(0.05)
    assert kept == expected
    assert kept["vlan 100"] >= {"tagged dns", "tagged 6"}


def test_any_finds_tagged_packets_by_their_network_header(pair: NamespacePair) -> None:
    frames = framed(pair, TAGGED)
    kept = kept_by_the_kernel(pair.left, pair.right, "any", frames, ["udp port 53", "tcp", "ip6"])
    assert kept == {"udp port 53": {"tagged dns", "tagged 6"}, "tcp": {"tagged syn"}, "ip6": {"tagged 6"}}


@pytest.mark.parametrize("interface", ["right0", "any"])
@pytest.mark.parametrize("way", ["in", "out", "inout"])
def test_ways_are_told_apart(pair: NamespacePair, interface: str, way: str) -> None:
    left, right = pair.left, pair.right
    coming = frame(left, right, PACKETS["dns"])
    going = frame(right, left, IP(src=right.v4, dst=left.v4) / UDP(sport=5000, dport=53) / MARK)
    with (
        capturing(right, interfaces=[interface], way=way, expression="udp dst port 53 and ip") as chosen,
        capturing(right) as everything,
        sender(left) as send,
        sender(right) as answer,
    ):
        send(coming)
        answer(going)
        read_until(everything, has_all({"coming": coming, "going": going}))
        kept = {packet.data for packet in read_rest(chosen)}
    assert kept == {"in": {coming}, "out": {going}, "inout": {coming, going}}[way]


@pytest.mark.parametrize("expression", ["ether src 02:77:00:00:00:01", "ether[0] & 1 = 0", "link[1] = 4", "vlan"])
def test_any_has_no_link_header_to_filter_on(pair: NamespacePair, expression: str) -> None:
    """A clear refusal, never a filter that means something else."""
    with (
        pytest.raises(UsageError, match=r"-i IFACE|bad filter"),
        capturing(pair.right, interfaces=["any"], expression=expression),
    ):
        pass


@pytest.mark.parametrize("interface", ["right0", "any"])
@pytest.mark.parametrize("expression", ["tcp prot 80", "host", "((", "host no.such.host.invalid", "port 99999"])
def test_a_bad_filter_is_shown_with_the_reason(pair: NamespacePair, interface: str, expression: str) -> None:
    with pytest.raises(UsageError) as caught, capturing(pair.right, interfaces=[interface], expression=expression):
        pass
    begin = f"bad filter {expression!r}: "
    assert str(caught.value).startswith(begin)
    assert len(str(caught.value)) > len(begin) + 5
    assert "\n" not in str(caught.value)


def test_a_filter_that_the_kernel_cannot_run_is_refused(pair: NamespacePair) -> None:
    """It needs a loop, which programs in the kernel may not have."""
    with (
        pytest.raises((UsageError, CaptureError), match="filter"),
        capturing(pair.right, expression="ip6 protochain 17"),
    ):
        pass


@pytest.mark.parametrize("expression", ["", "udp"])
@pytest.mark.parametrize("snaplen", [1, 14, 60, 200])
def test_packets_are_cut_to_the_snaplen(pair: NamespacePair, expression: str, snaplen: int) -> None:
    data = frame(pair.left, pair.right, PACKETS["long udp"])
    with capturing(pair.right, expression=expression, snaplen=snaplen) as capture, sender(pair.left) as send:
        send(data)
        found = read_until(capture, lambda found: any(packet.wire_bytes == len(data) for packet in found))
    assert [packet.data for packet in found if packet.wire_bytes == len(data)] == [data[:snaplen]]


def test_a_program_that_jumps_beyond_its_end_is_a_capture_error() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, pytest.raises(CaptureError, match="refused"):
        packet_filter.attach(sock, (packet_filter.Instruction(0x15, 9, 9, 0),))
