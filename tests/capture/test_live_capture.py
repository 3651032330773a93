"""Live capture in namespaces: what is captured, once, in order, whole, and counted."""

from __future__ import annotations

import contextlib
import fcntl
import io
import socket
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Raw
from scapy.utils import RawPcapReader

from bed.namespaces import Namespace, NamespacePair
from bed.program import TIMEOUT, Command, Program
from capture.wire import (
    PORT,
    capturing,
    extra_interface,
    frame,
    has_come,
    numbered,
    packets_of,
    read_rest,
    read_until,
    sender,
)
from pktproc.kernel import namespaces
from pktproc.model import Interface, PacketType
from pktproc.packets.batch import PacketBatch

pytestmark = pytest.mark.live
LINKTYPE_ETHERNET, LINKTYPE_RAW = 1, 101
TUNSETIFF = 0x400454CA  # linux/if_tun.h


def datagrams(space: Namespace, port: int, count: int) -> None:
    """Send datagrams to a port of the loopback interface."""
    with namespaces.run_inside(
        namespaces.named(space.name), lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ) as sock:
        for number in range(count):
            sock.sendto(b"%08d" % number, ("127.0.0.1", port))


def test_a_wait_ends_when_it_is_interrupted_and_the_next_one_lasts(left: Namespace) -> None:
    with capturing(left, expression=f"tcp port {PORT}") as capture:  # of which there is nothing
        timer = threading.Timer(0.05, capture.interrupt)
        begin = time.monotonic()
        timer.start()
        capture.wait(2000 * TIMEOUT)
        interrupted = time.monotonic()
        timer.join()
        capture.wait(50)
        over = time.monotonic()
        capture.interrupt()
        capture.wait(2000 * TIMEOUT)
    assert 0.05 <= interrupted - begin < TIMEOUT
    assert over - interrupted >= 0.05
    assert time.monotonic() - over < TIMEOUT


@pytest.mark.parametrize("interface", ["lo", "any"])
def test_loopback_packets_appear_once(left: Namespace, interface: str) -> None:
    with capturing(left, interfaces=[interface], expression=f"udp port {PORT}") as capture:
        datagrams(left, PORT, 50)
        found = read_until(capture, lambda found: len(found) >= 50) + read_rest(capture)
    assert [packet.data[-8:] for packet in found] == [b"%08d" % number for number in range(50)]
    assert {(packet.interface.name, packet.interface.loopback) for packet in found} == {("lo", True)}
    assert {packet.packet_type for packet in found} == {PacketType.HOST}


def test_packet_types_are_the_kernels(left: Namespace, right: Namespace) -> None:
    payload = IP(src=left.v4, dst=right.v4) / UDP(sport=PORT, dport=PORT)
    frames = {
        PacketType.HOST: bytes(Ether(src=left.mac, dst=right.mac) / payload),
        PacketType.BROADCAST: bytes(Ether(src=left.mac, dst="ff:ff:ff:ff:ff:ff") / payload),
        PacketType.MULTICAST: bytes(Ether(src=left.mac, dst="01:00:5e:00:00:fb") / payload),
        PacketType.OTHERHOST: bytes(Ether(src=left.mac, dst="02:77:00:00:00:99") / payload),
    }
    expression = f"udp port {PORT}"
    with (
        capturing(right, expression=expression) as far,
        capturing(left, expression=expression) as near,
        sender(left) as send,
    ):
        for data in frames.values():
            send(data)
        came = read_until(far, lambda found: has_come(found, list(frames.values())))
        went = read_until(near, lambda found: has_come(found, list(frames.values())))
    assert [packet.data for packet in came if packet.packet_type == PacketType.OUTGOING] == []
    assert {PacketType(packet.packet_type): packet.data for packet in came} == frames
    assert {packet.packet_type for packet in went} == {PacketType.OUTGOING}


