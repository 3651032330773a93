"""`pktproc record --engine ebpf`: what lives between two looks is kept with exact times. Captures are tcpdump's."""

from __future__ import annotations

import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from bed.evidence import Dump, Recorder, enrich
from bed.namespaces import NamespacePair
from bed.program import Command, Program
from bed.verdict import fully_named, judge, judge_processes
from kernel.ebpf.exact_bed import ExactProgram
from live.test_record import epoch, pids, who

PORT = 7620
COUNT = 500
CHURNED = 120_000
RARELY_S = 60
SCATTER = """
import socket, sys
sock = socket.socket(type=socket.SOCK_DGRAM)
for port in sys.argv[2:]:
    sock.sendto(b"x", (sys.argv[1], int(port)))
print(sock.getsockname()[1])
"""
CHURN = f"""
import socket
for _ in range({CHURNED}):
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("127.0.0.1", 9))
"""


class Storm(NamedTuple):
    """Which processes are let loose: with TCP or UDP, IPv4 or IPv6, so many at a time."""

    transport: str
    version: str
    parallel: int


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "day.db"


@pytest.mark.parametrize(
    "storm", [Storm("tcp", "v4", 64), Storm("tcp", "v6", 1), Storm("udp", "v4", 1), Storm("udp", "v6", 64)]
)
def test_a_storm_between_two_looks_is_named_without_exception(pair: NamespacePair, store: Path, storm: Storm) -> None:
    left, right, transport = pair.left, pair.right, storm.transport
    ours, theirs = getattr(left, storm.version), getattr(right, storm.version)
    kind = ["--udp"] if transport == "udp" else []
    crowd = ("crowd", theirs, PORT, "--count", COUNT, "--parallel", storm.parallel, "--port", 20000, *kind)
    with (
        Program(f"{transport}_server", theirs, PORT, namespace=right).ready() as server,
        Recorder(store, "--engine", "ebpf", interval_s=1) as recorder,
        Dump(store.with_name("near.pcap"), left, f"{transport} port {PORT}") as near,
        Dump(store.with_name("far.pcap"), right, f"{transport} port {PORT}") as far,
        ExactProgram(*crowd, namespace=left).ready() as program,
    ):
        program.say()
        program.expect("done", timeout=120)
        truth = {(transport, ours, child["port"]): child["child"] for child in program.events("child")}
        captures = near.stop(), far.stop()
        recorder.looked_again()
        talk = recorder.stop()
    assert "could not tell" not in talk, talk
    for capture in captures:
        packets, _ = enrich(capture, "-s", store)
        of_crowd = judge_processes(packets, truth)
        assert (of_crowd.right, of_crowd.wrong) == (COUNT, 0), of_crowd
        of_server = judge(packets, {(transport, theirs, PORT): server.pid})
        assert (of_server.right, of_server.wrong) == (of_server.total, 0), of_server


def test_a_connection_between_two_looks_has_its_holders_and_exact_times(pair: NamespacePair, store: Path) -> None:
    left, right = pair.left, pair.right
    with (
        Program("tcp_server", right.v4, PORT, namespace=right).ready() as server,
        Recorder(store, "--engine", "ebpf", interval_s=RARELY_S) as recorder,
    ):
        begun = time.time()
        with Program("tcp_client", right.v4, PORT, "--reset", "--leave", namespace=left) as client:
            (done,) = client.expect("done")
            client.finish()
        ended = time.time()
        recorder.stop()
    port = done["local"][1]
    (near,) = who(store, f"{left.v4}:{port}", netns=left)
    (far,) = [one for one in who(store, f":{port}", netns=right) if one["remote"]["port"] == port]
    assert (pids(near), pids(far)) == ([client.pid], [server.pid])
    for one in (near, far):
        assert begun <= epoch(one["not_before"]) <= epoch(one["first_seen"]) < epoch(one["last_seen"])
        assert epoch(one["first_seen"]) - epoch(one["not_before"]) < 1e-6
        assert epoch(one["last_seen"]) == epoch(one["not_after"])
    assert epoch(near["not_after"]) <= ended
    with closing(sqlite3.connect(store)) as reader:
        ((exited,),) = reader.execute("SELECT ended FROM process WHERE pid = ?", (client.pid,))
    assert epoch(near["not_after"]) <= exited / 1e9 <= ended


def test_who_uses_a_socket_is_named_and_not_who_made_it(pair: NamespacePair, store: Path) -> None:
    left, right = pair.left, pair.right
    with (
        Program("udp_server", right.v4, PORT, namespace=right).ready() as server,
        Recorder(store, "--engine", "ebpf", interval_s=RARELY_S) as recorder,
        Dump(store.with_name("near.pcap"), left, f"udp port {PORT}") as near,
        ExactProgram("ways", right.v4, PORT, "--protocol", 17, namespace=left).ready() as client,
    ):
        client.say()
        (used,) = client.expect("used")
        capture = near.stop()
        recorder.stop()
    packets, _ = enrich(capture, "-s", store)
    ends = {("udp", p[side]["ip"], p[side]["port"]) for p in packets for side in ("source", "destination")}
    truth = {end: used["child"] if end[1] == left.v4 else server.pid for end in ends}
    assert fully_named(packets, truth).total == 2 * len(packets) >= 4
    assert {p["pktproc"]["source"]["match"] for p in packets if p["source"]["ip"] == left.v4} == {"exact"}


