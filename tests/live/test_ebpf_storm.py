"""Storms of processes that live for less than a millisecond: with the engine `ebpf` every packet has its name."""

from __future__ import annotations

import pytest

from bed.namespaces import Namespace
from bed.program import Program
from bed.verdict import judge, judge_processes
from kernel.ebpf.exact_bed import ExactProgram, ExactSniff

PORT = 7600
COUNT = 300


@pytest.mark.parametrize("parallel", [1, 64])
@pytest.mark.parametrize("version", ["v4", "v6"])
@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_storm_is_named_without_exception(
    left: Namespace, right: Namespace, transport: str, version: str, parallel: int
) -> None:
    ours, theirs = getattr(left, version), getattr(right, version)
    kind = ["--udp"] if transport == "udp" else []
    crowd = ("crowd", theirs, PORT, "--count", COUNT, "--parallel", parallel, "--port", 20000, *kind)
    with (
        Program(f"{transport}_server", theirs, PORT, namespace=right).ready() as server,
        ExactSniff(f"{transport} port {PORT}", on=(left, right)) as sniff,
        ExactProgram(*crowd, namespace=left).ready() as program,
    ):
        program.say()
        program.expect("done", timeout=60)
        truth = {(transport, ours, child["port"]): child["child"] for child in program.events("child")}
        packets, talk = sniff.stop()
    of_crowd = judge_processes(packets, truth)
    unseen = of_crowd.unknown.pop("unseen", 0)  # under load a capture can lose packets, which it then tells
    assert not unseen or "0 packets dropped by kernel" not in talk.splitlines()
    assert (of_crowd.right, of_crowd.wrong) == (COUNT - unseen, 0), of_crowd
    of_server = judge(packets, {(transport, theirs, PORT): server.pid})
    assert (of_server.right, of_server.wrong) == (of_server.total, 0), of_server
    evidence = {
        packet["pktproc"][side]["evidence"]
        for packet in packets
        for side in ("source", "destination")
        if (transport, packet[side]["ip"], packet[side]["port"]) in truth
    }
    assert evidence == {"ebpf"}
