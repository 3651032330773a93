"""What `pktproc sockets` takes on a host that is full of sockets, beside ss, lsof, netstat and psutil."""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from bed.namespaces import Namespace, NamespacePair
from bed.program import Program
from bed.socket_tools import PSUTIL
from benchmarks.measuring import print_table
from pktproc.listing import Looker, Question

# Installed programs find their bytecode compiled.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
PKTPROC = (sys.executable, "-m", "pktproc", "sockets")


def main() -> None:
    """Measure an idle namespace and one that is full, and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=500)
    parser.add_argument("--connections", type=int, default=48, help="of each process, which holds both ends")
    parser.add_argument("--files", type=int, default=18, help="of each process, beside its sockets")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    load = ("--processes", options.processes, "--connections", options.connections, "--files", options.files)
    with NamespacePair() as pair:
        print("Idle:\n")
        report(pair.left, options.rounds)
        with Program("crowded_host", *load, namespace=pair.left) as host:
            host.expect("ready", timeout=600)
            print(f"\n{describe(pair.left)}:\n")
            report(pair.left, options.rounds)


def describe(namespace: Namespace) -> str:
    """Return how many sockets there are, and who holds how many."""
    with Looker(Question(netns=(namespace.name,), tables=("tcp", "udp"), peers=False)) as looker:
        entries = looker.look().entries
    processes = {holder.process for entry in entries for holder in entry.holders}
    return f"{len(entries)} sockets of {len(processes)} processes"


def report(namespace: Namespace, rounds: int) -> None:
    """Run all tools in turns, so that what else the machine does meets all alike, and print what each took."""
    tools: dict[str, Sequence[str]] = {
        "pktproc sockets -tunap": (*PKTPROC, "-tunap"),
        "pktproc sockets -tuna --peers": (*PKTPROC, "-tuna", "--peers"),
        "pktproc sockets -tuna --format json": (*PKTPROC, "-tuna", "--format", "json"),
        "ss -tunap": ("ss", "-tunap"),
        "netstat -tunap": ("netstat", "-tunap"),
        "lsof -i": ("lsof", "-i"),
        "lsof -nP -i": ("lsof", "-nP", "-i"),
        "psutil.net_connections": (sys.executable, "-c", PSUTIL),
    }
    took: dict[str, list[float]] = {name: [] for name in tools}
    for _ in range(rounds):
        for name, command in tools.items():
            took[name].append(seconds(namespace.enter(command)))
    fastest = min(took["pktproc sockets -tunap"])
    rows = [
        (f"`{name}`", f"{min(each):.3f}", f"{statistics.median(each):.3f}", f"{min(each) / fastest:.2f}")
        for name, each in took.items()
    ]
    print_table(("command", "best s", "median s", "best, to pktproc's"), rows)


def seconds(command: Sequence[str]) -> float:
    """Return how long a command takes from start to end; its output goes nowhere."""
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, env=ENVIRONMENT)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