def test_all_that_one_socket_sent_to_is_found(pair: NamespacePair, store: Path) -> None:
    left, right = pair.left, pair.right
    ports = (PORT + 1, PORT + 2, PORT + 3)
    with Recorder(store, "--engine", "ebpf", interval_s=RARELY_S) as recorder:
        with Command(["python3", "-S", "-c", SCATTER, right.v4, *map(str, ports)], left) as scatter:
            assert scatter.finish() == 0
            (port,) = scatter.stdout.so_far()
        recorder.stop()
    for there in ports:
        for wanted in (f":{there}", f"{right.v4}:{there}"):
            (one,) = who(store, wanted, netns=left)
            assert (one["local"]["port"], one["remote"]["port"], pids(one)) == (int(port), there, [scatter.pid])
    assert {one["remote"]["port"] for one in who(store, right.v4, netns=left)} == set(ports)


def test_where_the_kernel_could_not_tell_all_looks_answer_and_nothing_is_guessed(
    pair: NamespacePair, store: Path
) -> None:
    left, right = pair.left, pair.right
    with (
        Program("udp_server", right.v4, PORT, namespace=right).ready() as server,
        Recorder(store, "--engine", "ebpf") as recorder,
        Dump(store.with_name("near.pcap"), left, f"udp port {PORT}") as near,
        Program("udp_client", right.v4, PORT, "--count", 6, "--paced", namespace=left).ready() as client,
    ):
        recorder.saw(client.pid)
        client.say()
        recorder.looked_again()
        recorder.child.send_signal(signal.SIGSTOP)
        with Command(["python3", "-S", "-c", CHURN], left) as churn:
            client.say()
            assert churn.finish(timeout=120) == 0
        with Program("udp_client", right.v4, PORT, namespace=left) as unseen:
            (short,) = unseen.expect("done")
            unseen.finish()
        recorder.child.send_signal(signal.SIGCONT)
        recorder.looked_again().looked_again()
        for _ in range(4):
            client.say()
        (done,) = client.expect("done")
        recorder.looked_again()
        capture, talk = near.stop(), recorder.stop()
        (lost,) = recorder.ask("SELECT count(*) FROM unwitnessed")
    assert "could not tell" in talk, talk
    assert lost[0]
    packets, _ = enrich(capture, "-s", store)
    verdict = fully_named(
        [p for p in packets if short["local"][1] not in (p["source"]["port"], p["destination"]["port"])],
        {("udp", *done["local"]): client.pid, ("udp", right.v4, PORT): server.pid},
    )
    assert verdict.total == 24
    of_unseen = judge(packets, {("udp", *short["local"]): unseen.pid})
    assert (of_unseen.wrong, of_unseen.total) == (0, 2), of_unseen


def test_workers_pings_and_raw_packets_between_two_looks_are_named(pair: NamespacePair, store: Path) -> None:
    left, right = pair.left, pair.right
    with (
        Program("tcp_prefork", right.v4, PORT, "--workers", 3, namespace=right).ready() as server,
        Recorder(store, "--engine", "ebpf", interval_s=RARELY_S) as recorder,
        Dump(store.with_name("near.pcap"), left, "ip or ip6") as near,
        ExactProgram("raw_sender", right.v4, 253, namespace=left).ready() as idle,
    ):
        with Program("parallel_clients", right.v4, PORT, "--clients", 3, namespace=left) as clients:
            told = clients.expect("client", 3)
            served = {event["remote"][1]: event["pid"] for event in server.expect("accepted", 3)}
        pings = []
        for address in (right.v4, right.v6):
            with Command(["ping", "-c1", address], left) as ping:
                assert ping.finish() == 0
                pings.append(ping.pid)
        with ExactProgram("raw_sender", right.v4, 253, namespace=left).ready() as sender:
            sender.say()
            sender.expect("sent")
        capture = near.stop()
        recorder.stop()
    packets, _ = enrich(capture, "-s", store)
    of_clients = {("tcp", *client["local"]): client["pid"] for client in told}
    verdict = fully_named([p for p in packets if p["network"].get("transport") == "tcp"], of_clients)
    assert verdict.total >= 3 * 8
    for port, pid in served.items():
        own = [p for p in packets if port in (p["source"].get("port"), p["destination"].get("port"))]
        of_worker = judge(own, {("tcp", right.v4, PORT): pid})
        assert (of_worker.right, of_worker.wrong) == (of_worker.total, 0), of_worker
    for address, pid, number in ((left.v4, pings[0], "1"), (left.v6, pings[1], "58")):
        echoes = [p for p in packets if str(p["network"].get("iana_number")) == number]
        named = [
            p["pktproc"][side].get("process", {}).get("pid")
            for p in echoes
            for side in ("source", "destination")
            if p[side]["ip"] == address and p["pktproc"].get(side, {}).get("evidence")
        ]
        assert named.count(pid) == 2, named
        assert set(named) <= {pid, sender.pid, None}  # whose packet is quoted by an error: nobody takes that protocol
    (raw,) = (p for p in packets if str(p["network"].get("iana_number")) == "253" and p["source"]["ip"] == left.v4)
    assert raw["pktproc"]["source"]["process"]["pid"] == sender.pid != idle.pid
    assert raw["pktproc"]["source"]["match"] == "exact"
