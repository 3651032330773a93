"""CPU time per packet of `pktproc summary` beside tcpdump and NetHogs, and a ledger with very many flows.

The flood and the way of measuring are those of `benchmarks.capture`. The second table is of a ledger that is fed
blocks of as many distinct flows as asked for, each with packets in every interval: what a view of it costs, and the
peak resident size of the whole process.
"""

from __future__ import annotations

import argparse
import re
import resource
import time

import numpy as np

from bed.namespaces import NamespacePair
from bed.sniff import pktproc_command
from benchmarks.capture import Tool, measure, tools
from benchmarks.measuring import Measured, dig_sink, print_table
from pktproc.attribution.answers import AttributedBatch
from pktproc.bandwidth.ledger import NS_PER_S, Ledger
from pktproc.model import Attribution, Interface, Match, PacketType, Process
from pktproc.packets.batch import PacketBatch
from pktproc.packets.decode import decode
from pktproc.packets.flows import distinct_flows
from pktproc.packets.fragments import FragmentTable
from pktproc.packets.linktypes import LINKTYPE_IPV4

_START_NS = 1_790_000_000_000_000_000
_PROCESSES = 200
_BLOCK = 10_000
_HEADERS_BYTES = 28


def counted(child: Measured) -> int:
    """Return the packets that a summary counted."""
    (told,) = re.findall(r"(\d+) packets? counted", "\n".join(child.stderr.so_far()))
    return int(told)


def measure_live(rate: int, count: int, flows: int) -> None:
    """Print the CPU time of each tool."""
    with NamespacePair() as pair:
        dig_sink(pair.left)
        interface = pair.left.interface
        command = pktproc_command("summary", "-i", interface)
        chosen = [
            *tools(interface, rate, count, 1, 1)[:3],
            Tool("pktproc summary", command, "listening", counted, rate, count),
        ]
        costs = [measure(tool, pair.left, ("--ports", flows)) for tool in chosen]
    yardsticks = costs[0].microseconds, costs[1].microseconds
    print_table(
        ("tool", "sent", "counted", "CPU µs/packet", "to tcpdump", "to nethogs", "peak RSS MB"),
        [
            (
                cost.tool,
                cost.sent,
                cost.counted,
                f"{cost.microseconds:.3f}",
                *(f"{cost.microseconds / yardstick:.2f}" for yardstick in yardsticks),
                cost.peak_rss_bytes // 1_000_000,
            )
            for cost in costs
        ],
    )


def block(first: int, count: int, time_ns: int) -> PacketBatch:
    """Return datagrams of distinct flows, one each."""
    heads = np.zeros((count, _HEADERS_BYTES), np.uint8)
    number = np.arange(first, first + count)
    heads[:, 0], heads[:, 3], heads[:, 9] = 0x45, _HEADERS_BYTES, 17
    heads[:, 12:16], heads[:, 16] = (10, 77, 0, 1), 10
    heads[:, 17:20] = np.stack([number >> shift & 0xFF for shift in (16, 8, 0)], axis=1)
    heads[:, 20], heads[:, 23] = 80, 53
    return PacketBatch(
        data=heads.reshape(-1),
        offset=np.arange(count) * _HEADERS_BYTES,
        captured_bytes=np.full(count, _HEADERS_BYTES),
        wire_bytes=np.full(count, 1000),
        time_ns=np.full(count, time_ns),
        interface=np.zeros(count, np.int64),
        packet_type=np.full(count, PacketType.OUTGOING, np.uint8),
        linktype=np.full(count, LINKTYPE_IPV4, np.uint16),
        interfaces=(Interface("eth0", 2, 1),),
    )


def measure_ledger(flows: int, intervals: int) -> None:
    """Print what many flows cost."""
    owners = [
        Attribution(Process(1000 + number, number, _START_NS, f"program{number}"), Match.EXACT, "netlink")
        for number in range(_PROCESSES)
    ]
    book = Ledger(start_ns=_START_NS, keep=120)
    begin, views = time.perf_counter(), []
    for interval in range(intervals):
        for first in range(0, flows, _BLOCK):
            batch = block(first, min(_BLOCK, flows - first), _START_NS + interval * NS_PER_S + first)
            columns = decode(batch, FragmentTable())
            table = distinct_flows(batch, columns)
            ends = [owners[(first + at) % _PROCESSES] for at in range(len(table))]
            nowhere: list[Attribution | None] = [None] * len(table)
            book.add(AttributedBatch(batch, columns, table.flow_of, table.flows, table.first, [*ends], nowhere))
        asked = time.perf_counter()
        view = book.view(_START_NS + (interval + 1) * NS_PER_S)
        views.append(time.perf_counter() - asked)
    folding_s = time.perf_counter() - begin - sum(views)
    asked = time.perf_counter()
    book.connections_of(view.rows[0].key)
    connections_s = time.perf_counter() - asked
    print_table(
        ("flows", "intervals", "µs/packet, decoding included", "view, median ms", "view, worst ms",
         "connections of a row, ms", "peak RSS MB"),
        [
            (
                f"{flows:,}",
                intervals,
                f"{folding_s / flows / intervals * 1e6:.2f}",
                f"{sorted(views)[len(views) // 2] * 1e3:.0f}",
                f"{max(views) * 1e3:.0f}",
                f"{connections_s * 1e3:.0f}",
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000,
            )
        ],
    )  # fmt: skip


def main() -> None:
    """Measure all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=100_000)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--flows", type=int, default=100, help="distinct flows in the flood")
    parser.add_argument("--many", type=int, default=100_000, help="distinct flows of the ledger")
    parser.add_argument("--intervals", type=int, default=20)
    options = parser.parse_args()
    measure_ledger(options.many, options.intervals)
    measure_live(options.rate, options.count, options.flows)


if __name__ == "__main__":
    main()
