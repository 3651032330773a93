"""The scout hears what opens a flow, at once, and is not drowned."""

from __future__ import annotations

import contextlib
import select
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP
from scapy.packet import Packet

from bed.namespaces import Namespace, NamespacePair
from capture.wire import frame, sender
from pktproc.capture.scout import Scout, open_scout, parse
from pktproc.errors import UsageError
from pktproc.kernel import namespaces
from pktproc.model import Direction, Flow, Protocol, pack_address

V4 = IP(src="10.77.0.1", dst="10.77.0.2")
V6 = IPv6(src="fd77::1", dst="fd77::2")
NS_PER_S = 1_000_000_000
NETNS = 4711
OPENING: dict[str, tuple[Packet, tuple[int, int, int]]] = {
    "syn": (V4 / TCP(sport=5000, dport=80, flags="S"), (Protocol.TCP, 5000, 80)),
    "syn with ece": (V4 / TCP(sport=5001, dport=80, flags="SEC"), (Protocol.TCP, 5001, 80)),
    "syn 6": (V6 / TCP(sport=5002, dport=80, flags="S"), (Protocol.TCP, 5002, 80)),
    "udp": (V4 / UDP(sport=5003, dport=53), (Protocol.UDP, 5003, 53)),
    "udp 6": (V6 / UDP(sport=5004, dport=53), (Protocol.UDP, 5004, 53)),
    "echo": (V4 / ICMP(type=8, id=77), (Protocol.ICMP, 77, 0)),
    "echo 6": (V6 / ICMPv6EchoRequest(id=78), (Protocol.ICMPV6, 78, 0)),
}
OTHERS: dict[str, Packet] = {
    "ack": V4 / TCP(sport=5000, dport=80, flags="A"),
    "syn ack": V4 / TCP(sport=80, dport=5000, flags="SA"),
    "reset": V6 / TCP(sport=80, dport=5000, flags="R"),
    "echo reply": V4 / ICMP(type=0, id=77),
    "echo reply 6": V6 / ICMPv6EchoReply(id=77),
    "unreachable": V4 / ICMP(type=3) / V4 / UDP(sport=1, dport=2),
    "later fragment": IP(src="10.77.0.1", dst="10.77.0.2", proto=17, frag=3) / (b"x" * 40),
    "first fragment": IP(src="10.77.0.1", dst="10.77.0.2", flags="MF") / UDP(sport=5, dport=6) / (b"x" * 40),
    "arp": ARP(psrc="10.77.0.1", pdst="10.77.0.2"),
    "igmp": IP(src="10.77.0.1", dst="224.0.0.1", proto=2) / (b"x" * 8),
}


def hear(scout: Scout, now_ns: int = 0) -> list[Flow]:
    return [flow for flow, _ in scout.read(NETNS, {"left0": 7}, now_ns)]


def ours(flows: list[Flow]) -> list[Flow]:
    """Leave out what the kernel sends by itself in a fresh namespace."""
    known = {pack_address(text) for text in ("10.77.0.1", "10.77.0.2", "fd77::1", "fd77::2")}
    return [flow for flow in flows if {flow.source_address, flow.destination_address} <= known]


@pytest.mark.parametrize("name", OPENING)
def test_what_opens_a_flow_is_understood(name: str) -> None:
    packet, expected = OPENING[name]
    for data, ethernet in ((bytes(14) + bytes(packet), True), (bytes(packet), False)):
        flow = parse(data, NETNS, 7, ethernet=ethernet)
        assert flow is not None
        assert (flow.protocol, flow.source_port, flow.destination_port) == expected
        assert (flow.netns, flow.ifindex, flow.direction) == (NETNS, 7, Direction.OUTGOING)
        sides = ("10.77.0.1", "10.77.0.2") if packet.version == 4 else ("fd77::1", "fd77::2")
        assert (flow.source_address, flow.destination_address) == tuple(map(pack_address, sides))


@given(st.binary(max_size=128), st.booleans())
def test_any_bytes_are_a_flow_or_none(data: bytes, ethernet: bool) -> None:
    flow = parse(data, NETNS, 7, ethernet=ethernet)
    assert flow is None or len(flow.source_address) == len(flow.destination_address) == 16


@given(st.sampled_from(sorted(OPENING)), st.integers(0, 60))
def test_a_cut_packet_is_a_flow_or_none(name: str, size: int) -> None:
    whole = bytes(OPENING[name][0])
    flow = parse(whole[:size], NETNS, 7, ethernet=False)
    assert flow is None or flow == parse(whole, NETNS, 7, ethernet=False)


@pytest.fixture
def left(pair: NamespacePair) -> Namespace:
    return pair.left


