"""ICMP: who pings, whom an error belongs to, and what the kernel sends on its own account."""

from __future__ import annotations

from collections import Counter

import pytest

from bed.namespaces import Namespace
from bed.program import Command, Program, program_command, program_environment
from bed.sniff import Packet, Sniff, sniffing_both
from bed.verdict import Verdict, judge, processes_at

ICMP = (1, 58)
ECHO = "icmp or (icmp6 and (ip6[40] == 128 or ip6[40] == 129))"
ERRORS = "icmp[icmptype] == 3 or (icmp6 and ip6[40] == 1)"


RAW_PINGS = "net.ipv4.ping_group_range=1 0"  # as the kernel has it: nobody may open ping sockets
EXACT_OR_NOT = pytest.mark.parametrize("engine", ["netlink", "ebpf"])


def reasons(packets: list[Packet], side: str, address: str) -> Counter[str]:
    """Return why nobody is named at an address, by count; who is named stands for itself."""
    answers = [packet["pktproc"].get(side, {}) for packet in packets if packet[side].get("ip") == address]
    return Counter(answer.get("reason", str(answer.get("process", {}).get("pid"))) for answer in answers)


def of_icmp(packets: list[Packet]) -> list[Packet]:
    return [packet for packet in packets if int(packet["network"].get("iana_number", -1)) in ICMP]


def judge_end(packets: list[Packet], side: str, address: str, pid: int | None) -> Verdict:
    verdict = Verdict()
    for packet in of_icmp(packets):
        if packet[side]["ip"] == address:
            verdict.add(packet, side, pid)
    return verdict


@pytest.mark.parametrize("engine", ["ebpf", "netlink", "procfs"])
@pytest.mark.parametrize("version", ["v4", "v6"])
def test_ping_is_named_and_the_answering_kernel_is_not_a_process(
    left: Namespace, right: Namespace, engine: str, version: str
) -> None:
    ours, theirs = getattr(left, version), getattr(right, version)
    with (
        Program("icmp_listener", namespace=right).ready(),
        sniffing_both("--engine", engine, ECHO, on=(left, right)) as (near, far),
        Command(["ping", "-c10", "-i0.02", theirs], left) as ping,
    ):
        assert ping.finish() == 0
        client_side, server_side = near.stop().packets, far.stop().packets
    requests = judge_end(client_side, "source", ours, ping.pid)
    replies = judge_end(client_side, "destination", ours, ping.pid)
    assert (requests.wrong, replies.wrong) == (0, 0), f"{requests}\n{replies}"
    assert (requests.right, replies.right) == (10, 10), f"{requests}\n{replies}"
    assert set(processes_at(client_side, ours)) == {(ping.pid, "ping")}
    assert reasons(server_side, "source", theirs) == {"kernel": 10}


@pytest.mark.parametrize("program", ["ping", "ping_socket"])
@pytest.mark.parametrize("version", ["v4", "v6"])
def test_who_pings_once_and_is_gone_is_named_by_the_kernel_s_word(
    left: Namespace, right: Namespace, program: str, version: str
) -> None:
    """Three processes that live for a millisecond; what looks can tell comes too late for them."""
    ours, theirs = getattr(left, version), getattr(right, version)
    left.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647" if program == "ping_socket" else RAW_PINGS)
    command = ["ping", "-c1", theirs] if program == "ping" else program_command(program, theirs, "--count", 1)
    with Sniff("--engine", "ebpf", ECHO, on=left) as sniff:
        pids = []
        for _ in range(3):
            with Command(command, left, program_environment()) as pinging:
                assert pinging.finish() == 0
                pids.append(pinging.pid)
        packets = of_icmp(sniff.stop().packets)
    for side in ("source", "destination"):
        answers = [packet["pktproc"][side] for packet in packets if packet[side]["ip"] == ours]
        assert [answer.get("process", {}).get("pid") for answer in answers] == pids
        assert {(answer["match"], answer["evidence"]) for answer in answers} == {("exact", "ebpf")}


