"""Traps that caught other tools: sockets that change hands, tuples used again, namespaces alike, tags."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from bed.frames import ethernet, ipv4, udp
from bed.namespaces import Namespace, NamespacePair
from bed.program import Program
from bed.sniff import Packet, Sniff, sends
from bed.verdict import fully_named, judge

ENGINES = pytest.mark.parametrize("engine", ["ebpf", "netlink", "procfs"])


def is_echo(packet: Packet) -> bool:
    return bool(packet["source"]["port"] == 7200 and packet["network"]["bytes"] > 100)


@ENGINES
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_passed_socket_names_its_receiver_once_its_creator_is_gone(
    left: Namespace, right: Namespace, engine: str, transport: str
) -> None:
    options = ["--udp"] if transport == "udp" else []
    with (
        Program(f"{transport}_server", right.v4, 7200, namespace=right).ready(),
        Sniff("--engine", engine, f"{transport} port 7200", on=left) as sniff,
        Program("fd_passing", right.v4, 7200, *options, namespace=left) as passing,
    ):
        passing.say()
        (created,) = passing.expect("created")
        end = (transport, *created["local"])
        sniff.wait_for(is_echo)
        passing.say()
        passing.expect("passed")
        passing.say()
        passing.expect("used", 1)
        sniff.wait_for(is_echo, 2)
        passing.say()
        passing.expect("used", 2)
        packets = sniff.stop().packets
    exchanges = [packet for packet in packets if packet["network"]["bytes"] > 100]
    assert len(exchanges) == 6
    fully_named(exchanges[:2], {end: created["creator"]})
    # Just after the hand-over it can be open yet whose a packet was.
    assert judge(exchanges[2:4], {end: passing.pid}).wrong == 0
    fully_named(exchanges[4:], {end: passing.pid})


@pytest.mark.parametrize(
    ("engine", "source_port"),
    [("ebpf", 7301), ("ebpf", 40001), ("netlink", 7301), ("netlink", 40001), ("procfs", 7301)],
)
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_tuple_used_again_at_once_is_never_named_wrongly(
    left: Namespace, right: Namespace, engine: str, transport: str, source_port: int
) -> None:
    options = ["--udp"] if transport == "udp" else []
    with (
        Program(f"{transport}_server", right.v4, 7201, namespace=right).ready(),
        Sniff("--engine", engine, f"{transport} port 7201", on=left) as sniff,
        Program("tuple_reuse", right.v4, 7201, "--source-port", source_port, *options, namespace=left).ready() as reuse,
    ):
        reuse.say()
        users = reuse.expect("used", 2)
        reuse.expect("done")
        packets = sniff.stop().packets
    overhead = 42 if transport == "udp" else 66
    for user in users:
        own = [packet for packet in packets if packet["network"]["bytes"] == overhead + user["bytes"]]
        verdict = judge(own, {(transport, left.v4, source_port): user["pid"]})
        assert verdict.total == 10
        assert verdict.wrong == 0, verdict


@ENGINES
def test_a_tuple_used_by_many_processes_in_turn_is_never_named_wrongly(
    left: Namespace, right: Namespace, engine: str
) -> None:
    sizes = list(range(100, 140))
    with (
        Program("udp_server", right.v4, 7202, namespace=right).ready(),
        Sniff("--engine", engine, "udp port 7202", on=left) as sniff,
        Program(
            "tuple_reuse", right.v4, 7202, "--udp", "--source-port", 7302, "--sizes", *sizes, namespace=left
        ).ready() as reuse,
    ):
        reuse.say()
        users = reuse.expect("used", len(sizes))
        packets = sniff.stop().packets
    for user in users:
        own = [packet for packet in packets if packet["network"]["bytes"] == 42 + user["bytes"]]
        verdict = judge(own, {("udp", left.v4, 7302): user["pid"]})
        assert verdict.total == 10
        assert verdict.wrong == 0, verdict


@ENGINES
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_the_same_loopback_tuple_in_two_namespaces_has_two_owners(
    pair: NamespacePair, engine: str, transport: str
) -> None:
    sizes = {100: pair.left, 300: pair.right}
    options = ("--source-port", 7303, "--count", 3)
    with ExitStack() as stack:
        servers = [
            stack.enter_context(Program(f"{transport}_server", "127.0.0.1", 7203, namespace=space)).ready()
            for space in sizes.values()
        ]
        sniff = stack.enter_context(
            Sniff("--engine", engine, f"{transport} port 7203", on=list(sizes.values()), interface="lo")
        )
        clients = [
            stack.enter_context(
                Program(f"{transport}_client", "127.0.0.1", 7203, "--bytes", size, *options, namespace=space)
            )
            for size, space in sizes.items()
        ]
        for client in clients:
            client.expect("done")
        packets = sniff.stop().packets
    for size, server, client in zip(sizes, servers, clients, strict=True):
        own = [packet for packet in packets if size <= packet["network"]["bytes"] <= size + 100]
        truth = {(transport, "127.0.0.1", 7203): server.pid, (transport, "127.0.0.1", 7303): client.pid}
        assert fully_named(own, truth).total == 12


def test_a_tagged_frame_shows_its_ends_and_passes_a_vlan_filter(left: Namespace, right: Namespace) -> None:
    datagram = ipv4(left.v4, right.v4, 17, udp(7304, 7204, b"tagged"))
    with (
        Sniff("vlan 77 and udp port 7204", on=right) as sniff,
        Program("inject", left.interface, namespace=left).ready() as inject,
    ):
        for tag in (None, 76, 77):
            inject.say(ethernet(left, right, datagram, vlan=tag).hex())
        inject.expect("sent", 3)
        sniff.wait_for(sends("udp", left.v4, 7304))
        packets = sniff.stop().packets
    assert len(packets) == 1
    (packet,) = packets
    assert packet["destination"] == {"ip": right.v4, "port": 7204}
    assert packet["network"]["bytes"] == len(datagram) + 18


@pytest.mark.parametrize("engine", ["netlink", "procfs"])
def test_a_datagram_from_a_packet_socket_shows_who_could_have_sent_it(
    left: Namespace, right: Namespace, engine: str
) -> None:
    """Nothing ties a frame to the packet socket that it was written to, so the injector is a candidate and no more."""
    with (
        Program("inject", left.interface, namespace=left).ready() as inject,
        Sniff("--engine", engine, "udp port 7206", on=left) as sniff,
    ):
        inject.say(ethernet(left, right, ipv4(left.v4, right.v4, 17, udp(7306, 7206, b"made up"))).hex())
        inject.expect("sent")
        sniff.wait_for(sends("udp", left.v4, 7306))
        (packet,) = sniff.stop().packets
    answer = packet["pktproc"]["source"]
    # Where ends are not heard, there may have been a socket that was closed.
    expected = {"netlink": "no-socket", "procfs": "closed"}[engine]
    assert (answer["reason"], answer.get("process")) == (expected, None)
    assert {holder["pid"] for holder in answer["holders"]} == {inject.pid}


def test_a_tagged_frame_shows_its_tag_and_ends_in_text(left: Namespace, right: Namespace) -> None:
    datagram = ipv4(left.v4, right.v4, 17, udp(7305, 7205, b"tagged"))
    with (
        Sniff("-n", "-e", "-c", 1, "ether proto 0x8100 or udp port 7205 or vlan", on=right, json_lines=False) as sniff,
        Program("inject", left.interface, namespace=left).ready() as inject,
    ):
        inject.say(ethernet(left, right, datagram, vlan=77).hex())
        sniff.finish()
        text = "\n".join(sniff.stdout.so_far())
    assert "vlan 77" in text
    assert f"{left.v4}.7305" in text
    assert f"{right.v4}.7205" in text
