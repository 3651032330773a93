"""Captures in other namespaces than one's own, on one interface, several or all."""

from __future__ import annotations

import pytest

from bed.namespaces import Namespace, NamespacePair
from bed.program import Program
from bed.sniff import Sniff
from bed.verdict import fully_named

ENGINES = pytest.mark.parametrize("engine", ["netlink", "ebpf"])


@ENGINES
def test_both_namespaces_are_captured_at_once(pair: NamespacePair, engine: str) -> None:
    left, right = pair.left, pair.right
    with (
        Program("udp_server", right.v4, 7600, namespace=right).ready() as server,
        Sniff("--engine", engine, "udp port 7600", on=[left, right]) as sniff,
        Program("udp_client", right.v4, 7600, "--count", 3, namespace=left) as client,
    ):
        (done,) = client.expect("done")
        packets = sniff.stop().packets
    seen_by = {
        interface: [packet for packet in packets if packet["observer"]["ingress"]["interface"]["name"] == interface]
        for interface in (left.interface, right.interface)
    }
    assert len(packets) == 12
    assert fully_named(seen_by[left.interface], {("udp", *done["local"]): client.pid}).total == 6
    assert fully_named(seen_by[right.interface], {("udp", right.v4, 7600): server.pid}).total == 6


def test_the_default_is_every_interface_of_the_namespace(left: Namespace, right: Namespace) -> None:
    with (
        Program("udp_server", right.v4, 7601, namespace=right).ready(),
        Program("udp_server", "127.0.0.1", 7601, namespace=left).ready(),
        Sniff("--netns", left.name, "udp port 7601") as sniff,
        Program("udp_client", right.v4, 7601, namespace=left) as abroad,
        Program("udp_client", "127.0.0.1", 7601, namespace=left) as at_home,
    ):
        ends = {("udp", *client.expect("done")[0]["local"]): client.pid for client in (abroad, at_home)}
        packets = sniff.stop().packets
    assert sorted(packet["observer"]["ingress"]["interface"]["name"] for packet in packets) == [
        left.interface,
        left.interface,
        "lo",
        "lo",
    ]
    assert fully_named(packets, ends).total == 4


def test_an_interface_and_loopback_are_captured_together(left: Namespace, right: Namespace) -> None:
    with (
        Program("tcp_server", "0.0.0.0", 7602, namespace=left).ready() as server,
        Sniff("-i", "lo", "tcp port 7602", on=left) as sniff,
        Program("tcp_client", left.v4, 7602, namespace=right) as abroad,
        Program("tcp_client", left.v4, 7602, namespace=left) as at_home,
    ):
        abroad.expect("done")
        (done,) = at_home.expect("done")
        packets = sniff.stop().packets
    truth = {("tcp", left.v4, 7602): server.pid}
    home = {("tcp", left.v4, done["local"][1]): at_home.pid}
    assert fully_named(packets, truth).total == len(packets)
    by_loopback = [packet for packet in packets if packet["observer"]["ingress"]["interface"]["name"] == "lo"]
    assert fully_named(by_loopback, home).total == len(by_loopback) >= 5
    assert len(packets) - len(by_loopback) >= 5


@ENGINES
def test_pktproc_started_inside_a_namespace_sees_that_one(left: Namespace, right: Namespace, engine: str) -> None:
    with (
        Program("udp_server", right.v4, 7603, namespace=right).ready(),
        Sniff("--engine", engine, "udp port 7603", inside=left, interface="any") as sniff,
        Program("udp_client", right.v4, 7603, namespace=left) as client,
    ):
        (done,) = client.expect("done")
        packets = sniff.stop().packets
    assert fully_named(packets, {("udp", *done["local"]): client.pid}).total == len(packets) == 2


@ENGINES
def test_a_process_that_lives_in_another_namespace_than_its_socket_is_named(
    left: Namespace, right: Namespace, engine: str
) -> None:
    """A socket stays where it was made; its owner may have moved on, or got it from elsewhere."""
    with (
        Program("udp_server", right.v4, 7604, namespace=right).ready(),
        Program("move_away", right.v4, 7604, right.path, namespace=left).ready() as mover,
        Sniff("--engine", engine, "udp port 7604", on=left) as sniff,
    ):
        mover.say()
        (done,) = mover.expect("done")
        packets = sniff.stop().packets
    assert done["netns"] == right.inode
    assert fully_named(packets, {("udp", *done["local"]): mover.pid}).total == len(packets) == 2
