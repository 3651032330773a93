"""What the engine `ebpf` costs the host, with its programs loaded and no capture: connections and throughput.

What makes connections or traffic runs all the time, on loopback of a namespace of its own, and is measured in short
turns: twice without the programs (`again` shows what is chance), with them, and with all that are attached while
something is captured or recorded, though nothing is. Figures are medians, changes are medians of those within a turn,
with their standard error. Sides follow one another in all orders, and what moves traffic is started anew now and then,
so that neither what loading leaves behind nor where a process happens to lie in memory counts for one side.
CPU time of connections and datagrams is that of the quickest tenth of a turn, that of iperf3 is of both its processes,
with the softirqs in it. What iperf3 moves, and for how much, swings with what its processes meet in the caches.
"""

from __future__ import annotations

import argparse
import itertools
import math
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path

from benchmarks.measuring import print_table
from pktproc.kernel.ebpf.programs import Programs

_PREPARE = 'ip link set lo up; exec "$@"'
_DRAIN_S = 0.2
_PARTS = 10
_LONG_S = 86_400
_STARTING_S = 1.0
_SETTLING_S = 0.2  # what is left of loading and unloading, which takes the other processor, is over by then
_TURNS_OF_ONE = 12  # of what is measured, before it is started anew
_MB = 1e6
Measure = Callable[[float], tuple[float, ...]]
Sides = list[tuple[float, ...]]


@contextmanager
def loaded(*, packets: bool = False) -> Iterator[None]:
    """Load the programs and read what they tell, as pktproc does while there are no packets.

    With `packets` those are attached that are for packets that are captured or recorded, otherwise for sockets alone.
    """
    stop = threading.Event()

    def drain(programs: Programs) -> None:
        while not stop.wait(_DRAIN_S):
            while programs.read().more:
                pass

    with Programs() as programs:
        if packets:
            programs.attend_packets()
        else:
            programs.attend_sockets()
        reader = threading.Thread(target=drain, args=(programs,))
        reader.start()
        try:
            yield
        finally:
            stop.set()
            reader.join()


SIDES: tuple[Callable[[], AbstractContextManager[None]], ...] = (
    nullcontext,
    nullcontext,
    loaded,
    partial(loaded, packets=True),
)
ORDERS = tuple(itertools.permutations(range(len(SIDES))))


