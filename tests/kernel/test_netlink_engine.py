"""The netlink engine on real sockets, in this namespace and in others."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bed.namespaces import Namespace, NamespacePair
from bed.program import Program
from bed.waiting import until
from pktproc.attribution.engine import Query
from pktproc.attribution.matching import select
from pktproc.kernel import namespaces
from pktproc.kernel.addresses import AddressSocket
from pktproc.kernel.netlink_engine import NetlinkEngine
from pktproc.kernel.procfs_engine import ProcfsEngine
from pktproc.model import Protocol, Socket, pack_address

pytestmark = pytest.mark.live
TCP, UDP = Protocol.TCP, Protocol.UDP
WAIT_S = 5.0


@pytest.fixture
def engine(pair: NamespacePair) -> Iterator[NetlinkEngine]:
    del pair  # only as root
    with contextlib.closing(NetlinkEngine()) as opened:
        yield opened


def query(space: int, local: tuple[str, int], remote: tuple[str, int], protocol: int = TCP, ifindex: int = 0) -> Query:
    return Query(space, protocol, pack_address(local[0]), local[1], pack_address(remote[0]), remote[1], ifindex)


def inside(space: Namespace, family: socket.AddressFamily, kind: int, protocol: int = 0) -> socket.socket:
    """Make a socket of this process in another namespace."""
    return namespaces.run_inside(namespaces.named(space.name), lambda: socket.socket(family, kind, protocol))


def inode_of(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


def listed_by_ip(space: Namespace) -> tuple[set[bytes], set[bytes]]:
    """Return the addresses that ip(8) lists, and those that the kernel's own routes take for broadcasts."""
    local = {pack_address(line.split()[3].partition("/")[0]) for line in space.run("ip", "-o", "address").splitlines()}
    routes = space.run("ip", "-4", "route", "show", "table", "local", "type", "broadcast").splitlines()
    return local, {pack_address(line.split()[1 if line.startswith("broadcast") else 0]) for line in routes}


def test_one_tuple_in_two_namespaces_is_two_sockets(engine: NetlinkEngine, pair: NamespacePair) -> None:
    ends = ("127.0.0.1", 7920), ("127.0.0.1", 7921)
    with contextlib.ExitStack() as stack:
        inodes = []
        for space in (pair.left, pair.right):
            sock = stack.enter_context(inside(space, socket.AF_INET, socket.SOCK_DGRAM))
            sock.bind(ends[0])
            sock.connect(ends[1])
            inodes.append(inode_of(sock))
        asked = [query(space.inode, *ends, protocol=UDP) for space in (pair.left, pair.right)]
        assert [[fact.inode for fact in found] for found in engine.candidates(asked)] == [[one] for one in inodes]


def test_tcp_and_udp_on_one_port_are_two_sockets(engine: NetlinkEngine, pair: NamespacePair) -> None:
    left = pair.left
    with (
        inside(left, socket.AF_INET, socket.SOCK_STREAM) as stream,
        inside(left, socket.AF_INET, socket.SOCK_DGRAM) as datagram,
    ):
        for sock in (stream, datagram):
            sock.bind((left.v4, 7922))
        stream.listen()
        asked = [query(left.inode, (left.v4, 7922), (pair.right.v4, 5000), protocol) for protocol in (TCP, UDP)]
        found = engine.candidates(asked)
        assert [{fact.inode for fact in sockets} for sockets in found] == [{inode_of(stream)}, {inode_of(datagram)}]


@pytest.mark.parametrize("count", [1, 5, 40, 200])
@pytest.mark.parametrize("protocol", [TCP, UDP])
def test_many_queries_at_once_find_the_same_as_one_by_one(
    engine: NetlinkEngine, pair: NamespacePair, count: int, protocol: int
) -> None:
    """Few are looked up, many are dumped."""
    left = pair.left
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(inside(left, socket.AF_INET, socket.SOCK_STREAM))
        listener.bind((left.v4, 7923))
        listener.listen(256)
        expected, asked = [], []
        for _ in range(count):
            kind = socket.SOCK_STREAM if protocol == TCP else socket.SOCK_DGRAM
            sock = stack.enter_context(inside(left, socket.AF_INET, kind))
            sock.connect((left.v4, 7923))
            expected.append(inode_of(sock))
            asked.append(query(left.inode, sock.getsockname(), (left.v4, 7923), protocol))
        found = engine.candidates(asked)
        assert [[fact.inode for fact in sockets] for sockets in found] == [[inode] for inode in expected]


