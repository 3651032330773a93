"""Connections that are refused, reset, given up or over: what the kernel sends for them is no bystander's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from bed.frames import ethernet, ipv4, tcp
from bed.namespaces import NamespacePair
from bed.program import Program
from bed.sniff import Packet, Sniff, sends, sniffing_both
from bed.ss import states_of
from bed.verdict import fully_named, judge
from bed.waiting import until

PORT, SOURCE_PORT = 7940, 17940
GONE = "10.77.0.99"
TCP = 6
SYN, PUSH, ACK = 2, 8, 16
ENGINES = pytest.mark.parametrize("engine", ["netlink", "ebpf"])
VERSIONS = pytest.mark.parametrize("version", ["v4", "v6"])


def answers(packets: list[Packet], side: str, address: str) -> Counter[str]:
    """Return the pids and the reasons at an address, by count."""
    found = [packet["pktproc"].get(side, {}) for packet in packets if packet[side]["ip"] == address]
    return Counter(str(one["process"]["pid"]) if "process" in one else one["reason"] for one in found)


@contextmanager
def bystanders(pair: NamespacePair) -> Iterator[Program]:
    """Run programs with sockets of all kinds on both sides, on other ports and on the same port of another protocol.

    Yield the one that listens on the next port of the left side.
    """
    sockets = (("udp_server", "::", PORT, "--dual"), ("icmp_listener",), ("tcp_server", "::", PORT + 1, "--dual"))
    with ExitStack() as opened:
        programs = [
            opened.enter_context(Program(*words, namespace=side))
            for words in sockets
            for side in (pair.right, pair.left)
        ]
        yield [program.ready() for program in programs][-1]


@ENGINES
@VERSIONS
def test_a_refused_connection_is_the_client_s_and_the_refusal_the_kernel_s(
    pair: NamespacePair, engine: str, version: str
) -> None:
    left, right = pair.left, pair.right
    ours, theirs = getattr(left, version), getattr(right, version)
    with (
        bystanders(pair),
        sniffing_both("--engine", engine, f"tcp port {PORT}", on=(left, right)) as (near, far),
        Program("tcp_client", theirs, PORT, "--source-port", SOURCE_PORT, namespace=left) as client,
    ):
        client.expect("refused")
        near_packets, far_packets = near.stop().packets, far.stop().packets
    assert len(near_packets) == len(far_packets) == 2
    of_client = judge(near_packets, {("tcp", ours, SOURCE_PORT): client.pid})
    assert of_client.wrong == 0, of_client
    assert engine != "ebpf" or of_client.right == 2, of_client
    assert answers(far_packets, "source", theirs) == {"kernel": 1}
    assert judge(far_packets, {("tcp", theirs, PORT): None}).wrong == 0


@ENGINES
@VERSIONS
def test_a_connection_that_is_reset_keeps_its_owners(pair: NamespacePair, engine: str, version: str) -> None:
    left, right = pair.left, pair.right
    theirs = getattr(right, version)
    with (
        bystanders(pair),
        Program("tcp_server", theirs, PORT, namespace=right).ready() as server,
        sniffing_both("--engine", engine, f"tcp port {PORT}", on=(left, right)) as (near, far),
        Program("tcp_client", theirs, PORT, "--reset", "--leave", namespace=left) as client,
    ):
        (done,) = client.expect("done")
        client.finish()
        far.wait_for(lambda packet: packet["source"]["port"] != PORT, len(near.packets()) and 4)
        near_packets, far_packets = near.stop().packets, far.stop().packets
    if engine == "ebpf":
        fully_named(near_packets, {("tcp", *done["local"]): client.pid})
        fully_named(far_packets, {("tcp", theirs, PORT): server.pid})
    assert judge(near_packets, {("tcp", *done["local"]): client.pid}).wrong == 0
    assert judge(far_packets, {("tcp", theirs, PORT): server.pid}).wrong == 0


@ENGINES
def test_a_connection_that_nobody_answers_is_the_client_s_to_its_last_attempt(pair: NamespacePair, engine: str) -> None:
    """What is sent again is sent by a timer, in whichever process happens to be interrupted."""
    left, right = pair.left, pair.right
    left.run("sysctl", "-qw", "net.ipv4.tcp_syn_retries=1")
    left.run("ip", "neigh", "replace", GONE, "lladdr", right.mac, "dev", left.interface)
    with (
        bystanders(pair),
        Sniff("--engine", engine, f"tcp port {PORT}", on=left) as sniff,
        Program("tcp_client", GONE, PORT, "--source-port", SOURCE_PORT, namespace=left) as client,
    ):
        sniff.wait_for(sends("tcp", left.v4, SOURCE_PORT), 2)
        packets = sniff.stop().packets
    assert len(packets) == 2  # what is sent, and what is sent again
    verdict = fully_named(packets, {("tcp", left.v4, SOURCE_PORT): client.pid})
    assert verdict.right == len(packets)


@ENGINES
@pytest.mark.parametrize("flags", [ACK | PUSH, SYN], ids=["old data", "an old SYN"])
def test_what_a_connection_in_time_wait_answers_is_never_a_bystander_s(
    pair: NamespacePair, engine: str, flags: int
) -> None:
    left, right = pair.left, pair.right
    with (
        bystanders(pair),
        Program("tcp_server", right.v4, PORT, namespace=right).ready(),
        Program("inject", right.interface, namespace=right).ready() as inject,
        Sniff("--engine", engine, f"tcp port {PORT}", on=left) as sniff,
        Program("tcp_client", right.v4, PORT, "--leave", namespace=left) as client,
    ):
        (done,) = client.expect("done")
        client.finish()
        local = (left.v4, done["local"][1])
        until(lambda: states_of(left, local) == ["TIME-WAIT"])
        with Program("tcp_client", right.v4, PORT, namespace=left) as other:
            other.expect("done")
            sent = sum(packet["source"]["port"] == local[1] for packet in sniff.packets())
            old = tcp((right.v4, PORT), local, sequence=1, acknowledgement=1, flags=flags, data=b"old")
            inject.say(ethernet(right, left, ipv4(right.v4, left.v4, TCP, old)).hex())
            sniff.wait_for(lambda packet: packet["source"]["port"] == local[1], sent + 1)
        packets = sniff.stop().packets
    own = [packet for packet in packets if local[1] in (packet["source"]["port"], packet["destination"]["port"])]
    assert judge(own, {("tcp", *local): client.pid}).wrong == 0
    from_client = [packet for packet in own if packet["source"]["port"] == local[1]]
    possible = {str(client.pid), "kernel"} | (set() if engine == "ebpf" else {"no-socket"})
    assert answers(from_client[-1:], "source", left.v4).keys() <= possible


@ENGINES
@pytest.mark.parametrize("port", [PORT, PORT + 1], ids=["closed", "listening"])
def test_what_belongs_to_no_connection_is_answered_by_the_kernel(pair: NamespacePair, engine: str, port: int) -> None:
    """Where somebody listens the answer may also be the listener's, whose socket it came to."""
    left, right = pair.left, pair.right
    with (
        bystanders(pair) as listener,
        Program("inject", right.interface, namespace=right).ready() as inject,
        Sniff("--engine", engine, f"tcp port {SOURCE_PORT}", on=left) as sniff,
    ):
        stray = tcp((right.v4, SOURCE_PORT), (left.v4, port), sequence=1, acknowledgement=1, flags=ACK, data=b"stray")
        inject.say(ethernet(right, left, ipv4(right.v4, left.v4, TCP, stray)).hex())
        sniff.wait_for(lambda packet: packet["source"]["ip"] == left.v4)
        packets = sniff.stop().packets
    (reset,) = (packet["pktproc"]["source"] for packet in packets if packet["source"]["ip"] == left.v4)
    if port == PORT or "process" not in reset:
        assert reset.get("reason") == "kernel", reset
    else:
        assert (reset["match"], reset["process"]["pid"]) == ("listener", listener.pid)
