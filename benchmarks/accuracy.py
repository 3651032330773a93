"""Who gets short-lived processes right: each engine of pktproc, nethogs, and loops around ss and psutil.

Processes start one after another, each with one TCP connection. A process counts as right when it was named for its
connection (by pktproc: in every packet of it), as unknown when nobody was, as wrong when somebody else was.

With `--storms N` engines are judged by storms of N processes that end as soon as they have sent, one after another and
64 at a time, by TCP and UDP, IPv4 and IPv6, as often as `--packets` tells, captured at both ends; every end of every
packet counts.
"""

from __future__ import annotations

import argparse
import itertools
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from bed.namespaces import Namespace, NamespacePair
from bed.program import Command, Program
from bed.sniff import Sniff
from bed.verdict import judge, judge_processes
from benchmarks.measuring import Measured, print_table
from kernel.ebpf.exact_bed import ExactProgram

PORT = 7000
FIRST_PORT = 10000
PARALLEL = (1, 64)
_HOLDER = re.compile(r"pid=(\d+),fd=\d+")


class Score(NamedTuple):
    """Processes named right, not named, named wrong."""

    right: int
    unknown: int
    wrong: int


class Storm(NamedTuple):
    """What a storm told: the pid behind each source port, and how long its processes lived."""

    pids: Mapping[int, int]
    median_life_ms: float


@contextmanager
def storm(pair: NamespacePair, life_ms: float, count: int) -> Iterator[Callable[[], Storm]]:
    """Prepare a storm; yield what lets it loose and returns its truth."""
    arguments = (pair.right.v4, PORT, "--count", count, "--life-ms", life_ms)
    with (
        Program("tcp_server", pair.right.v4, PORT, namespace=pair.right).ready(),
        Program("storm", *arguments, namespace=pair.left).ready() as program,
    ):

        def run() -> Storm:
            program.say()
            (done,) = program.expect("done", timeout=600)
            return Storm({child["port"]: child["child"] for child in program.events("child")}, done["median_life_ms"])

        yield run


def by_pktproc(engine: str, namespace: Namespace, run: Callable[[], Storm]) -> tuple[Score, Storm]:
    """Judge an engine."""
    with Sniff("--engine", engine, f"tcp port {PORT}", on=namespace) as sniff:
        truth = run()
        packets = sniff.stop().packets
    verdict = judge_processes(packets, {("tcp", namespace.v4, port): pid for port, pid in truth.pids.items()})
    return Score(verdict.right, verdict.unknown.total(), verdict.wrong), truth


def by_nethogs(namespace: Namespace, run: Callable[[], Storm]) -> tuple[Score, Storm]:
    """Judge nethogs, whose lines name `program/pid/uid`; a pid that is none of the storm's is wrong."""
    with Measured(["nethogs", "-t", "-C", "-d", "1", namespace.interface], namespace) as nethogs:
        nethogs.wait_for_talk("refreshing")
        truth = run()
        refreshes = nethogs.stdout.so_far().count("Refreshing:")
        nethogs.stdout.find(lambda line: line == "Refreshing:", refreshes + 2, 10)
        nethogs.interrupt()
        named = {int(line.split("\t")[0].rsplit("/", 2)[1]) for line in nethogs.stdout.so_far() if "/" in line} - {0}
    right = len(named & set(truth.pids.values()))
    wrong = len(named - set(truth.pids.values()))
    return Score(right, len(truth.pids) - right, wrong), truth


def by_ss(namespace: Namespace, run: Callable[[], Storm]) -> tuple[Score, Storm]:
    """Judge `ss -tnp` in a loop as fast as it goes."""
    with Command(["sh", "-c", "while ss -Hatnp; do :; done"], namespace) as loop:
        truth = run()
        loop.child.send_signal(signal.SIGTERM)
        loop.child.wait()
        seen: dict[int, set[int]] = {}
        for line in loop.stdout.to_the_end(30):
            port = int(line.split()[3].rpartition(":")[2])
            seen.setdefault(port, set()).update(int(pid) for pid in _HOLDER.findall(line))
    right = sum(pid in seen.get(port, ()) for port, pid in truth.pids.items())
    wrong = sum(bool(seen.get(port, set()) - {pid}) for port, pid in truth.pids.items())
    return Score(right, len(truth.pids) - right - wrong, wrong), truth


def by_psutil(namespace: Namespace, run: Callable[[], Storm]) -> tuple[Score, Storm]:
    """Judge `psutil.net_connections` in a loop as fast as it goes."""
    with Command([sys.executable, "-m", "benchmarks.accuracy", "--psutil"], namespace) as loop:
        loop.stdout.find(lambda line: line == "looking", 1, 10)
        truth = run()
        loop.child.send_signal(signal.SIGTERM)
        loop.child.wait()
        seen = [tuple(map(int, line.split())) for line in loop.stdout.to_the_end(30) if line != "looking"]
    named: dict[int, set[int]] = {}
    for port, pid in seen:
        named.setdefault(port, set()).add(pid)
    right = sum(pid in named.get(port, ()) for port, pid in truth.pids.items())
    wrong = sum(bool(named.get(port, set()) - {pid}) for port, pid in truth.pids.items())
    return Score(right, len(truth.pids) - right - wrong, wrong), truth


