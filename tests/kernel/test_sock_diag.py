"""Sockets by sock_diag, compared with what ss(8) says of the same sockets."""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import pytest

from bed.namespaces import Namespace, NamespacePair
from bed.program import Program
from kernel.fake_proc import CLOSE, ESTABLISHED, LISTEN, SYN_SENT, TIME_WAIT
from pktproc.errors import Unsupported
from pktproc.kernel import inet_diag, namespaces
from pktproc.kernel.sock_diag import DiagSocket, EndedSockets
from pktproc.model import Protocol, Socket, format_address, pack_address

TCP, UDP = Protocol.TCP, Protocol.UDP
# States as ss prints them, by their numbers in net/tcp_states.h.
STATES = {"ESTAB": ESTABLISHED, "SYN-SENT": SYN_SENT, "TIME-WAIT": TIME_WAIT, "UNCONN": CLOSE, "LISTEN": LISTEN}
STATES |= {"SYN-RECV": 3, "FIN-WAIT-1": 4, "FIN-WAIT-2": 5, "CLOSE-WAIT": 8, "LAST-ACK": 9, "CLOSING": 11}
WAIT_S = 5.0


class Line(NamedTuple):
    """What ss says of a socket."""

    local: tuple[str, int]
    state: int
    inode: int
    cookie: int
    uid: int | None


def ss(transport: str, run: Callable[..., str]) -> dict[int, Line]:
    """Return what ss says of all sockets of a transport, by cookie; uid 0 is not printed."""
    found = {}
    for line in run("ss", f"-Hnae{transport[0]}", "-O").splitlines():
        state, _, _, local = line.split()[:4]
        address, _, port = local.rpartition(":")
        cookie = int(re.search(r"sk:([0-9a-f]+)", line)[1], 16)  # type: ignore[index]
        inode = int(match[1]) if (match := re.search(r"ino:(\d+)", line)) else 0
        uid = int(match[1]) if (match := re.search(r"uid:(\d+)", line)) else None
        text = address.strip("[]").split("%")[0].replace("*", "::").removeprefix("::ffff:")
        found[cookie] = Line((text, int(port)), STATES[state], inode, cookie, uid)
    return found


