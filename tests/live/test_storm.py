"""Short-lived processes, one connection each, one after another."""

from __future__ import annotations

import pytest

from bed.namespaces import Namespace
from bed.program import Program
from bed.sniff import Packet, Sniff
from bed.verdict import judge_processes


def run_storm(
    left: Namespace, right: Namespace, engine: str, life_ms: int, count: int
) -> tuple[list[Packet], dict[tuple[str, str, int], int | None]]:
    """Return the packets of a storm and its truth."""
    with (
        Program("tcp_server", right.v4, 7500, namespace=right).ready(),
        Sniff("--engine", engine, "tcp port 7500", on=left) as sniff,
        Program("storm", right.v4, 7500, "--count", count, "--life-ms", life_ms, namespace=left).ready() as storm,
    ):
        storm.say()
        storm.expect("done")
        truth = {("tcp", left.v4, child["port"]): child["child"] for child in storm.events("child")}
        assert len(truth) == count
        return sniff.stop().packets, truth


def test_processes_of_20_ms_are_named(left: Namespace, right: Namespace) -> None:
    packets, truth = run_storm(left, right, "netlink", 20, 200)
    verdict = judge_processes(packets, truth)
    assert verdict.wrong == 0, verdict
    assert verdict.right >= 0.99 * len(truth), verdict


def test_processes_of_20_ms_are_never_named_wrongly_from_proc(left: Namespace, right: Namespace) -> None:
    packets, truth = run_storm(left, right, "procfs", 20, 100)
    verdict = judge_processes(packets, truth)
    assert verdict.wrong == 0, verdict
    assert verdict.right + verdict.unknown["partly"] > 0, verdict


@pytest.mark.parametrize("engine", ["ebpf", "netlink", "procfs"])
def test_processes_of_1_ms_are_never_named_wrongly(left: Namespace, right: Namespace, engine: str) -> None:
    packets, truth = run_storm(left, right, engine, 1, 500)
    verdict = judge_processes(packets, truth)
    assert verdict.wrong == 0, verdict
    assert verdict.total == 500
    assert verdict.unknown["unseen"] == 0, verdict


@pytest.mark.parametrize("engine", ["ebpf", "netlink", "procfs"])
def test_a_storm_on_loopback_names_neither_end_wrongly(left: Namespace, engine: str) -> None:
    with (
        Program("tcp_server", "127.0.0.1", 7501, namespace=left).ready() as server,
        Sniff("--engine", engine, "tcp port 7501", on=left, interface="lo") as sniff,
        Program("storm", "127.0.0.1", 7501, "--count", 200, "--life-ms", 1, namespace=left).ready() as storm,
    ):
        storm.say()
        storm.expect("done")
        truth = {("tcp", "127.0.0.1", child["port"]): child["child"] for child in storm.events("child")}
        packets = sniff.stop().packets
    of_children = judge_processes(packets, truth)
    assert of_children.total == 200
    assert of_children.wrong == 0, of_children
    of_server = judge_processes(packets, {("tcp", "127.0.0.1", 7501): server.pid})
    assert (of_server.wrong, of_server.right) == (0, 1), of_server
