"""What `pktproc record` costs on a host with many sockets, and how its store grows."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from bed.namespaces import NamespacePair
from bed.program import Program
from bed.sniff import pktproc_command
from benchmarks.measuring import Measured, print_table

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Record a quiet host and one on which connections come and go, and print the costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=300)
    parser.add_argument("--connections", type=int, default=3, help="of each process")
    parser.add_argument("--interval", type=float, default=1)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--churn", type=float, nargs="+", default=[0, 20], help="new connections a second, each run")
    parser.add_argument("--engine", default="auto")
    options = parser.parse_args()
    header = (
        "new connections/s",
        "sockets",
        "processes",
        "core %",
        "start-up CPU s",
        "store at start",
        "at end",
        "peak RSS MB",
    )
    print_table(header, [measure(options, churn) for churn in options.churn])


def measure(options: argparse.Namespace, churn: float) -> tuple[object, ...]:
    """Return a row: one run of `pktproc record` beside a program that makes the load."""
    load = ("--processes", options.processes, "--connections", options.connections, "--churn", churn)
    with (
        NamespacePair() as pair,
        Program("many_sockets", *load, namespace=pair.left).ready() as host,
        tempfile.TemporaryDirectory() as folder,
    ):
        store = Path(folder, "store.db")
        command = pktproc_command("record", "-o", store, "--interval", options.interval, "--engine", options.engine)
        with Measured(command) as child:
            child.wait_for_talk("recording into")
            wait_until_recorded(store)
            before, size, begun = cpu_seconds(child.pid), store_bytes(store), time.monotonic()
            time.sleep(options.seconds)
            after, seconds, grown = cpu_seconds(child.pid), time.monotonic() - begun, store_bytes(store)
            usage = child.interrupt()
        (facts,) = host.events("ready")
    percent = f"{100 * (after - before) / seconds:.2f}"
    return churn, facts["sockets"], facts["processes"], percent, before, size, grown, usage.peak_rss_bytes // 1_000_000


def wait_until_recorded(store: Path) -> None:
    """Wait for the first look and the second, which is the first that costs what looks cost."""
    deadline = time.monotonic() + 30
    while store_bytes(store) < 100_000:
        if time.monotonic() > deadline:
            raise RuntimeError("the first look was never written")
        time.sleep(0.05)
    time.sleep(1)


def store_bytes(store: Path) -> int:
    """Return the size of a store with its log."""
    return sum(path.stat().st_size for path in store.parent.glob(f"{store.name}*") if not path.name.endswith("-shm"))


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process (fields 14 and 15 of /proc/PID/stat, proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


if __name__ == "__main__":
    main()