def here(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


def as_line(found: Socket) -> Line:
    end = (format_address(found.local_address), found.local_port)
    return Line(end, found.state, found.inode, found.cookie, found.uid or None)


@pytest.fixture
def diag() -> Iterator[DiagSocket]:
    opened = DiagSocket(namespaces.current())
    yield opened
    opened.close()


@contextmanager
def connection(
    family: socket.AddressFamily, address: str
) -> Iterator[tuple[socket.socket, socket.socket, socket.socket]]:
    """A listener, a client and the server's end."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, 0))
        listener.listen()
        client = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        client.connect(listener.getsockname())
        accepted = stack.enter_context(listener.accept()[0])
        yield listener, client, accepted


def end_of(name: tuple[str, int, int, int] | tuple[str, int]) -> tuple[bytes, int]:
    return pack_address(name[0]), name[1]


def inode_of(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino


@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::ffff:127.0.0.1")],
)
def test_a_tcp_connection_is_found_from_both_ends(diag: DiagSocket, family: socket.AddressFamily, address: str) -> None:
    with connection(family, address) as (listener, client, accepted):
        for own in (client, accepted):
            local, remote = end_of(own.getsockname()), end_of(own.getpeername())
            found = diag.find(TCP, local=local, remote=remote)
            assert found is not None
            assert (found.inode, found.state, found.uid) == (inode_of(own), ESTABLISHED, os.geteuid())
            assert ((found.local_address, found.local_port), (found.remote_address, found.remote_port)) == (
                local,
                remote,
            )
            assert as_line(found) == ss("tcp", here)[found.cookie]
        stranger = (pack_address("127.0.0.1" if "." in address else "::1"), 1)
        found = diag.find(TCP, local=end_of(listener.getsockname()), remote=stranger)
        assert found is not None
        assert (found.inode, found.state) == (inode_of(listener), LISTEN)


def test_nothing_is_found_where_nothing_is(diag: DiagSocket) -> None:
    nowhere = pack_address("127.0.0.1"), 1
    assert diag.find(TCP, local=nowhere, remote=nowhere) is None
    assert list(diag.dump(TCP, port=1)) == []


def test_a_look_up_after_an_unfinished_dump_gets_its_own_answer(diag: DiagSocket) -> None:
    with connection(socket.AF_INET, "127.0.0.1") as (_, client, _):
        dump = diag.dump(TCP)
        next(dump)
        found = diag.find(TCP, local=end_of(client.getsockname()), remote=end_of(client.getpeername()))
        assert found is not None
        assert found.inode == inode_of(client)


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_dump_is_what_ss_lists(diag: DiagSocket, transport: str) -> None:
    protocol = {"tcp": TCP, "udp": UDP}[transport]
    with ExitStack() as stack:
        mine = set()
        for family, address in (
            (socket.AF_INET, "127.0.0.1"),
            (socket.AF_INET6, "::1"),
            (socket.AF_INET6, "::ffff:127.0.0.1"),
        ):
            if protocol == TCP:
                mine |= {inode_of(own) for own in stack.enter_context(connection(family, address))}
            else:
                bound = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
                bound.bind((address, 0))
                connected = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
                connected.connect(bound.getsockname())
                mine |= {inode_of(bound), inode_of(connected)}
        listed = {line.cookie: line for line in ss(transport, here).values() if line.inode in mine}
        found = {fact.cookie: as_line(fact) for fact in diag.dump(protocol) if fact.inode in mine}
        assert found == listed
        assert len(found) == len(mine)


def test_a_dump_can_be_of_one_port_and_of_listeners(diag: DiagSocket) -> None:
    with connection(socket.AF_INET, "127.0.0.1") as (listener, _, accepted), connection(socket.AF_INET, "127.0.0.1"):
        port = listener.getsockname()[1]
        assert {fact.inode for fact in diag.dump(TCP, port=port)} == {inode_of(listener), inode_of(accepted)}
        listening = [fact.inode for fact in diag.dump(TCP, states=1 << inet_diag.TCP_LISTEN, port=port)]
        assert listening == [inode_of(listener)]


@pytest.mark.parametrize("only", [True, False])
def test_a_dual_stack_socket_is_told_from_a_v6_only_one(diag: DiagSocket, only: bool) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as bound:
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        bound.bind(("::", 0))
        (found,) = list(diag.dump(UDP, port=bound.getsockname()[1]))
        assert (found.v6_only, found.inode) == (only, inode_of(bound))


def test_a_connection_keeps_its_cookie_when_its_inode_goes(diag: DiagSocket) -> None:
    with connection(socket.AF_INET, "127.0.0.1") as (_, client, accepted):
        local, remote = end_of(client.getsockname()), end_of(client.getpeername())
        before = diag.find(TCP, local=local, remote=remote)
        client.close()
        accepted.recv(1)
        accepted.close()
        after = diag.find(TCP, local=local, remote=remote)
    assert before is not None
    assert after is not None
    assert (after.state, after.inode, after.uid) == (TIME_WAIT, 0, None)
    assert after.cookie == before.cookie
    assert ss("tcp", here)[after.cookie].state == TIME_WAIT


def test_an_unknown_protocol_is_unsupported(diag: DiagSocket) -> None:
    with pytest.raises(Unsupported, match="253"):
        list(diag.dump(253))


def eventually(ended: EndedSockets, cookie: int) -> Socket:
    """Wait for the notice of a socket's end, with none lost."""
    found = unless_lost(ended, cookie)
    assert found, "notices were lost"
    return found


def unless_lost(ended: EndedSockets, cookie: int) -> Socket | None:
    """Wait for the notice of a socket's end; return None if notices are lost, of which it may be one."""
    heard: list[Socket] = []
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        facts, lost = ended.drain()
        if lost:
            return None
        heard += facts
        for fact in heard:
            if fact.cookie == cookie:
                return fact
        time.sleep(0.01)
    raise AssertionError(f"no notice of {cookie}, but of {heard}")


@pytest.fixture
def ended() -> Iterator[EndedSockets]:
    if os.geteuid() != 0:
        pytest.fail("notices of ended sockets need root", pytrace=False)
    opened = EndedSockets(namespaces.current())
    yield opened
    opened.close()


@pytest.mark.live
def test_the_end_of_a_tcp_socket_is_heard_with_its_cookie(diag: DiagSocket, ended: EndedSockets) -> None:
    with connection(socket.AF_INET, "127.0.0.1") as (listener, client, accepted):
        of_listener = next(iter(diag.dump(TCP, port=listener.getsockname()[1], states=1 << LISTEN)))
        local, remote = end_of(client.getsockname()), end_of(client.getpeername())
        of_client = diag.find(TCP, local=local, remote=remote)
        assert of_client is not None
        client.close()
        accepted.close()
        heard = eventually(ended, of_client.cookie)
        assert (heard.protocol, heard.local_address, heard.local_port) == (TCP, *local)
        assert (heard.remote_address, heard.remote_port) == remote
    heard = eventually(ended, of_listener.cookie)
    assert heard.protocol == TCP


@pytest.mark.live
@pytest.mark.parametrize(
    ("family", "address"),
    [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"), (socket.AF_INET6, "::ffff:127.0.0.1")],
)
@pytest.mark.parametrize("connected", [True, False])
def test_the_end_of_a_udp_socket_is_heard_with_its_cookie(
    diag: DiagSocket, ended: EndedSockets, family: socket.AddressFamily, address: str, connected: bool
) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as own:
        own.bind((address, 0))
        if connected:
            own.connect((address, 9))
        local = end_of(own.getsockname())
        (before,) = list(diag.dump(UDP, port=local[1]))
    heard = eventually(ended, before.cookie)
    assert (heard.protocol, heard.local_address, heard.local_port) == (UDP, *local)
    assert (heard.remote_address, heard.remote_port) == (before.remote_address, before.remote_port)


def overrun(ended: EndedSockets) -> None:
    """Let sockets end until the kernel has dropped a notice, which poll(2) tells; it drops them some time later."""
    waiting = select.poll()
    waiting.register(ended.fileno(), 0)  # POLLERR alone
    deadline = time.monotonic() + 6 * WAIT_S
    while not waiting.poll(0):
        assert time.monotonic() < deadline
        for _ in range(1000):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
                own.bind(("127.0.0.1", 0))


@pytest.mark.live
def test_lost_notices_are_reported(diag: DiagSocket, ended: EndedSockets) -> None:
    overrun(ended)
    facts, lost = ended.drain()
    assert lost
    assert facts
    assert ended.overruns >= 1
    # What is on its way still comes, and may be too much again; then a socket is heard that ends from now on.
    found, deadline = None, time.monotonic() + WAIT_S
    while found is None:
        assert time.monotonic() < deadline
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
            own.bind(("127.0.0.1", 0))
            (last,) = list(diag.dump(UDP, port=own.getsockname()[1]))
        found = unless_lost(ended, last.cookie)
    assert found.protocol == UDP


def in_namespace(space: Namespace) -> DiagSocket:
    return namespaces.run_inside(namespaces.named(space.name), lambda: DiagSocket(space.inode))


@pytest.mark.live
def test_another_namespace_is_asked_from_outside(pair: NamespacePair) -> None:
    left, right = pair.left, pair.right
    with (
        Program("tcp_server", right.v4, 7910, namespace=right).ready(),
        Program("tcp_client", right.v4, 7910, namespace=left).ready() as client,
        contextlib.closing(in_namespace(right)) as diag,
    ):
        client.expect("done")
        listed = {line.cookie: line for line in ss("tcp", right.run).values()}
        found = list(diag.dump(TCP))
        assert {fact.cookie: as_line(fact) for fact in found} == listed
        assert sorted((fact.local_port, fact.state) for fact in found) == [(7910, ESTABLISHED), (7910, LISTEN)]
        assert {fact.netns for fact in found} == {right.inode}


@pytest.mark.live
def test_a_connection_that_waits_for_its_answer_is_found(pair: NamespacePair) -> None:
    """Nobody has the address, so the SYN is never answered."""
    left = pair.left
    path = namespaces.named(left.name)
    with (
        contextlib.closing(in_namespace(left)) as diag,
        namespaces.run_inside(path, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as waiting,
    ):
        waiting.setblocking(False)
        waiting.connect_ex(("10.77.0.9", 80))
        local, remote = end_of(waiting.getsockname()), (pack_address("10.77.0.9"), 80)
        found = diag.find(TCP, local=local, remote=remote)
        assert found is not None
        assert (found.state, found.inode) == (SYN_SENT, inode_of(waiting))
        assert ss("tcp", left.run)[found.cookie].state == SYN_SENT
