"""Every way to send and to receive: the engine `ebpf` names who did it, not who made the socket."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from bed.frames import ethernet, ipv4, udp
from bed.namespaces import Namespace, NamespacePair
from bed.program import Program
from bed.sniff import Packet, sends, sniffing_both
from kernel.ebpf.exact_bed import ExactProgram, ExactSniff
from pktproc.kernel.cgroups import cgroup_root

PORT = 7700
MPTCP = 262
FAMILY = {"v4": "ip", "v6": "ip6"}  # in pcap-filter(7)
WAYS = (
    ("write", "read"),
    ("sendmsg", "recvmsg"),
    ("sendmmsg", "recvmmsg"),
    ("sendfile", "read"),
    ("splice", "splice"),
    ("zerocopy", "read"),
    ("io_uring", "io_uring"),
)
HEADERS_BYTES = 110  # more than the headers of a packet without data, with all options that there is room for


class Protocol(NamedTuple):
    """A transport over a version of IP."""

    transport: str
    version: str

    def address(self, namespace: Namespace) -> str:
        return str(getattr(namespace, self.version))


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup of its own below the root of cgroup v2."""
    root = cgroup_root(Path("/proc/self/mountinfo").read_text())
    made = root / f"pktproc-test-{os.getpid()}"
    made.mkdir()
    yield made
    made.rmdir()


def named(packets: list[Packet], side: str, address: str) -> set[tuple[int | None, str | None, str | None]]:
    """Return pid, match and evidence of an end of the packets that carry data to or from an address."""
    answers = [
        packet["pktproc"].get(side, {})
        for packet in packets
        if packet[side]["ip"] == address and packet["network"]["bytes"] > HEADERS_BYTES
    ]
    return {(answer.get("process", {}).get("pid"), answer.get("match"), answer.get("evidence")) for answer in answers}


@pytest.mark.parametrize(
    "protocol", [Protocol("tcp", "v4"), Protocol("tcp", "v6"), Protocol("udp", "v4"), Protocol("udp", "v6")]
)
def test_who_uses_a_socket_is_named_and_not_who_made_it(left: Namespace, right: Namespace, protocol: Protocol) -> None:
    """In each of the ways to send and to receive, by a process of its own."""
    transport, ours, theirs = protocol.transport, protocol.address(left), protocol.address(right)
    users: dict[int, int] = {}
    with (
        Program(f"{transport}_server", theirs, PORT, namespace=right).ready() as server,
        sniffing_both(f"{transport} port {PORT}", on=(left, right), kind=ExactSniff) as (near, far),
        ExitStack() as opened,
    ):
        for send, receive in WAYS:
            # A datagram socket cannot be spliced from.
            possible = "read" if transport == "udp" and receive == "splice" else receive
            ways = ("--send", send, "--receive", possible, "--protocol", {"tcp": 6, "udp": 17}[transport])
            client = opened.enter_context(ExactProgram("ways", theirs, PORT, *ways, namespace=left)).ready()
            port = client.expect("ready")[0]["local"][1]
            if transport == "tcp":
                # A block of packets has one answer for a flow; let the handshake be in an earlier one.
                near.wait_for(sends(transport, ours, port))
            client.say()
            users[port] = client.expect("used")[0]["child"]
        near_packets, far_packets = near.stop().packets, far.stop().packets
    assert len(users) == len(WAYS)
    for port, child in users.items():
        own = [packet for packet in near_packets if port in (packet["source"]["port"], packet["destination"]["port"])]
        assert named(own, "source", ours) == {(child, "exact", "ebpf")}
        assert named(own, "destination", ours) == {(child, "exact", "ebpf")}
        served = [packet for packet in far_packets if port in (packet["source"]["port"], packet["destination"]["port"])]
        assert named(served, "source", theirs) == {(server.pid, "exact", "ebpf")}
        assert named(served, "destination", theirs) == {(server.pid, "exact", "ebpf")}


@pytest.mark.parametrize("version", ["v4", "v6"])
@pytest.mark.parametrize(
    ("protocol", "expression"), [(MPTCP, f"tcp port {PORT}"), (socket.IPPROTO_UDPLITE, "ip proto 136 or ip6 proto 136")]
)
def test_who_uses_rarer_transports_is_named(pair: NamespacePair, protocol: int, expression: str, version: str) -> None:
    left, right = pair.left, pair.right
    ours, theirs = getattr(left, version), getattr(right, version)
    with (
        ExactProgram("echo", theirs, PORT, "--protocol", protocol, namespace=right).ready() as server,
        sniffing_both(expression, on=(left, right), kind=ExactSniff) as (near, far),
        ExactProgram("ways", theirs, PORT, "--protocol", protocol, namespace=left).ready() as client,
    ):
        if protocol == MPTCP:
            near.wait_for(lambda packet: packet["source"]["ip"] == ours)
        client.say()
        (used,) = client.expect("used")
        near_packets, far_packets = near.stop().packets, far.stop().packets
    for side in ("source", "destination"):
        assert named(near_packets, side, ours) == {(used["child"], "exact", "ebpf")}
        assert named(far_packets, side, theirs) == {(server.pid, "exact", "ebpf")}