def test_a_connection_that_nobody_has_accepted_comes_with_its_listener(
    engine: NetlinkEngine, pair: NamespacePair
) -> None:
    left = pair.left
    with (
        inside(left, socket.AF_INET, socket.SOCK_STREAM) as listener,
        inside(left, socket.AF_INET, socket.SOCK_STREAM) as client,
    ):
        listener.bind((left.v4, 7924))
        listener.listen()
        client.connect((left.v4, 7924))
        asked = query(left.inode, (left.v4, 7924), client.getsockname())
        (found,) = engine.candidates([asked])
        assert sorted(fact.inode for fact in found) == [0, inode_of(listener)]
        accepted, _ = listener.accept()
        with accepted:
            ((exact,),) = engine.candidates([asked])
            assert exact.inode == inode_of(accepted)


def test_a_dual_stack_listener_is_found_for_ipv4(engine: NetlinkEngine, pair: NamespacePair) -> None:
    left = pair.left
    with inside(left, socket.AF_INET6, socket.SOCK_STREAM) as listener:
        listener.bind(("::", 7925))
        listener.listen()
        for ours, theirs in ((left.v4, pair.right.v4), (left.v6, pair.right.v6)):
            (found,) = engine.candidates([query(left.inode, (ours, 7925), (theirs, 5000))])
            assert {fact.inode for fact in found} == {inode_of(listener)}


def test_a_connection_bound_to_its_device_is_found_on_it(engine: NetlinkEngine, pair: NamespacePair) -> None:
    """Link-local addresses need one; `ifindex` is where the packet was seen."""
    left, right = pair.left, pair.right
    with (
        Program("tcp_server", "::", 7926, namespace=right).ready(),
        inside(left, socket.AF_INET, socket.SOCK_STREAM) as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, left.interface.encode())
        client.connect((right.v4, 7926))
        ifindex = index_of(left)
        asked = query(left.inode, client.getsockname(), (right.v4, 7926), ifindex=ifindex)
        ((found,),) = engine.candidates([asked])
        assert (found.inode, found.ifindex) == (inode_of(client), ifindex)


def index_of(space: Namespace) -> int:
    line = space.run("ip", "-o", "link", "show", "dev", space.interface)
    return int(line.partition(":")[0])


def test_raw_and_ping_sockets_come_from_procfs(engine: NetlinkEngine, pair: NamespacePair) -> None:
    left = pair.left
    left.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    with (
        inside(left, socket.AF_INET, socket.SOCK_RAW, 89) as raw,
        inside(left, socket.AF_INET, socket.SOCK_DGRAM, Protocol.ICMP) as ping,
    ):
        ping.bind((left.v4, 4711))
        of_raw = query(left.inode, (left.v4, 0), (pair.right.v4, 0), 89)
        of_ping = query(left.inode, (left.v4, 4711), (pair.right.v4, 0), Protocol.ICMP)
        selected = [select(of_raw, engine.candidates([of_raw])[0]), select(of_ping, engine.candidates([of_ping])[0])]
        assert [[fact.inode for fact in one.sockets] for one in selected] == [[inode_of(raw)], [inode_of(ping)]]
        assert {inode_of(raw), inode_of(ping)} <= {fact.inode for fact in engine.sockets(left.inode)}


def test_protocols_that_the_kernel_lacks_are_said_once_and_end_in_nothing(
    engine: NetlinkEngine, pair: NamespacePair
) -> None:
    left = pair.left
    for _ in range(2):
        for protocol in (Protocol.SCTP, Protocol.UDPLITE, Protocol.DCCP):
            assert engine.candidates([query(left.inode, (left.v4, 7), (pair.right.v4, 7), protocol)]) == [[]]
    assert len(engine.limits) == len(set(engine.limits))


