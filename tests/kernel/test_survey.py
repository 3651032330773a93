"""All sockets of a namespace again and again: the same as dumps find, and what has not changed is the same object."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bed.namespaces import Namespace, NamespacePair
from pktproc.kernel import inet_diag, namespaces
from pktproc.kernel.netlink_engine import NetlinkEngine
from pktproc.kernel.proc_net import in_use
from pktproc.kernel.sock_diag import DiagSocket
from pktproc.model import Protocol, Socket, SocketId

pytestmark = pytest.mark.live
TCP, UDP = Protocol.TCP, Protocol.UDP


@pytest.fixture
def space(pair: NamespacePair) -> Namespace:
    return pair.left


@pytest.fixture
def engine(space: Namespace) -> Iterator[NetlinkEngine]:
    with contextlib.closing(NetlinkEngine()) as opened:
        opened.namespaces()
        assert opened.readable(space.inode)
        yield opened


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as opened:
        yield opened


def make(space: Namespace, stack: contextlib.ExitStack, family: int, kind: int) -> socket.socket:
    protocol = socket.IPPROTO_ICMP if kind == socket.SOCK_RAW else 0
    sock = namespaces.run_inside(namespaces.named(space.name), lambda: socket.socket(family, kind, protocol))
    return stack.enter_context(sock)


def listen(space: Namespace, stack: contextlib.ExitStack, family: int, port: int) -> socket.socket:
    sock = make(space, stack, family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", port))
    sock.listen()
    return sock


def connect(space: Namespace, stack: contextlib.ExitStack, listener: socket.socket) -> tuple[socket.socket, ...]:
    client = make(space, stack, listener.family, socket.SOCK_STREAM)
    client.connect(("::1" if listener.family == socket.AF_INET6 else "127.0.0.1", listener.getsockname()[1]))
    return client, stack.enter_context(listener.accept()[0])


def dumped(space: Namespace) -> set[Socket]:
    """Return what dumps by family and protocol find."""
    diag = namespaces.run_inside(namespaces.named(space.name), lambda: DiagSocket(space.inode))
    with contextlib.closing(diag):
        return {fact for protocol in (TCP, UDP) for fact in diag.dump(protocol)}


def of(sockets: list[Socket], *protocols: int) -> dict[SocketId, Socket]:
    return {fact.id: fact for fact in sockets if fact.protocol in protocols and not fact.raw}


def test_it_finds_what_dumps_find(engine: NetlinkEngine, space: Namespace, stack: contextlib.ExitStack) -> None:
    for family, port in ((socket.AF_INET, 7970), (socket.AF_INET6, 7971)):
        listener = listen(space, stack, family, port)
        for _ in range(5):
            connect(space, stack, listener)
        datagram = make(space, stack, family, socket.SOCK_DGRAM)
        datagram.bind(("", port))
    lingering, accepted = connect(space, stack, listener)
    lingering.close()
    accepted.close()
    for _ in range(2):
        found = set(of(engine.sockets(space.inode), TCP, UDP).values())
        assert found == dumped(space)
        assert len(found) >= 2 * (1 + 10 + 1) + 1
    assert {fact.v6_only for fact in found if fact.local_port == 7971} == {False}
    assert {fact.state for fact in found} >= {inet_diag.TCP_LISTEN, inet_diag.TCP_ESTABLISHED, inet_diag.TCP_TIME_WAIT}


def test_what_has_not_changed_is_the_same_object(
    engine: NetlinkEngine, space: Namespace, stack: contextlib.ExitStack
) -> None:
    listener = listen(space, stack, socket.AF_INET, 7972)
    client, server = connect(space, stack, listener)
    before = of(engine.sockets(space.inode), TCP)
    client.send(b"something in the queue")
    other, _ = connect(space, stack, listener)
    after = of(engine.sockets(space.inode), TCP)
    assert all(after[key] is fact for key, fact in before.items())
    assert other.getsockname()[1] in {fact.local_port for fact in after.values()}
    assert server.recv(100)
    server.close()
    last = of(engine.sockets(space.inode), TCP)
    (changed,) = [fact for fact in last.values() if fact.local_port == client.getsockname()[1]]
    assert after[changed.id] != changed
    assert all(last[key] is fact for key, fact in after.items() if key in last and last[key] == fact)


def test_listeners_alone_are_found_and_so_is_their_first_connection(
    engine: NetlinkEngine, stack: contextlib.ExitStack
) -> None:
    with NamespacePair() as pair:
        quiet = pair.right
        engine.namespaces()
        assert of(engine.sockets(quiet.inode), TCP) == {}
        listeners = [listen(quiet, stack, family, 7973 + family) for family in (socket.AF_INET, socket.AF_INET6)]
        found = of(engine.sockets(quiet.inode), TCP)
        assert {fact.local_port for fact in found.values()} == {one.getsockname()[1] for one in listeners}
        ends = connect(quiet, stack, listeners[1])
        again = of(engine.sockets(quiet.inode), TCP)
        assert len(again) == len(found) + len(ends)
        assert all(again[key] is fact for key, fact in found.items())
        stack.close()


def test_the_kernel_s_count_is_that_of_its_tables(space: Namespace, stack: contextlib.ExitStack) -> None:
    for family, port in ((socket.AF_INET, 7974), (socket.AF_INET6, 7975)):
        listener = listen(space, stack, family, port)
        connect(space, stack, listener)
        make(space, stack, family, socket.SOCK_DGRAM).bind(("", port))
    make(space, stack, socket.AF_INET, socket.SOCK_RAW)
    counts = namespaces.run_inside(namespaces.named(space.name), lambda: in_use(Path("/proc/thread-self/net")))
    there = [fact for fact in dumped(space) if fact.state != inet_diag.TCP_TIME_WAIT]
    expected = {protocol.name: len([fact for fact in there if fact.protocol == protocol]) for protocol in (TCP, UDP)}
    assert {**expected, "RAW": 1, "UDPLITE": 0} == {kind: counts[kind] for kind in (*expected, "RAW", "UDPLITE")}


def test_without_counts_nothing_is_taken_to_be_none(tmp_path: Path) -> None:
    assert in_use(tmp_path) == {}
    (tmp_path / "sockstat").write_text("sockets: used 9\nTCP: inuse 3 orphan 0\nUDP: inuse x\nRAW: inuse\n")
    assert in_use(tmp_path) == {"TCP": 3}


def test_an_end_is_waited_for(engine: NetlinkEngine, space: Namespace, stack: contextlib.ExitStack) -> None:
    sock = make(space, stack, socket.AF_INET, socket.SOCK_STREAM)
    sock.bind(("", 7976))
    engine.ended()
    assert not engine.wait_for_ends(0.05)
    sock.close()
    assert engine.wait_for_ends(10)
    assert 7976 in {fact.local_port for fact in engine.ended().sockets}
