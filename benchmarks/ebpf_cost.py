"""What the engine `ebpf` costs the host, with its programs loaded and no capture: connections and throughput.

Each figure is the median of pairs: a run without the programs, one with them, on loopback of a namespace of its own.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from benchmarks.measuring import print_table
from pktproc.kernel.ebpf.programs import Programs

_PREPARE = 'ip link set lo up; exec "$@"'
_DRAIN_S = 0.2


@contextmanager
def loaded() -> Iterator[None]:
    """Load the programs and read what they tell, as pktproc does while there are no packets."""
    stop = threading.Event()

    def drain(programs: Programs) -> None:
        while not stop.wait(_DRAIN_S):
            while programs.read().more:
                pass

    with Programs() as programs:
        reader = threading.Thread(target=drain, args=(programs,))
        reader.start()
        try:
            yield
        finally:
            stop.set()
            reader.join()


def inside(*command: str) -> str:
    """Run a command in a new namespace with loopback up; return its standard output."""
    whole = ["unshare", "--net", "sh", "-c", _PREPARE, "sh", *command]
    return subprocess.run(whole, check=True, capture_output=True, text=True).stdout


def connections(seconds: float) -> float:
    """Return how many connections a second a program makes to itself and closes."""
    return float(inside(sys.executable, "-m", "benchmarks.ebpf_cost", "--connect", str(seconds)))


def connect(seconds: float) -> None:
    """Be that program; both ends are closed by reset, so that no port stays taken."""
    count, listener = 0, socket.create_server(("127.0.0.1", 0))
    reset = (1).to_bytes(4, sys.byteorder) + bytes(4)
    end = time.monotonic() + seconds
    begin = time.monotonic()
    while time.monotonic() < end:
        with socket.create_connection(listener.getsockname()) as client, listener.accept()[0]:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        count += 1
    print(count / (time.monotonic() - begin))


def throughput(seconds: float, *options: str) -> float:
    """Return what iperf3 moves, in Gbit/s."""
    script = f"iperf3 -s -1 >/dev/null & sleep 0.5; iperf3 -J -c 127.0.0.1 -t {seconds} {' '.join(options)}"
    report = json.loads(inside("sh", "-c", script))
    total = report["end"].get("sum_received") or report["end"]["sum"]
    return float(total["bits_per_second"]) / 1e9


def main() -> None:
    """Measure everything in pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--connect", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.connect:
        connect(options.connect)
        return
    measures: dict[str, Callable[[], float]] = {
        "connections/s": lambda: connections(options.seconds),
        "TCP Gbit/s": lambda: throughput(options.seconds),
        "UDP Gbit/s": lambda: throughput(options.seconds, "-u", "-b", "0", "-l", "1400"),
    }
    rows = []
    for name, measure in measures.items():
        without, with_programs = [], []
        for _ in range(options.pairs):
            without.append(measure())
            with loaded():
                with_programs.append(measure())
        losses = [1 - after / before for before, after in zip(without, with_programs, strict=True)]
        middle = (statistics.median(without), statistics.median(with_programs))
        rows.append((name, f"{middle[0]:.2f}", f"{middle[1]:.2f}", f"{statistics.median(losses):.1%}"))
    print_table(("", "without", "with", "loss"), rows)


if __name__ == "__main__":
    main()
