"""Multicast and broadcast: one sender, and as many receivers as have joined."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from bed.namespaces import Namespace
from bed.program import Program
from bed.sniff import Packet, sniffing_both
from bed.verdict import judge

PORT = 7900
GROUPS = {"v4": "239.77.0.1", "v6": "ff15::7777"}
BROADCASTS = ["10.77.255.255", "255.255.255.255"]
ENGINES = pytest.mark.parametrize("engine", ["netlink", "ebpf"])


def at_group(packets: list[Packet], address: str) -> list[tuple[str | None, frozenset[int]]]:
    """Return match and holders, one or several, of the end that an address is, in each packet that goes to it."""
    answers = [packet["pktproc"].get("destination", {}) for packet in packets if packet["destination"]["ip"] == address]
    return [
        (
            answer.get("match"),
            frozenset(
                holder["pid"] for holder in answer.get("holders", [answer["process"]] if "process" in answer else [])
            ),
        )
        for answer in answers
    ]


@ENGINES
@pytest.mark.parametrize("version", ["v4", "v6"])
@pytest.mark.parametrize("members", [1, 2])
def test_the_sender_to_a_group_and_all_who_joined_it_are_named(
    left: Namespace, right: Namespace, engine: str, version: str, members: int
) -> None:
    ours, group = getattr(left, version), GROUPS[version]
    join = (right.interface, group, PORT)
    with ExitStack() as opened:
        joined = [opened.enter_context(Program("group_member", *join, namespace=right).ready()) for _ in range(members)]
        opened.enter_context(
            Program("udp_server", getattr(right, version), PORT, "--reuseport", namespace=right).ready()
        )
        near, far = opened.enter_context(sniffing_both("--engine", engine, f"udp port {PORT}", on=(left, right)))
        sender = opened.enter_context(Program("group_sender", left.interface, group, PORT, namespace=left).ready())
        (ready,) = sender.expect("ready")
        for count in range(1, 4):
            sender.say()
            for member in joined:
                member.expect("datagram", count)
        near_packets, far_packets = near.stop().packets, far.stop().packets
    of_sender = judge(near_packets, {("udp", ours, ready["port"]): sender.pid})
    assert (of_sender.right, of_sender.total) == (3, 3), of_sender
    received = at_group(far_packets, group)
    assert len(received) == 3
    assert {holders for _, holders in received} == {frozenset(member.pid for member in joined)}
    assert {match for match, _ in received} <= ({"shared"} if members == 2 else {"bound", "exact"})
    assert [packet for packet in near_packets if "process" in packet["pktproc"].get("destination", {})] == []


@ENGINES
@pytest.mark.parametrize("address", BROADCASTS)
def test_the_sender_of_a_broadcast_and_who_takes_it_are_named(
    left: Namespace, right: Namespace, engine: str, address: str
) -> None:
    with (
        Program("group_member", right.interface, "0.0.0.0", PORT, namespace=right).ready() as member,
        Program("udp_server", right.v4, PORT + 1, namespace=right).ready(),
        sniffing_both("--engine", engine, f"udp port {PORT}", on=(left, right)) as (near, far),
        Program("group_sender", left.interface, address, PORT, namespace=left).ready() as sender,
    ):
        (ready,) = sender.expect("ready")
        for count in range(1, 4):
            sender.say()
            member.expect("datagram", count)
        near_packets, far_packets = near.stop().packets, far.stop().packets
    of_sender = judge(near_packets, {("udp", left.v4, ready["port"]): sender.pid})
    assert (of_sender.right, of_sender.total) == (3, 3), of_sender
    assert {holders for _, holders in at_group(far_packets, address)} == {frozenset({member.pid})}
    assert len(at_group(far_packets, address)) == 3
