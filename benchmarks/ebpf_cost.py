"""What the engine `ebpf` costs the host, with its programs loaded and no capture: connections and throughput.

Each figure is the median of runs in turns, on loopback of a namespace of its own: without the programs, with them, and
with all that are attached while something is captured, though nothing is. Changes are medians of those in each turn.
CPU time is that of the quickest tenth of a run, softirqs included; other load on the machine does not change it much.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.measuring import print_table
from pktproc.kernel.ebpf.programs import Programs

_PREPARE = 'ip link set lo up; exec "$@"'
_DRAIN_S = 0.2
_PARTS = 10


@contextmanager
def loaded(*, attend: bool = False) -> Iterator[None]:
    """Load the programs and read what they tell, as pktproc does while there are no packets.

    With `attend` also those are attached that are for packets that are captured.
    """
    stop = threading.Event()

    def drain(programs: Programs) -> None:
        while not stop.wait(_DRAIN_S):
            while programs.read().more:
                pass

    with Programs() as programs:
        if attend:
            programs.attend()
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


def repeated(what: str, seconds: float) -> tuple[float, float]:
    """Return how often a second a program does something with itself, and the CPU time of one time in µs."""
    rate, cost = inside(
        sys.executable, "-m", "benchmarks.ebpf_cost", "--repeat", what, "--seconds", str(seconds)
    ).split()
    return float(rate), float(cost)


def repeat(what: str, seconds: float) -> None:
    """Be that program."""
    act = {"connect": connecting, "send": sending}[what]()
    count, costs = 0, []
    begin = time.monotonic()
    for part in range(1, _PARTS + 1):
        used, before = time.process_time(), count
        while time.monotonic() < begin + seconds * part / _PARTS:
            act()
            count += 1
        costs.append((time.process_time() - used) / max(1, count - before))
    print(count / (time.monotonic() - begin), min(costs) * 1e6)


def connecting() -> Callable[[], None]:
    """Return what makes a connection and closes both ends by reset, so that no port stays taken."""
    listener = socket.create_server(("127.0.0.1", 0))
    reset = (1).to_bytes(4, sys.byteorder) + bytes(4)

    def act() -> None:
        with socket.create_connection(listener.getsockname()) as client, listener.accept()[0]:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)

    return act


def sending() -> Callable[[], None]:
    """Return what sends and receives a small datagram."""
    receiver, sender = socket.socket(type=socket.SOCK_DGRAM), socket.socket(type=socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    sender.connect(receiver.getsockname())
    data = bytes(64)

    def act() -> None:
        sender.send(data)
        receiver.recv(len(data))

    return act


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
    parser.add_argument("--repeat", choices=["connect", "send"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.repeat:
        repeat(options.repeat, options.seconds)
        return
    measures: dict[tuple[str, ...], Callable[[], tuple[float, ...]]] = {
        ("connections/s", "CPU µs/connection"): lambda: repeated("connect", options.seconds),
        ("datagrams/s", "CPU µs/datagram"): lambda: repeated("send", options.seconds),
        ("TCP Gbit/s",): lambda: (throughput(options.seconds),),
        ("UDP Gbit/s",): lambda: (throughput(options.seconds, "-u", "-b", "0", "-l", "1400"),),
    }
    rows = []
    for names, measure in measures.items():
        turns: list[tuple[tuple[float, ...], ...]] = []
        for _ in range(options.pairs):
            without = measure()
            with loaded():
                idle = measure()
            with loaded(attend=True):
                turns.append((without, idle, measure()))
        for position, name in enumerate(names):
            rows.append(row(name, [tuple(side[position] for side in turn) for turn in turns]))
    print_table(("", "without", "with", "change", "with all", "change"), rows)


def row(name: str, turns: Sequence[tuple[float, ...]]) -> tuple[str, ...]:
    """Return a row of the table: the medians, and those of the changes."""
    without, *others = (statistics.median(side) for side in zip(*turns, strict=True))
    cells = [name, f"{without:.2f}"]
    for position, figure in enumerate(others, 1):
        change = statistics.median(turn[position] / turn[0] - 1 for turn in turns)
        cells += [f"{figure:.2f}", f"{change:+.1%}"]
    return tuple(cells)


if __name__ == "__main__":
    main()