@pytest.mark.parametrize("interface", ["right0", "any"])
def test_tags_are_put_back(left: Namespace, right: Namespace, interface: str) -> None:
    inner = IP(src=left.v4, dst=right.v4) / UDP(sport=PORT, dport=PORT) / Raw(b"tagged")
    frames = [
        frame(left, right, Dot1Q(vlan=100, prio=3) / inner),
        frame(left, right, Dot1AD(vlan=300) / Dot1Q(vlan=100) / inner),
        frame(left, right, Dot1Q(vlan=100) / Dot1Q(vlan=200) / inner),
    ]
    with capturing(right, interfaces=[interface]) as capture, sender(left) as send:
        for data in frames:
            send(data)
        found = read_until(capture, lambda found: has_come(found, frames))
    tagged = [packet for packet in found if packet.data in frames]
    assert [packet.data for packet in tagged] == frames
    assert [packet.wire_bytes for packet in tagged] == list(map(len, frames))


def test_every_packet_of_a_burst_is_captured_in_order_and_counted(
    left: Namespace, right: Namespace, tmp_path: Path
) -> None:
    """tcpdump listens beside us; both see the very same packets at the very same times."""
    count, file = 20_000, tmp_path / "seen.pcap"
    command = ["tcpdump", "-Uni", right.interface, "--nano", "-B", "16384", "-w", str(file), f"udp port {PORT}"]
    frames = numbered(left, right, count, size=50)
    with (
        Command(command, right) as tcpdump,
        capturing(right, expression=f"udp port {PORT}") as capture,
        sender(left) as send,
    ):
        assert tcpdump.stderr.find(lambda line: "listening" in line, 1, TIMEOUT)
        for data in frames:
            send(data)
        found = read_until(capture, lambda found: len(found) >= count) + read_rest(capture)
        statistics = capture.statistics()
        deadline = time.monotonic() + TIMEOUT
        while len(seen := pcap(file)) < count and time.monotonic() < deadline:
            time.sleep(0.05)
    assert [packet.data for packet in found] == frames == [data for data, _ in seen]
    assert (statistics.received, statistics.dropped) == (count, 0)
    times = np.array([packet.time_ns for packet in found])
    assert (np.diff(times) >= 0).all()
    assert times.tolist() == [time_ns for _, time_ns in seen]


def pcap(file: Path) -> list[tuple[bytes, int]]:
    with RawPcapReader(str(file)) as reader:
        return [(data, metadata.sec * 10**9 + metadata.usec) for data, metadata in reader]


def test_times_are_those_of_the_wall_clock(left: Namespace, right: Namespace) -> None:
    (data,) = numbered(left, right, 1)
    with capturing(right) as capture, sender(left) as send:
        before_ns = time.time_ns()
        send(data)
        after_ns = time.time_ns()
        found = read_until(capture, lambda found: has_come(found, [data]))
    (packet,) = [packet for packet in found if packet.data == data]
    assert before_ns <= packet.time_ns <= after_ns