def test_the_sockets_of_a_namespace_are_those_of_procfs(engine: NetlinkEngine, pair: NamespacePair) -> None:
    right = pair.right
    with (
        Program("tcp_server", right.v4, 7927, namespace=right).ready(),
        Program("udp_server", "::", 7927, namespace=right).ready(),
    ):

        def facts(sockets: list[Socket]) -> set[tuple[object, ...]]:
            return {(*found[:8], found.uid) for found in sockets}

        floor = ProcfsEngine()
        assert facts(engine.sockets(right.inode)) == facts(floor.sockets(right.inode))
        assert {found.protocol for found in engine.sockets(right.inode) if found.local_port == 7927} == {
            Protocol.TCP,
            Protocol.UDP,
        }


def test_ends_are_heard_in_namespaces_that_were_asked(engine: NetlinkEngine, pair: NamespacePair) -> None:
    left = pair.left
    assert engine.hears_ends
    assert engine.readable(left.inode)
    engine.ended()
    with inside(left, socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((left.v4, 7928))
        ((before,),) = engine.candidates([query(left.inode, (left.v4, 7928), (pair.right.v4, 1), UDP)])
    deadline = time.monotonic() + WAIT_S
    heard: list[Socket] = []
    while not heard and time.monotonic() < deadline:
        heard = [found for found in engine.ended().sockets if found.netns == left.inode]
    assert [(found.cookie, found.protocol, found.local_port) for found in heard] == [(before.cookie, UDP, 7928)]


def test_addresses_are_those_of_ip(engine: NetlinkEngine, pair: NamespacePair) -> None:
    left = pair.left
    left.run("ip", "address", "add", "10.77.9.1", "peer", "10.77.9.2", "dev", left.interface)
    left.run("ip", "address", "add", "10.77.7.1", "peer", "10.77.6.2/24", "dev", left.interface)
    left.run("ip", "address", "add", "10.77.8.1/24", "brd", "+", "dev", left.interface)
    left.run("ip", "address", "add", "10.77.5.0/31", "dev", left.interface)
    found = engine.addresses(left.inode)
    assert (set(found.local), set(found.broadcast)) == listed_by_ip(left)
    assert pack_address("10.77.9.1") in found.local
    assert pack_address("10.77.9.2") not in found.local
    assert pack_address("10.77.8.255") in found.broadcast


def test_an_address_socket_sees_its_own_namespace(pair: NamespacePair) -> None:
    right = pair.right
    opened = namespaces.run_inside(namespaces.named(right.name), AddressSocket)
    with contextlib.closing(opened):
        assert opened.addresses().local == listed_by_ip(right)[0]
        assert opened.addresses().local == listed_by_ip(right)[0]


def test_a_namespace_without_a_name_or_a_process_is_let_go_and_dies(engine: NetlinkEngine) -> None:
    """While a socket of ours lives in it, its veth end would live on; its peer shows whether it died."""
    with NamespacePair() as pair:
        left, right = pair.left, pair.right
        assert {left.inode, right.inode} <= engine.namespaces()
        assert engine.readable(right.inode)
        assert engine.addresses(right.inode).local
        number = right.inode
        subprocess.run(["ip", "netns", "del", right.name], check=True, timeout=30)
        assert left.interface in left.run("ip", "-o", "link")
        assert number not in engine.namespaces()
        until(lambda: left.interface not in left.run("ip", "-o", "link"), lambda: "the namespace still lives")
        assert not engine.readable(number)
        assert engine.candidates([query(number, ("10.77.0.2", 1), ("10.77.0.1", 1))]) == [[]]
        assert engine.addresses(number).local == frozenset()


def test_nothing_stays_open_after_closing() -> None:
    before = open_files()
    with NamespacePair() as pair:
        engine = NetlinkEngine()
        assert engine.readable(pair.left.inode)
        assert open_files() > before
        engine.close()
    assert open_files() == before


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
