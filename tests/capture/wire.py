"""Frames put on the wire by hand, and captures read until they are quiet."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from bed.namespaces import Namespace
from pktproc.capture.live import CaptureOptions, LiveCapture
from pktproc.kernel import namespaces
from pktproc.model import Interface
from pktproc.packets.batch import PacketBatch

WAIT_S = 10.0
PORT = 7950
QUIET_MS = 60.0


class Captured(NamedTuple):
    """One captured packet."""

    data: bytes
    wire_bytes: int
    time_ns: int
    interface: Interface
    packet_type: int
    linktype: int


def packets_of(batch: PacketBatch) -> list[Captured]:
    return [
        Captured(
            batch.packet(row),
            int(batch.wire_bytes[row]),
            int(batch.time_ns[row]),
            batch.interfaces[int(batch.interface[row])],
            int(batch.packet_type[row]),
            int(batch.linktype[row]),
        )
        for row in range(len(batch))
    ]


@contextlib.contextmanager
def capturing(*spaces: Namespace, interfaces: Sequence[str] = (), **options: object) -> Iterator[LiveCapture]:
    """Capture in namespaces, on their veth ends unless interfaces are named."""
    names = tuple(interfaces) or tuple(space.interface for space in spaces)
    chosen = CaptureOptions(interfaces=names, netns=tuple(space.name for space in spaces), **options)  # type: ignore[arg-type]
    capture = LiveCapture(chosen)
    try:
        yield capture
    finally:
        capture.close()


def read_until(capture: LiveCapture, enough: Callable[[list[Captured]], bool]) -> list[Captured]:
    """Read until enough packets have come; AssertionError when they do not."""
    found: list[Captured] = []
    deadline = time.monotonic() + WAIT_S
    while not enough(found):
        assert time.monotonic() < deadline, f"only {len(found)} packets: {found[-5:]}"
        capture.wait(QUIET_MS)
        batch = capture.read()
        if batch is not None:
            found += packets_of(batch)
    return found


def read_rest(capture: LiveCapture) -> list[Captured]:
    """Read what is there, until nothing has come for some blocks' time."""
    found: list[Captured] = []
    quiet_at = time.monotonic() + QUIET_MS / 1000
    while time.monotonic() < quiet_at:
        capture.wait(QUIET_MS / 4)
        batch = capture.read()
        if batch is not None:
            found += packets_of(batch)
            quiet_at = time.monotonic() + QUIET_MS / 1000
    return found


@contextlib.contextmanager
def sender(space: Namespace, interface: str | None = None) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that puts a frame on a namespace's wire; its socket receives nothing."""
    made = namespaces.run_inside(
        namespaces.named(space.name), lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    )
    with made as sock:
        namespaces.run_inside(namespaces.named(space.name), lambda: sock.bind((interface or space.interface, 0)))

        def send(frame: bytes) -> None:
            assert sock.send(frame) == len(frame)

        yield send


def frame(source: Namespace, destination: Namespace, packet: Packet) -> bytes:
    """Return a packet in an Ethernet frame from one veth end to the other."""
    return bytes(Ether(src=source.mac, dst=destination.mac) / packet)


def numbered(left: Namespace, right: Namespace, count: int, size: int = 0) -> list[bytes]:
    """Datagrams that differ in the digits at their end; their checksum is that of the first."""
    packet = IP(src=left.v4, dst=right.v4) / UDP(sport=PORT, dport=PORT)
    template = frame(left, right, packet / Raw(bytes(size) + bytes(8)))
    return [template[:-8] + b"%08d" % number for number in range(count)]


def has_come(found: list[Captured], frames: list[bytes]) -> bool:
    return {packet.data for packet in found} >= set(frames)


@contextlib.contextmanager
def extra_interface(space: Namespace, name: str) -> Iterator[None]:
    """Add a veth pair within a namespace, both ends up; what is left of it goes at the end."""
    space.run("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    for end in (name, f"{name}p"):
        space.run("ip", "link", "set", end, "up")
    try:
        yield
    finally:
        if name in space.run("ip", "-o", "link"):
            space.run("ip", "link", "del", name)