def look_with_psutil() -> None:
    """Print port and pid of each connection that psutil shows, once, until told to end."""
    import psutil  # type: ignore[import-untyped] # noqa: PLC0415 - for this loop alone

    told: set[tuple[int, int]] = set()
    print("looking", flush=True)
    while True:
        found = {(one.laddr.port, one.pid) for one in psutil.net_connections("tcp") if one.laddr and one.pid}
        for port, pid in found - told:
            print(port, pid, flush=True)
        told |= found


class Kind(NamedTuple):
    """A kind of storm: its transport, version of IP, how many processes there are at a time, and what each sends."""

    transport: str
    version: str
    parallel: int
    packets: int


def judge_storms(pair: NamespacePair, engines: Sequence[str], count: int, packets: Sequence[int]) -> None:
    """Judge engines by a storm of each kind and print the table."""
    kinds = [Kind(*kind) for kind in itertools.product(("tcp", "udp"), ("v4", "v6"), PARALLEL, packets)]
    rows = [(engine, *kind, *judge_storm(pair, engine, count, kind)) for engine in engines for kind in kinds]
    of_storm = ("engine", "transport", "", "at a time", "packets of each")
    print_table((*of_storm, "processes/s", "ends", "right", "unknown", "wrong", "dropped"), rows)


def judge_storm(pair: NamespacePair, engine: str, count: int, kind: Kind) -> tuple[object, ...]:
    """Return processes a second, ends of packets, right, unknown and wrong ones, and packets dropped by the kernel."""
    transport, version, parallel, packets_each = kind
    ours, theirs = getattr(pair.left, version), getattr(pair.right, version)
    load = ("--count", count, "--parallel", parallel, "--packets", packets_each)
    options = (*load, "--port", FIRST_PORT, *(["--udp"] * (transport == "udp")))
    with (
        Program(f"{transport}_server", theirs, PORT, namespace=pair.right).ready() as server,
        Sniff("--engine", engine, f"{transport} port {PORT}", on=(pair.left, pair.right)) as sniff,
        ExactProgram("crowd", theirs, PORT, *options, namespace=pair.left).ready() as crowd,
    ):
        begin = time.monotonic()
        crowd.say()
        crowd.expect("done", timeout=600)
        rate = count / (time.monotonic() - begin)
        truth = {(transport, ours, child["port"]): child["child"] for child in crowd.events("child")}
        packets, talk = sniff.stop()
    verdict = judge(packets, truth | {(transport, theirs, PORT): server.pid})
    (dropped,) = re.findall(r"(\d+) packets dropped by kernel", talk)
    return round(rate), verdict.total, verdict.right, verdict.unknown.total() + verdict.shared, verdict.wrong, dropped


def main() -> None:
    """Let every tool judge a storm of each length of life."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="processes of each storm")
    parser.add_argument("--life-ms", type=float, nargs="+", default=[20, 1])
    parser.add_argument("--storms", type=int, metavar="N", help="judge engines by storms of N processes instead")
    parser.add_argument("--engine", nargs="+", default=["ebpf"], help="those to judge by storms")
    parser.add_argument("--packets", type=int, nargs="+", default=[1], help="what each process of a storm sends")
    parser.add_argument("--psutil", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.psutil:
        look_with_psutil()
        return
    if options.storms:
        with NamespacePair() as pair:
            judge_storms(pair, options.engine, options.storms, options.packets)
        return
    rows = []
    with NamespacePair() as pair:
        tools: dict[str, Callable[[Callable[[], Storm]], tuple[Score, Storm]]] = {
            "pktproc ebpf": lambda run: by_pktproc("ebpf", pair.left, run),
            "pktproc netlink": lambda run: by_pktproc("netlink", pair.left, run),
            "pktproc procfs": lambda run: by_pktproc("procfs", pair.left, run),
            "nethogs -t": lambda run: by_nethogs(pair.left, run),
            "ss -tnp in a loop": lambda run: by_ss(pair.left, run),
            "psutil in a loop": lambda run: by_psutil(pair.left, run),
        }
        for life_ms in options.life_ms:
            for name, judge in tools.items():
                with storm(pair, life_ms, options.count) as run:
                    score, truth = judge(run)
                share = f"{score.right / options.count:.1%}"
                rows.append((name, f"{truth.median_life_ms:.1f}", *score, share))
    print_table(("tool", "median life ms", "right", "unknown", "wrong", "share right"), rows)


if __name__ == "__main__":
    main()
