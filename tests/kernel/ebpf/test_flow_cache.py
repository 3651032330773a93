"""The flow cache on a packet socket: what it takes in, what it gives up, and what is handed over."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bed.namespaces import NamespacePair
from pktproc.capture import filter as packet_filter
from pktproc.kernel import namespaces
from pktproc.kernel.ebpf.flow_cache import MOST_FLOWS, FlowCache, can_count
from pktproc.model import Direction, Flow, Protocol, pack_address

ADDRESS = "127.0.0.1"
LOOPBACK = 1
FRAME_BYTES = 14 + 20 + 8
NS_PER_S = 1_000_000_000
ETH_P_ALL = 3


class Bed:
    """A cache on the loopback of a namespace, and a datagram socket that sends there to itself."""

    def __init__(self, space: Path) -> None:
        self.space = space
        self.tap, self.sock, self.server = namespaces.run_inside(space, _sockets)
        self.cache = FlowCache("wire", "inout", 256, time.monotonic_ns)
        packet_filter.attach_loaded(self.tap, self.cache.descriptor)
        self.port = self.sock.getsockname()[1]
        port = self.port
        here = pack_address(ADDRESS)
        self.flow = Flow(0, LOOPBACK, Direction.LOOPBACK, Protocol.UDP, here, port, here, port)

    def send(self, count: int, size: int = 10) -> None:
        """Send datagrams; on loopback all of them have been tapped when this returns."""
        for _ in range(count):
            self.sock.sendto(bytes(size), (ADDRESS, self.port))

    def handed_over(self) -> int:
        """Take out what came to the packet socket and return how many packets of IPv4 that is.

        An interface that just came up sends some of IPv6 by itself.
        """
        count = 0
        while True:
            try:
                packet = self.tap.recv(64)
            except BlockingIOError:
                return count
            count += packet[12:14] == b"\x08\x00"

    def watch(self, flow: Flow) -> None:
        number = self.cache.put(flow)
        assert number is not None
        self.cache.start(number, flow)

    def ended_by_itself(self, flow: Flow, *, at_least: int) -> None:
        """Assert that a watched flow was given up and so many packets, or more, were handed over, nothing counted."""
        assert self.cache.has_given_up
        assert self.cache.read(time.monotonic_ns()) is None
        assert flow not in self.cache
        assert self.handed_over() >= at_least

    def close(self) -> None:
        for one in (self.tap, self.sock, self.server, self.cache):
            one.close()


def _sockets() -> tuple[socket.socket, socket.socket, socket.socket]:
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(ETH_P_ALL))
    tap.bind(("lo", 0))
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((ADDRESS, 0))
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    server.bind((ADDRESS, 0))
    server.listen()
    return tap, sock, server


@pytest.fixture
def bed() -> Iterator[Bed]:
    if os.geteuid() != 0:
        pytest.fail("live tests make network namespaces: run them as root", pytrace=False)
    with NamespacePair() as pair:
        pair.left.run("ip", "link", "set", "lo", "up")
        made = Bed(pair.left.path)
        yield made
        made.close()


def test_a_flow_is_handed_over_until_it_is_started(bed: Bed) -> None:
    number = bed.cache.put(bed.flow)
    assert number is not None
    bed.send(3)
    assert (bed.handed_over(), bed.cache.read(time.monotonic_ns())) == (3, None)
    bed.cache.start(number, bed.flow)
    begin_ns = time.monotonic_ns()
    bed.send(5, 100)
    end_ns = time.monotonic_ns()
    reading = bed.cache.read(time.monotonic_ns())
    assert bed.handed_over() == 0
    assert reading is not None
    assert reading.flows == [bed.flow]
    assert (reading.packets.tolist(), reading.bytes.tolist()) == ([5], [5 * (FRAME_BYTES + 100)])
    assert begin_ns <= reading.first_ns[0] <= reading.last_ns[0] <= end_ns
    assert bed.cache.read(time.monotonic_ns()) is None


def test_another_flow_is_handed_over(bed: Bed) -> None:
    bed.watch(bed.flow._replace(destination_port=1))
    bed.send(4)
    assert (bed.handed_over(), bed.cache.read(time.monotonic_ns())) == (4, None)


@pytest.mark.parametrize(("ifindex", "direction"), [(77, Direction.LOOPBACK), (LOOPBACK, Direction.OUTGOING)])
def test_what_comes_by_another_interface_or_way_ends_it(bed: Bed, ifindex: int, direction: Direction) -> None:
    flow = bed.flow._replace(ifindex=ifindex, direction=direction)
    bed.watch(flow)
    bed.send(2)
    assert bed.handed_over() == 2
    assert bed.cache.has_given_up
    assert bed.cache.read(time.monotonic_ns()) is None
    assert flow not in bed.cache
    assert bed.cache.put(bed.flow) is None, "it would be given up again at once"


def test_a_connection_that_begins_or_ends_is_handed_over(bed: Bed) -> None:
    address, port = bed.server.getsockname()
    with namespaces.run_inside(bed.space, lambda: socket.socket(socket.AF_INET)) as client:
        client.bind((ADDRESS, 0))
        flow = bed.flow._replace(protocol=Protocol.TCP, source_port=client.getsockname()[1], destination_port=port)
        bed.watch(flow)
        client.connect((address, port))
        bed.ended_by_itself(flow, at_least=3)  # SYN, SYN-ACK, ACK
        bed.watch(flow)
        client.sendall(b"x")
        reading = bed.cache.read(time.monotonic_ns())
        assert reading is not None
        assert (reading.flows, reading.packets.tolist(), bed.handed_over()) == ([flow], [1], 1)  # the ACK of the data
        client.shutdown(socket.SHUT_WR)
        bed.ended_by_itself(flow, at_least=1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        bed.watch(flow)
    bed.ended_by_itself(flow, at_least=1)  # RST


def test_sums_on_both_sides_of_a_boundary_are_kept_apart(bed: Bed) -> None:
    bed.watch(bed.flow)
    told = []
    for sizes in ((1, 2), (3, 4), (5, 6)):
        boundary_ns = time.monotonic_ns() + 2_000_000
        bed.cache.divide_at(boundary_ns, time.monotonic_ns())
        bed.send(sizes[0])
        assert time.monotonic_ns() < boundary_ns, "this machine stood still: raise the boundary"
        while time.monotonic_ns() < boundary_ns:
            pass
        bed.send(sizes[1])
        reading = bed.cache.read(time.monotonic_ns())
        assert reading is not None
        told.append((reading.packets.tolist(), reading.after.tolist()))
    assert told == [([1, 2], [False, True]), ([3, 4], [False, True]), ([5, 6], [False, True])]


def test_a_flow_without_packets_gives_its_place_to_others(bed: Bed) -> None:
    bed.watch(bed.flow)
    later_ns = time.monotonic_ns()
    for seconds in (1, 2, 3):
        assert bed.cache.read(later_ns + seconds * NS_PER_S) is None
        assert bed.flow in bed.cache
    assert bed.cache.read(later_ns + 7 * NS_PER_S) is None
    assert bed.flow not in bed.cache
    bed.send(1)
    assert bed.handed_over() == 1
    bed.watch(bed.flow)
    bed.send(1)
    assert bed.handed_over() == 0


def test_what_came_before_a_flow_is_taken_out_is_still_read(bed: Bed) -> None:
    bed.watch(bed.flow)
    bed.send(7)
    bed.cache.remove(bed.flow)
    bed.send(2)
    assert bed.handed_over() == 2
    reading = bed.cache.read(time.monotonic_ns())
    assert reading is not None
    assert reading.packets.tolist() == [7]
    assert bed.cache.packets == 7
    assert bed.cache.ports() == []


def test_in_the_end_everything_is_handed_over(bed: Bed) -> None:
    bed.watch(bed.flow)
    bed.cache.hand_over_all()
    bed.send(3)
    assert (bed.handed_over(), bed.cache.read(time.monotonic_ns())) == (3, None)


def test_there_is_room_for_so_many_and_no_more(bed: Bed) -> None:
    for port in range(MOST_FLOWS):
        assert bed.cache.put(bed.flow._replace(source_port=port, destination_port=0)) is not None
    another = bed.flow._replace(source_port=0, destination_port=1)
    assert bed.cache.put(another) is None
    bed.cache.remove(bed.flow._replace(source_port=5, destination_port=0))
    bed.cache.read(time.monotonic_ns())
    assert bed.cache.put(another) is None, "the place has to rest"
    bed.cache.read(time.monotonic_ns() + 2 * NS_PER_S)
    bed.cache.read(time.monotonic_ns() + 3 * NS_PER_S)
    assert bed.cache.put(another) is not None


def test_a_flow_that_another_tap_sees_is_handed_over(bed: Bed) -> None:
    bed.watch(bed.flow)
    bed.cache.leave(bed.flow._replace(ifindex=77, direction=Direction.OUTGOING))
    bed.send(2)
    assert bed.handed_over() == 2
    assert bed.cache.put(bed.flow) is None


def test_some_flows_cannot_be_told_from_others() -> None:
    here = pack_address(ADDRESS)
    flow = Flow(0, LOOPBACK, Direction.LOOPBACK, Protocol.UDP, here, 1, here, 2)
    assert can_count(flow)
    assert can_count(flow._replace(protocol=Protocol.TCP))
    for other in (
        flow._replace(protocol=Protocol.ICMP),
        flow._replace(protocol=Protocol.SCTP),
        flow._replace(direction=Direction.PASSING),
        flow._replace(ports_known=False),
        flow._replace(quoted=flow),
    ):
        assert not can_count(other)