@EXACT_OR_NOT
@pytest.mark.parametrize("version", ["v4", "v6"])
def test_a_ping_socket_is_known_by_its_echo_id(left: Namespace, right: Namespace, engine: str, version: str) -> None:
    ours, theirs = getattr(left, version), getattr(right, version)
    left.run("sysctl", "-qw", "net.ipv4.ping_group_range=0 2147483647")
    with (
        Sniff("--engine", engine, ECHO, on=left) as sniff,
        Program("ping_socket", theirs, "--bytes", 100, namespace=left) as small,
        Program("ping_socket", theirs, "--bytes", 300, namespace=left) as large,
    ):
        ids = {program.expect("done")[0]["id"] for program in (small, large)}
        packets = of_icmp(sniff.stop().packets)
    assert len(ids) == 2
    for program, sizes in ((small, range(250)), (large, range(250, 1000))):
        own = [packet for packet in packets if packet["network"]["bytes"] in sizes]
        for side in ("source", "destination"):
            verdict = judge_end(own, side, ours, program.pid)
            assert (verdict.right, verdict.total) == (3, 3), verdict


@EXACT_OR_NOT
def test_two_pings_at_once_are_never_taken_for_each_other(left: Namespace, right: Namespace, engine: str) -> None:
    with (
        Sniff("--engine", engine, ECHO, on=left) as sniff,
        Command(["ping", "-c5", "-i0.02", "-s100", right.v4], left) as small,
        Command(["ping", "-c5", "-i0.02", "-s300", right.v4], left) as large,
    ):
        assert (small.finish(), large.finish()) == (0, 0)
        packets = of_icmp(sniff.stop().packets)
    assert len(packets) == 20
    for ping, sizes in ((small, range(250)), (large, range(250, 1000))):
        own = [packet for packet in packets if packet["network"]["bytes"] in sizes]
        for side in ("source", "destination"):
            verdict = judge_end(own, side, left.v4, ping.pid)
            assert verdict.total == 5
            assert verdict.wrong == 0, verdict
            assert engine != "ebpf" or verdict.right == 5, verdict


@EXACT_OR_NOT
@pytest.mark.parametrize("version", ["v4", "v6"])
def test_an_error_belongs_to_the_flow_that_it_quotes(
    left: Namespace, right: Namespace, version: str, engine: str
) -> None:
    ours, theirs = getattr(left, version), getattr(right, version)
    with (
        Program("icmp_listener", namespace=left).ready(),
        Program("icmp_listener", namespace=right).ready(),
        sniffing_both("--engine", engine, f"udp or {ERRORS}", on=(left, right)) as (near, far),
        Program("udp_client", theirs, 9100, namespace=left) as client,
    ):
        client.expect("refused")
        client_side, server_side = near.stop().packets, far.stop().packets
    to_client = judge_end(client_side, "destination", ours, client.pid)
    assert (to_client.right, to_client.total) == (1, 1), to_client
    assert reasons(of_icmp(server_side), "source", theirs) == {"kernel": 1}


@EXACT_OR_NOT
def test_a_reset_from_the_kernel_is_not_given_to_a_bystander(left: Namespace, right: Namespace, engine: str) -> None:
    with (
        Program("udp_server", "::", 9101, "--dual", namespace=right).ready(),
        Program("tcp_server", "::", 9102, "--dual", namespace=right).ready(),
        sniffing_both("--engine", engine, "tcp port 9101", on=(left, right)) as (near, far),
        Program("tcp_client", right.v4, 9101, "--source-port", 9102, namespace=left) as client,
    ):
        client.expect("refused")
        client_side, server_side = near.stop().packets, far.stop().packets
    assert len(client_side) == len(server_side) == 2
    of_client = judge(client_side, {("tcp", left.v4, 9102): client.pid})
    assert (of_client.wrong, of_client.total) == (0, 2), of_client
    by_kernel = judge(server_side, {("tcp", right.v4, 9101): None})
    assert (by_kernel.right, by_kernel.wrong) == (2, 0), by_kernel
    assert reasons(server_side, "source", right.v4) == {"kernel": 1}


@EXACT_OR_NOT
def test_a_capture_of_everything_names_nobody_for_the_kernels_neighbour_discovery(
    left: Namespace, right: Namespace, engine: str
) -> None:
    left.run("ip", "neigh", "flush", "dev", left.interface)
    with (
        Program("icmp_listener", namespace=left).ready(),
        Sniff("--engine", engine, "arp or (icmp6 and ip6[40] >= 133 and ip6[40] <= 136)", on=left) as sniff,
        Program("udp_client", right.v4, 9103, namespace=left) as by_v4,
        Program("udp_client", right.v6, 9103, namespace=left) as by_v6,
    ):
        by_v4.expect("refused")
        by_v6.expect("refused")
        packets = sniff.stop().packets
    assert len(packets) >= 4
    assert [packet for packet in packets if "process" in packet] == []