def test_a_large_segment_is_captured_whole(left: Namespace, right: Namespace) -> None:
    """With segmentation offload, frames are larger than any MTU."""
    with (
        Program("tcp_server", right.v4, PORT, namespace=right).ready(),
        capturing(left, expression=f"tcp dst port {PORT}") as capture,
        Program("tcp_client", right.v4, PORT, "--bytes", 1_000_000, namespace=left) as client,
    ):
        client.expect("done")
        found = read_rest(capture)
    sizes = [len(packet.data) for packet in found]
    assert max(sizes) > 10_000
    assert [packet.wire_bytes for packet in found] == sizes
    spans = [(int.from_bytes(p.data[38:42]), len(p.data) - p.data[46] // 16 * 4 - 34) for p in found]
    first = spans[0][0] + 1  # behind the SYN
    covered = 0
    for begin, length in sorted(((sequence - first) % (1 << 32), length) for sequence, length in spans if length):
        covered = max(covered, begin + length) if begin <= covered else covered  # some may be sent twice, none may lack
    assert covered == 1_000_000


def test_two_interfaces_are_merged_in_order_of_time(pair: NamespacePair, left: Namespace, right: Namespace) -> None:
    del pair
    there, back = numbered(left, right, 200), numbered(right, left, 200)
    expression = f"udp port {PORT}"
    with (
        capturing(left, right, interfaces=["any"], expression=expression) as capture,
        sender(left) as send,
        sender(right) as answer,
    ):
        for first, second in zip(there, back, strict=True):
            send(first)
            answer(second)
        batches: list[PacketBatch] = []
        deadline = time.monotonic() + TIMEOUT
        while sum(len(batch) for batch in batches) < 800:
            assert time.monotonic() < deadline
            capture.wait(20)
            if (batch := capture.read()) is not None:
                batches.append(batch)
        spaces = capture.namespaces
    for batch in batches:
        assert (np.diff(batch.time_ns) >= 0).all()
    found = [packet for batch in batches for packet in packets_of(batch)]
    assert spaces == {left.inode, right.inode}
    for space in (left, right):
        here = [packet for packet in found if packet.interface.netns == space.inode]
        assert {packet.interface for packet in here} == {Interface(space.interface, index_of(space), space.inode)}
        assert sorted(packet.data for packet in here) == sorted(there + back)
        sent = there if space is left else back
        assert [packet.data for packet in here if packet.packet_type == PacketType.OUTGOING] == sent


def index_of(space: Namespace) -> int:
    return int(space.run("ip", "-o", "link", "show", "dev", space.interface).partition(":")[0])


def test_an_interface_that_comes_later_is_known_by_name(left: Namespace) -> None:
    (data,) = numbered(left, left, 1)
    with (
        capturing(left, interfaces=["any"], expression=f"udp port {PORT}") as capture,
        extra_interface(left, "late0"),
        sender(left, "late0") as send,
    ):
        send(data)
        found = read_until(capture, lambda found: has_come(found, [data])) + read_rest(capture)
    assert {packet.interface.name for packet in found} == {"late0", "late0p"}


def test_a_tunnel_without_a_link_layer_is_captured_as_ip(left: Namespace) -> None:
    going = bytes(IP(src="10.77.77.1", dst="10.77.77.2") / UDP(sport=PORT, dport=PORT) / Raw(b"going"))
    coming = bytes(IP(src="10.77.77.2", dst="10.77.77.1") / UDP(sport=PORT, dport=PORT) / Raw(b"coming"))
    with contextlib.closing(namespaces.run_inside(namespaces.named(left.name), tunnel)) as device:
        left.run("ip", "link", "set", "tun77", "up")
        with sender(left, "tun77") as send, capturing(left, interfaces=["tun77"]) as capture:
            send(going)
            device.write(coming)
            found = read_until(capture, lambda found: has_come(found, [going, coming]))
    both = {packet.data: packet for packet in found if packet.data in {going, coming}}
    assert {packet.linktype for packet in both.values()} == {LINKTYPE_RAW}
    assert [both[data].packet_type for data in (going, coming)] == [PacketType.OUTGOING, PacketType.HOST]
    assert [both[data].wire_bytes for data in (going, coming)] == [len(going), len(coming)]


def tunnel() -> io.FileIO:
    """Make a device whose other side is a file (Documentation/networking/tuntap.rst)."""
    device = io.FileIO("/dev/net/tun", "r+")
    tun_no_packet_information = 0x1001
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", b"tun77", tun_no_packet_information))
    return device


def test_nobody_reads_and_drops_are_counted(left: Namespace, right: Namespace) -> None:
    count = 20_000
    with (
        capturing(right, expression=f"udp port {PORT}", buffer_bytes=1 << 18) as capture,
        sender(left) as send,
    ):
        for data in numbered(left, right, 1, size=1000) * count:
            send(data)
        found = read_rest(capture)
        statistics = capture.statistics()
    assert statistics.received == count
    assert 0 < statistics.dropped < count
    assert len(found) + statistics.dropped == count


def test_statistics_add_up_over_several_looks(left: Namespace, right: Namespace) -> None:
    with capturing(right, expression=f"udp port {PORT}") as capture, sender(left) as send:
        for expected in (100, 200, 300):
            for data in numbered(left, right, 100):
                send(data)
            read_until(capture, lambda found: len(found) >= 100)
            assert capture.statistics() == (expected, 0)
