"""Packets per second of `pktproc enrich`, beside a plain rewrite by editcap and scapy's `PcapReader`, in one run.

Every command is a process of its own, start-up included, on a file in the page cache. The store has each flow's socket.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from bed.sniff import pktproc_command
from benchmarks.made_capture import LOCAL, START_NS, STEP_NS, Format, flow_ends, make_capture
from benchmarks.measuring import Measured, print_table
from pktproc.model import V4_MAPPED_PREFIX, Process, Protocol, Socket, pack_address
from pktproc.snapshots.store import Store

RUNS = 3
SCAPY_PACKETS = 20_000
NETNS = 4026531840
ESTABLISHED = 1
PROCESSES = 50
SCAPY = """
import sys, itertools
from scapy.layers import inet, l2
from scapy.utils import PcapReader
print(sum(1 for _ in itertools.islice(PcapReader(sys.argv[1]), int(sys.argv[2]))))
"""


def make_store(path: Path, packets: int, flows: int) -> None:
    """Write a store with a connected socket for each flow, held by one of a few processes all the time."""
    store = Store(path)
    end_ns = START_NS + packets * STEP_NS
    with store.transaction():
        coverage = store.begin_coverage(START_NS - 1, "netlink", hears_ends=True, interval_ns=10**9)
        store.add_address(NETNS, pack_address(LOCAL), broadcast=False, after_ns=None, first_ns=START_NS - 1)
        rows = [
            store.add_process(Process(pid=1000 + n, start_ticks=n, start_ns=START_NS, name=f"server{n}"), START_NS - 1)
            for n in range(PROCESSES)
        ]
        for flow in range(flows):
            local, local_port, remote, remote_port = flow_ends(flow)
            socket = Socket(
                netns=NETNS,
                protocol=Protocol.TCP,
                local_address=V4_MAPPED_PREFIX + local.to_bytes(4),
                local_port=local_port,
                remote_address=V4_MAPPED_PREFIX + remote.to_bytes(4),
                remote_port=remote_port,
                state=ESTABLISHED,
                inode=flow + 1,
                cookie=flow + 1,
                uid=0,
            )
            store.add_holder(store.add_socket(socket, None, START_NS - 1), rows[flow % PROCESSES], None, START_NS - 1)
        store.extend_coverage(coverage, end_ns, end_ns)
        store.settle()
    store.close()


def measure(command: list[str]) -> tuple[float, int]:
    """Return the least seconds that a command takes from start to end, and its peak resident size."""
    best, peak = float("inf"), 0
    for _ in range(RUNS):
        begin = time.perf_counter()
        with Measured(command) as child:
            usage = child.reap()
        best, peak = min(best, time.perf_counter() - begin), max(peak, usage.peak_rss_bytes)
    return best, peak


def rows(directory: Path, packets: int, flows: int, kind: Format) -> list[tuple[object, ...]]:
    """Return the rows of one format."""
    capture, store, output = directory / f"in.{kind}", directory / "day.db", directory / "out.pcapng"
    make_capture(capture, packets, flows, kind)
    commands = {
        "editcap": (packets, ["editcap", str(capture), str(output)]),
        "pktproc enrich -o": (packets, pktproc_command("enrich", capture, "-s", store, "-o", output)),
        "scapy PcapReader": (SCAPY_PACKETS, [sys.executable, "-c", SCAPY, str(capture), str(SCAPY_PACKETS)]),
    }
    found = {name: (count, *measure(command)) for name, (count, command) in commands.items()}
    yardstick = found["editcap"][1] / packets
    return [
        (
            f"{name} ({kind})",
            count,
            f"{seconds:.2f}",
            f"{count / seconds:,.0f}",
            f"{seconds / count / yardstick:.2f}",
            peak // 1_000_000,
        )
        for name, (count, seconds, peak) in found.items()
    ]


def main() -> None:
    """Make the files, run all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--flows", type=int, default=5_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        make_store(directory / "day.db", options.packets, options.flows)
        table = [row for kind in ("pcap", "pcapng") for row in rows(directory, options.packets, options.flows, kind)]
    print_table(("command", "packets", "seconds", "packets/s", "time to editcap", "peak RSS MB"), table)


if __name__ == "__main__":
    main()