@pytest.mark.parametrize(
    ("change", "name"), [("exec", "another-program"), ("rename", "another name"), ("exit", None), ("cgroup", None)]
)
def test_who_changes_before_its_packets_leave_is_described_as_it_is_then(
    left: Namespace, right: Namespace, cgroup: Path, change: str, name: str | None
) -> None:
    place = ["--cgroup", cgroup] if change == "cgroup" else []
    with (
        Program("udp_server", right.v4, PORT, namespace=right).ready(),
        ExactSniff(f"udp port {PORT} and src {left.v4}", on=left) as sniff,
        ExactProgram("changing", right.v4, PORT, change, *place, namespace=left).ready() as program,
    ):
        program.say()
        program.child.wait(timeout=10)
        packets = sniff.stop().packets
    (process,) = (packet["pktproc"]["source"]["process"] for packet in packets)
    assert process["pid"] == program.pid
    if change == "exec":
        assert process["command_line"].startswith(name)
    elif name:
        assert process["name"] == name


def test_a_worker_is_named_and_not_the_server_that_forked_it(left: Namespace, right: Namespace) -> None:
    with (
        Program("tcp_prefork", right.v4, PORT, "--workers", 4, namespace=right).ready() as server,
        ExactSniff(f"tcp port {PORT}", on=right) as sniff,
        Program("parallel_clients", right.v4, PORT, "--clients", 4, namespace=left) as clients,
    ):
        clients.expect("client", 4)
        served = {event["remote"][1]: event["pid"] for event in server.expect("accepted", 4)}
        packets = sniff.stop().packets
    for port, pid in served.items():
        own = [p for p in packets if port in (p["source"]["port"], p["destination"]["port"])]
        assert named(own, "source", right.v4) == {(pid, "exact", "ebpf")}
        assert named(own, "destination", right.v4) == {(pid, "exact", "ebpf")}


def test_of_two_servers_on_one_port_the_one_is_named_that_the_kernel_chose(left: Namespace, right: Namespace) -> None:
    eight = ("--count", 8, "--wait", "--udp", "--port", 20000)
    with (
        Program("udp_server", right.v4, PORT, "--reuseport", namespace=right).ready() as first,
        Program("udp_server", right.v4, PORT, "--reuseport", namespace=right).ready() as second,
        ExactSniff(f"udp port {PORT}", on=right) as sniff,
        ExactProgram("crowd", right.v4, PORT, *eight, namespace=left).ready() as clients,
    ):
        clients.say()
        clients.expect("done")
        packets = sniff.stop().packets
        owner = {event["remote"][1]: server.pid for server in (first, second) for event in server.events("datagram")}
    assert len(owner) == 8
    for packet in packets:
        side, other = ("source", "destination") if packet["source"]["ip"] == right.v4 else ("destination", "source")
        answer = packet["pktproc"][side]
        assert answer["process"]["pid"] == owner[packet[other]["port"]]
        assert (answer["match"], answer["evidence"]) == ("exact", "ebpf")


@pytest.mark.parametrize("protocol", [6, 17, 253])
def test_who_injects_a_frame_is_named(left: Namespace, right: Namespace, protocol: int) -> None:
    segment = struct.pack("!HHIIBBHHH", 7306, 7206, 1, 1, 0x50, 0x10, 1000, 0, 0) + b"made up"
    payload = {6: segment, 17: udp(7306, 7206, b"made up"), 253: b"an experiment"}[protocol]
    with (
        Program("inject", left.interface, namespace=left).ready() as bystander,
        Program("inject", left.interface, namespace=left).ready() as inject,
        ExactSniff(f"ip proto {protocol} and src {left.v4}", on=left) as sniff,
    ):
        inject.say(ethernet(left, right, ipv4(left.v4, right.v4, protocol, payload)).hex())
        inject.expect("sent")
        packets = [packet for packet in sniff.stop().packets if packet["source"].get("port", 7306) == 7306]
    assert bystander.pid != inject.pid
    (answer,) = (packet["pktproc"]["source"] for packet in packets)
    assert (answer["process"]["pid"], answer["match"], answer["evidence"]) == (inject.pid, "exact", "ebpf")


@pytest.mark.parametrize("version", ["v4", "v6"])
def test_who_sends_by_a_raw_socket_is_named(left: Namespace, right: Namespace, version: str) -> None:
    ours, theirs = getattr(left, version), getattr(right, version)
    with (
        ExactSniff(f"{FAMILY[version]} proto 253 and src {ours}", on=left) as sniff,
        ExactProgram("raw_sender", theirs, 253, namespace=left).ready() as idle,
        ExactProgram("raw_sender", theirs, 253, namespace=left).ready() as sender,
    ):
        sender.say()
        sender.expect("sent")
        packets = sniff.stop().packets
    assert idle.pid != sender.pid
    (answer,) = (packet["pktproc"]["source"] for packet in packets)
    assert (answer["process"]["pid"], answer["match"], answer["evidence"]) == (sender.pid, "exact", "ebpf")