@contextlib.contextmanager
def scouting(space: Namespace, expression: str = "", interface: str | None = None) -> Iterator[Scout]:
    scout = Scout(interface or space.interface, namespaces.named(space.name), expression)
    try:
        yield scout
    finally:
        scout.close()


@pytest.mark.live
@pytest.mark.parametrize("interface", ["left0", "any"])
def test_what_leaves_and_opens_a_flow_is_heard_at_once(pair: NamespacePair, interface: str) -> None:
    left, right = pair.left, pair.right
    with scouting(left, interface=interface) as scout, sender(left) as send, sender(right) as answer:
        for packet in OTHERS.values():
            send(frame(left, right, packet))
        answer(frame(right, left, IP(src=right.v4, dst=left.v4) / UDP(sport=1, dport=2)))
        assert ours(hear(scout)) == []
        for packet, expected in OPENING.values():
            sent_ns = time.time_ns()
            send(frame(left, right, packet))
            heard = scout.read(NETNS, {"left0": 7}, 0)  # no waiting: it is there when sending returns
            (flow,) = ours([flow for flow, _ in heard])
            assert (flow.protocol, flow.source_port, flow.destination_port) == expected
            assert flow.ifindex == 7
            assert all(abs(time_ns - sent_ns) < NS_PER_S for _, time_ns in heard)


@pytest.mark.live
def test_nothing_is_heard_from_before_the_filter_was_in_place(pair: NamespacePair) -> None:
    """Packets come in all the time while the scout is set up; none of them leaves here."""
    left, right = pair.left, pair.right
    coming = frame(right, left, IP(src=right.v4, dst=left.v4) / UDP(sport=1, dport=2))
    stop = threading.Event()

    def keep_sending() -> None:
        with sender(right) as send:
            while not stop.is_set():
                send(coming)

    thread = threading.Thread(target=keep_sending)
    thread.start()
    try:
        with scouting(left) as scout:
            assert ours(hear(scout)) == []
    finally:
        stop.set()
        thread.join()


@pytest.mark.live
def test_a_scout_can_be_waited_for(pair: NamespacePair) -> None:
    with scouting(pair.left, "tcp port 80") as scout, sender(pair.left) as send:
        hear(scout)
        assert select.select([scout], [], [], 0)[0] == []
        send(frame(pair.left, pair.right, OPENING["syn"][0]))
        assert select.select([scout], [], [], 0)[0] == [scout]


@pytest.mark.live
def test_the_filter_of_the_user_holds_for_the_scout(pair: NamespacePair) -> None:
    with scouting(pair.left, "port 53 or port 9999") as scout, sender(pair.left) as send:
        for packet, _ in OPENING.values():
            send(frame(pair.left, pair.right, packet))
        assert {flow.protocol for flow in hear(scout)} == {Protocol.UDP}


@pytest.mark.live
def test_a_flood_narrows_what_is_heard_and_quiet_widens_it(pair: NamespacePair) -> None:
    left, right = pair.left, pair.right
    datagram, syn = (frame(left, right, OPENING[name][0]) for name in ("udp", "syn"))
    with scouting(left) as scout, sender(left) as send:
        for _ in range(5000):
            send(datagram)
        assert len(ours(hear(scout))) < 100
        send(datagram)
        send(syn)
        assert [flow.protocol for flow in ours(hear(scout))] == [Protocol.TCP]
        for _ in range(5000):
            send(syn)
        assert len(ours(hear(scout))) < 100
        send(syn)
        assert hear(scout) == []
        scout.widen(NS_PER_S // 2)
        send(syn)
        assert hear(scout) == []
        scout.widen(NS_PER_S)
        send(datagram)
        send(syn)
        assert [flow.protocol for flow in ours(hear(scout))] == [Protocol.UDP, Protocol.TCP]


@pytest.mark.live
def test_a_flood_that_goes_on_is_looked_at_less_and_less_often(pair: NamespacePair) -> None:
    datagram = frame(pair.left, pair.right, OPENING["udp"][0])
    with scouting(pair.left) as scout, sender(pair.left) as send:
        now_ns, waits = 0, []
        for _ in range(5):
            for _ in range(1000):
                send(datagram)
            hear(scout, now_ns)
            flood_ns, heard = now_ns, False
            while not heard:
                now_ns += NS_PER_S // 2
                scout.widen(now_ns)
                send(datagram)
                heard = bool(ours(hear(scout, now_ns)))
            waits.append((now_ns - flood_ns) / NS_PER_S)
    assert waits == [1, 2, 4, 4, 4]


@pytest.mark.live
def test_a_filter_that_cannot_be_combined_leaves_no_scout(pair: NamespacePair) -> None:
    path = namespaces.named(pair.left.name)
    assert open_scout("left0", path, "((") is None
    with pytest.raises(UsageError):
        Scout("left0", path, "((")
