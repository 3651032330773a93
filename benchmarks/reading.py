"""Packets per second of reading capture files, beside scapy's `RawPcapReader`, and what they cost in memory.

Each reader is a process of its own that reads the whole file, which lies in the page cache, and touches no packet.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.made_capture import make_capture
from benchmarks.measuring import print_table

RUNS = 5


def read_by_pktproc(path: str) -> int:
    """Return how many packets pktproc finds in a file."""
    from pktproc.capture.capture_file import open_capture  # noqa: PLC0415 - the other reader shall not pay for it

    with open_capture(path) as capture:
        return sum(len(file_batch.batch) for file_batch in capture)


def read_by_scapy(path: str) -> int:
    """Return how many packets scapy finds in a file."""
    from scapy.utils import RawPcapReader  # noqa: PLC0415

    with RawPcapReader(path) as reader:
        return sum(1 for _ in reader)


READERS: dict[str, Callable[[str], int]] = {"pktproc": read_by_pktproc, "scapy": read_by_scapy}


def child(reader: str, path: str) -> None:
    """Read a file and print the number of packets, seconds passed, seconds of CPU, and the peak resident size in kB."""
    begin, busy = time.perf_counter(), time.process_time()
    count = READERS[reader](path)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - busy
    # The size that wait4(2) tells includes the parent's, from before the exec.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(count, seconds, cpu_seconds, peak)


def measure(name: str, reader: str, path: Path, runs: int) -> tuple[object, ...]:
    """Return a row: the best of some runs."""
    costs, peak = [], 0
    for _ in range(runs):
        command = [sys.executable, "-m", "benchmarks.reading", "--reader", reader, str(path)]
        count, *seconds, kilobytes = subprocess.run(command, capture_output=True, check=True).stdout.split()
        costs.append([float(value) / int(count) for value in seconds])
        peak = max(peak, int(kilobytes))
    passed, busy = map(min, zip(*costs, strict=True))
    return name, reader, int(count), f"{1 / passed:,.0f}", f"{busy * 1e6:.3f}", peak // 1000


def main() -> None:
    """Make the files, let all read them and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--flows", type=int, default=5_000)
    parser.add_argument(
        "--compress", nargs="*", default=["gzip", "zstd"], help="programs, also files of theirs are read"
    )
    parser.add_argument("--reader", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("path", nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        child(options.reader, options.path)
        return
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for format_ in ("pcap", "pcapng"):
            path = Path(directory, f"made.{format_}")
            make_capture(path, options.packets, options.flows, format_)
            rows.append(measure(format_, "pktproc", path, RUNS))
            rows.append(measure(format_, "scapy", path, 1))
        for program in options.compress:
            packed = Path(directory, f"made.{program}")
            with packed.open("wb") as output:
                subprocess.run([program, "-1", "-c", Path(directory, "made.pcap")], stdout=output, check=True)
            rows.append(measure(f"pcap, {program}", "pktproc", packed, 1))
    print_table(("file", "reader", "packets", "packets/s", "CPU µs/packet", "peak RSS MB"), rows)


if __name__ == "__main__":
    main()
