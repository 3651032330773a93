"""Captures that cannot start, that lose their interface or namespace, or that get no ring."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from socket import if_nametoindex

import numpy as np
import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Raw

from bed.namespaces import Namespace, NamespacePair
from bed.program import Command
from capture.wire import (
    PORT,
    capturing,
    extra_interface,
    frame,
    has_come,
    numbered,
    read_until,
    sender,
)
from pktproc.capture.live import LiveCapture
from pktproc.capture.plain import PlainReader
from pktproc.capture.tap import listen, open_socket
from pktproc.errors import CaptureError, UsageError
from pktproc.kernel import namespaces

pytestmark = pytest.mark.live
WAIT_S = 5.0


@pytest.mark.parametrize("name", ["nosuch0", ""])
def test_an_unknown_interface_is_named_with_those_there_are(left: Namespace, name: str) -> None:
    with pytest.raises(UsageError) as caught, capturing(left, interfaces=[name]):
        pass
    assert repr(name) in str(caught.value)
    assert left.interface in str(caught.value)


def test_an_unknown_namespace_is_a_usage_error(left: Namespace) -> None:
    gone = Namespace("pp-no-such", left.interface, left.v4, left.v6, left.mac)
    with pytest.raises(UsageError, match="pp-no-such"), capturing(gone):
        pass


def watch(capture: LiveCapture, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        capture.wait(20)
        capture.read()


def test_a_vanished_interface_is_a_capture_error(left: Namespace) -> None:
    for _ in range(5):
        with (
            extra_interface(left, "gone0"),
            capturing(left, interfaces=["gone0"]) as capture,
            Command(["ip", "link", "del", "gone0"], left),
            pytest.raises(CaptureError, match="gone0 disappeared"),
        ):
            watch(capture, WAIT_S)


def test_an_interface_that_is_taken_down_and_then_away_is_a_capture_error(left: Namespace) -> None:
    with extra_interface(left, "gone0"), capturing(left, interfaces=["gone0"]) as capture:
        left.run("ip", "link", "set", "gone0", "down")
        watch(capture, 0.1)
        left.run("ip", "link", "del", "gone0")
        with pytest.raises(CaptureError, match="gone0 disappeared"):
            watch(capture, WAIT_S)


def test_an_interface_that_goes_down_and_comes_back_is_captured_on(left: Namespace) -> None:
    (data,) = numbered(left, left, 1)
    with (
        extra_interface(left, "back0"),
        capturing(left, interfaces=["back0"], expression=f"udp port {PORT}") as capture,
        sender(left, "back0") as send,
    ):
        left.run("ip", "link", "set", "back0", "down")
        watch(capture, 0.1)
        left.run("ip", "link", "set", "back0", "up")
        send(data)
        read_until(capture, lambda found: has_come(found, [data]))


def test_a_capture_outlives_the_name_of_its_namespace() -> None:
    """A container that ends takes its name away, not the packets that were captured, nor a clean end."""
    with NamespacePair() as pair:
        left, right = pair.left, pair.right
        frames = numbered(left, right, 10)
        with capturing(right, interfaces=["any"]) as capture, sender(left) as send:
            for data in frames:
                send(data)
            subprocess.run(["ip", "netns", "del", right.name], check=True, timeout=30)
            found = read_until(capture, lambda found: has_come(found, frames))
            for data in frames:
                send(data)
            found += read_until(capture, lambda found: has_come(found, frames))
        assert len([packet for packet in found if packet.data in frames]) == 20


def test_nothing_stays_open_after_closing(left: Namespace, right: Namespace) -> None:
    with capturing(left):
        pass  # whatever libraries open once
    before = open_files()
    with capturing(left, right, interfaces=["any", "lo"]):
        assert open_files() > before
    assert open_files() == before


def open_files() -> set[str]:
    return {link.name for link in Path("/proc/self/fd").iterdir() if link.exists()}


def test_packets_one_by_one_have_the_columns_of_the_ring(left: Namespace, right: Namespace) -> None:
    inner = IP(src=left.v4, dst=right.v4) / UDP(sport=PORT, dport=PORT) / Raw(bytes(500))
    frames = [
        *numbered(left, right, 20),
        frame(left, right, Dot1Q(vlan=100) / inner),
        frame(left, right, Dot1AD(vlan=300) / Dot1Q(vlan=100) / inner),
        bytes(Ether(src=left.mac, dst="ff:ff:ff:ff:ff:ff") / inner),
    ]
    path = namespaces.named(right.name)
    ifindex = namespaces.run_inside(path, lambda: if_nametoindex(right.interface))
    scapy_socket = namespaces.run_inside(path, lambda: open_socket(right.interface, ifindex))
    listen(scapy_socket.ins, right.interface, ifindex, promiscuous=True)
    reader = PlainReader(scapy_socket.ins, 1 << 20, lambda: {right.interface: ifindex})
    try:
        with capturing(right) as capture, sender(left) as send:
            for data in frames:
                send(data)
            ring = read_until(capture, lambda found: has_come(found, frames))
        plain = reader.read()
    finally:
        reader.close()
        scapy_socket.close()
    assert plain is not None
    by_hand = [
        (
            plain.data[start : start + size].tobytes(),
            *map(int, (plain.wire_bytes[row], plain.ifindex[row], plain.packet_type[row], plain.linktype[row])),
        )
        for row, (start, size) in enumerate(zip(plain.offset.tolist(), plain.captured_bytes.tolist(), strict=True))
    ]
    expected = [
        (packet.data, packet.wire_bytes, packet.interface.ifindex, packet.packet_type, packet.linktype)
        for packet in ring
        if packet.data in frames
    ]
    assert [row for row in by_hand if row[0] in frames] == expected
    assert len(expected) == len(frames)
    # Each socket stamps a packet by itself, within moments.
    apart = np.array(plain.time_ns)[[row for row, found in enumerate(by_hand) if found[0] in frames]] - [
        packet.time_ns for packet in ring if packet.data in frames
    ]
    assert np.abs(apart).max() < 50_000_000


def test_a_ring_that_the_kernel_refuses_is_done_without(left: Namespace, right: Namespace) -> None:
    """No kernel has room for a ring of that size."""
    frames = numbered(left, right, 50)
    with capturing(right, buffer_bytes=1 << 40) as capture, sender(left) as send:
        assert any("one by one" in note for note in capture.notes)
        for data in frames:
            send(data)
        found = read_until(capture, lambda found: has_come(found, frames))
        assert {packet.interface.name for packet in found if packet.data in frames} == {right.interface}
        received, dropped = capture.statistics()
    assert (received >= 50, dropped) == (True, 0)
