"""CPU time per packet of capturing tools under the same UDP flood, one after the other in one run.

Each tool runs a few times just started and stopped, and a few times under the flood; the difference of the cheapest run
of each kind is divided by the packets that the tool itself counted. scapy is flooded at a rate that it can follow.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from bed.namespaces import Namespace, NamespacePair
from benchmarks.measuring import FRAME_BYTES, Measured, Usage, cost_under, dig_sink, flood, print_table

HERE = Path(__file__).parent
RUNS = 3


def at_once(_child: Measured) -> None:
    """Wait for nothing."""


def await_refresh(child: Measured) -> None:
    """Wait until nethogs has shown all that came before: the second refresh from now."""
    seen = child.stdout.so_far().count("Refreshing:")
    child.stdout.find(lambda line: line == "Refreshing:", seen + 2, 10)


class Tool(NamedTuple):
    """A capturing tool: its command line, the word by which it says that it runs, its own count of packets."""

    name: str
    command: Sequence[str]
    listening: str
    counted: Callable[[Measured], int]
    rate: int
    packets: int
    settle: Callable[[Measured], None] = at_once


class Cost(NamedTuple):
    """What a tool cost: packets sent, packets it counted, CPU microseconds per packet."""

    tool: str
    sent: int
    counted: int
    microseconds: float
    peak_rss_bytes: int


def captured(child: Measured) -> int:
    """Return the count in a line such as `123 packets captured`."""
    text = "\n".join((*child.stdout.so_far(), *child.stderr.so_far()))
    found = re.findall(r"(\d+) packets captured", text)
    return int(found[-1])


def counted_by_nethogs(child: Measured) -> int:
    """Return the packets in the last refresh of nethogs' totals; it counts bytes of frames."""
    lines = child.stdout.so_far()
    last = lines[len(lines) - lines[::-1].index("Refreshing:") :]
    return round(sum(float(line.split("\t")[1]) for line in last if "\t" in line) / FRAME_BYTES)


def tools(interface: str, rate: int, count: int, scapy_rate: int, scapy_count: int) -> list[Tool]:
    """Return the tools to compare, the yardstick first."""
    tcpdump = ["tcpdump", "-ni", interface, "-B", "32768", "-w", "/dev/null"]
    nethogs = ["nethogs", "-t", "-C", "-v", "2", interface]
    pktproc = [sys.executable, "-m", "benchmarks.attribute", interface]
    scapy = [sys.executable, str(HERE / "scapy_sniff.py"), interface]
    return [
        Tool("tcpdump -w /dev/null", tcpdump, "listening", captured, rate, count),
        Tool("nethogs -t -C", nethogs, "refreshing", counted_by_nethogs, rate, count, await_refresh),
        Tool("pktproc capture + decode + attribution", pktproc, "listening", captured, rate, count),
        Tool("scapy sniff(store=False)", scapy, "listening", captured, scapy_rate, scapy_count),
    ]


def measure(tool: Tool, namespace: Namespace, options: Sequence[object]) -> Cost:
    """Return a tool's cost per packet above its cost of starting and stopping."""
    sent = 0

    def load() -> None:
        nonlocal sent
        sent = flood(namespace, tool.packets, tool.rate, *options)["sent"]

    def one_packet() -> None:
        flood(namespace, 1, 1)

    def run(work: Callable[[], None]) -> tuple[Usage, int]:
        usage, child = cost_under(tool.command, namespace, tool.listening, work, tool.settle)
        return usage, tool.counted(child)

    started, _ = min(run(one_packet) for _ in range(RUNS))
    busy, counted = min(run(load) for _ in range(RUNS))
    return Cost(tool.name, sent, counted, per_packet(started, busy, counted), busy.peak_rss_bytes)


def per_packet(started: Usage, busy: Usage, packets: int) -> float:
    """Return microseconds of CPU per packet."""
    return (busy.cpu_seconds - started.cpu_seconds) * 1e6 / packets


def main() -> None:
    """Measure all and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=200_000)
    parser.add_argument("--count", type=int, default=2_000_000)
    parser.add_argument("--scapy-rate", type=int, default=2_000)
    parser.add_argument("--scapy-count", type=int, default=10_000)
    parser.add_argument("--flows", type=int, default=100, help="distinct flows in the flood")
    options = parser.parse_args()
    with NamespacePair() as pair:
        dig_sink(pair.left)
        chosen = tools(pair.left.interface, options.rate, options.count, options.scapy_rate, options.scapy_count)
        costs = [measure(tool, pair.left, ("--ports", options.flows)) for tool in chosen]
    yardstick, ours = costs[0], costs[2]
    print_table(
        ("tool", "sent", "counted", "CPU µs/packet", "to tcpdump", "to pktproc", "peak RSS MB"),
        [
            (
                cost.tool,
                cost.sent,
                cost.counted,
                f"{cost.microseconds:.3f}",
                f"{cost.microseconds / yardstick.microseconds:.1f}",
                f"{cost.microseconds / ours.microseconds:.2f}",
                cost.peak_rss_bytes // 1_000_000,
            )
            for cost in costs
        ],
    )


if __name__ == "__main__":
    main()
