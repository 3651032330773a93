"""How long `pktproc sniff` takes from its start until it captures, on a host that is full of sockets."""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import time

from bed.namespaces import Namespace, NamespacePair
from bed.program import Program
from benchmarks.measuring import print_table
from pktproc.kernel.engines import ALL

# Installed programs find their bytecode compiled.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def main() -> None:
    """Start every engine in turns, in a namespace that is full, and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=500)
    parser.add_argument("--connections", type=int, default=48, help="of each process, which holds both ends")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    took: dict[str, list[float]] = {engine: [] for engine in ALL}
    with NamespacePair() as pair:
        load = ("--processes", options.processes, "--connections", options.connections)
        with Program("crowded_host", *load, namespace=pair.left) as host:
            (full,) = host.expect("ready", timeout=600)
            seconds_to_start("auto", pair.left)  # whatever the first start leaves in caches
            for _ in range(options.rounds):
                for engine, times in took.items():
                    times.append(seconds_to_start(engine, pair.left))
    print(f"{full['sockets']} sockets of {full['processes']} processes:\n")
    rows = [(f"`{engine}`", f"{min(times):.3f}", f"{statistics.median(times):.3f}") for engine, times in took.items()]
    print_table(("engine", "best s", "median s"), rows)


def seconds_to_start(engine: str, namespace: Namespace) -> float:
    """Return how long it takes until a capture says that it listens; RuntimeError if it never does."""
    command = [sys.executable, "-m", "pktproc", "sniff", "-i", namespace.interface, "--engine", engine]
    began = time.perf_counter()
    with subprocess.Popen(namespace.enter(command), stderr=subprocess.PIPE, text=True, env=ENVIRONMENT) as sniff:
        assert sniff.stderr
        listening = any("listening" in line for line in sniff.stderr)
        took = time.perf_counter() - began
        sniff.send_signal(signal.SIGINT)
        sniff.stderr.read()
    if not listening:
        raise RuntimeError(f"engine {engine} did not start")
    return took


if __name__ == "__main__":
    main()
