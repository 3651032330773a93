"""Packets per second of `pktproc summary` on a file, beside `tshark -q -z conv,tcp`, in one run.

Every command is a process of its own, start-up included, on a file in the page cache. The store has each flow's socket.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from bed.sniff import pktproc_command
from benchmarks.enriching import make_store, measure
from benchmarks.made_capture import make_capture
from benchmarks.measuring import print_table


def main() -> None:
    """Make the files, run all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--flows", type=int, default=5_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        capture, store = Path(name, "in.pcap"), Path(name, "day.db")
        make_capture(capture, options.packets, options.flows, "pcap")
        make_store(store, options.packets, options.flows)
        commands = {
            "tshark -q -z conv,tcp": ["tshark", "-n", "-q", "-z", "conv,tcp", "-r", str(capture)],
            "pktproc summary": pktproc_command("summary", capture),
            "pktproc summary --by connection": pktproc_command("summary", capture, "--by", "connection", "--top", 20),
            "pktproc summary -s": pktproc_command("summary", capture, "-s", store),
        }
        found = {title: measure(command) for title, command in commands.items()}
    count, (yardstick, _) = options.packets, found["tshark -q -z conv,tcp"]
    print_table(
        ("command", "packets", "seconds", "packets/s", "times as fast as tshark", "peak RSS MB"),
        [
            (
                title,
                count,
                f"{seconds:.2f}",
                f"{count / seconds:,.0f}",
                f"{yardstick / seconds:.1f}",
                peak // 1_000_000,
            )
            for title, (seconds, peak) in found.items()
        ],
    )


if __name__ == "__main__":
    main()