@contextmanager
def child(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command until the end of the context."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def inside(*command: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """Run a command in a new namespace with loopback up."""
    return child("unshare", "--net", "sh", "-c", _PREPARE, "sh", *command)


@contextmanager
def repeating(what: str) -> Iterator[Measure]:
    """Run a program that does something with itself; measure how often a second, and the CPU time of one time in µs."""
    with inside(sys.executable, "-m", "benchmarks.ebpf_cost", "--repeat", what) as program:
        assert program.stdin
        assert program.stdout
        asked, told = program.stdin, program.stdout

        def measure(seconds: float) -> tuple[float, ...]:
            print(seconds, file=asked, flush=True)
            return tuple(map(float, told.readline().split()))

        yield measure


def repeat(what: str) -> None:
    """Be that program: standard input says for how many seconds at a time."""
    act = {"connect": connecting, "send": sending}[what]()
    for line in sys.stdin:
        seconds, count, costs = float(line), 0, []
        begin = time.monotonic()
        for part in range(1, _PARTS + 1):
            used, before = time.process_time(), count
            while time.monotonic() < begin + seconds * part / _PARTS:
                act()
                count += 1
            costs.append((time.process_time() - used) / (count - before) if count > before else math.inf)
        print(count / (time.monotonic() - begin), min(costs) * 1e6, flush=True)


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


@contextmanager
def moving(*options: str) -> Iterator[Measure]:
    """Run iperf3; measure what it moves, in Gbit/s, and the CPU time of its client and server for a MB in µs."""
    with ExitStack() as opened:
        server = opened.enter_context(inside("iperf3", "-s", "-1", "--forceflush"))
        assert server.stdout
        while "listening" not in server.stdout.readline():
            assert server.poll() is None
        space = f"--net=/proc/{server.pid}/ns/net"
        client = opened.enter_context(
            child("nsenter", space, "iperf3", "-c", "127.0.0.1", "-t", str(_LONG_S), "-i", "0", *options)
        )
        time.sleep(_STARTING_S)

        def measure(seconds: float) -> tuple[float, ...]:
            begin, used, moved = time.monotonic(), cpu_seconds(server, client), received_bytes(server.pid)
            time.sleep(seconds)
            moved = received_bytes(server.pid) - moved
            used = cpu_seconds(server, client) - used
            return moved * 8e-9 / (time.monotonic() - begin), used * 1e6 / (moved / _MB)

        yield measure


def cpu_seconds(*processes: subprocess.Popen[str]) -> float:
    """Return what processes that run have used, exact to the microsecond, unlike /proc/PID/stat."""
    # Their clocks have numbers that are made of the pids (clock_getcpuclockid(3)).
    return sum(time.clock_gettime(~process.pid << 3 | 2) for process in processes)


def received_bytes(pid: int) -> int:
    """Return what loopback has received in the namespace of a process."""
    lines = Path(f"/proc/{pid}/net/dev").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.strip().startswith("lo:"))


MEASURED: dict[str, tuple[tuple[str, ...], Callable[[], AbstractContextManager[Measure]]]] = {
    "connect": (("connections/s", "CPU µs/connection"), partial(repeating, "connect")),
    "send": (("datagrams/s", "CPU µs/datagram"), partial(repeating, "send")),
    "tcp": (("iperf3 TCP Gbit/s", "CPU µs/MB"), moving),
    "udp": (("iperf3 UDP Gbit/s", "CPU µs/MB"), partial(moving, "-u", "-b", "0", "-l", "1400")),
}


def main() -> None:
    """Measure everything in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", help=f"what to measure, all if nothing is named: {', '.join(MEASURED)}")
    parser.add_argument("--turns", type=int, default=150)
    parser.add_argument("--seconds", type=float, default=0.12, help="how long a side is measured in each turn")
    parser.add_argument("--repeat", choices=["connect", "send"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.repeat:
        repeat(options.repeat)
        return
    rows = []
    for what in options.what or MEASURED:
        names, run = MEASURED[what]
        turns: list[Sides] = []
        while len(turns) < options.turns:
            with run() as measure:
                several = range(len(turns), min(len(turns) + _TURNS_OF_ONE, options.turns))
                turns += [turn(measure, options.seconds, number) for number in several]
        for position, name in enumerate(names):
            rows.append(row(name, [tuple(side[position] for side in sides) for sides in turns]))
    print_table(("", "without", "again", "with", "change", "with all", "change"), rows)


def turn(measure: Measure, seconds: float, number: int) -> Sides:
    """Measure all sides, each turn in another order; return them in their own."""
    found: dict[int, tuple[float, ...]] = {}
    for side in ORDERS[number % len(ORDERS)]:
        with SIDES[side]():
            time.sleep(_SETTLING_S)
            found[side] = measure(seconds)
    return [found[side] for side in range(len(SIDES))]


def row(name: str, turns: Sequence[tuple[float, ...]]) -> tuple[str, ...]:
    """Return a row of the table: the medians, and those of the changes."""
    medians = [statistics.median(side) for side in zip(*turns, strict=True)]
    changes = [change([turn[side] / turn[0] - 1 for turn in turns]) for side in range(1, len(SIDES))]
    return name, f"{medians[0]:.2f}", changes[0], f"{medians[2]:.2f}", changes[1], f"{medians[3]:.2f}", changes[2]


def change(found: Sequence[float]) -> str:
    """Return the median of changes and its standard error, which is taken from the quartiles."""
    first, median, third = statistics.quantiles(found, n=4)
    return f"{median:+.1%} ± {0.93 * (third - first) / math.sqrt(len(found)):.1%}"


if __name__ == "__main__":
    main()
