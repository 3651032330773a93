"""Peak resident size of `pktproc sniff` while it meets ever new flows."""

from __future__ import annotations

import argparse

from bed.namespaces import NamespacePair
from bed.sniff import pktproc_command
from benchmarks.measuring import Measured, dig_sink, flood, print_table, summarised

SOURCES = 20


def main() -> None:
    """Flood with distinct flows and print the sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--flows", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--engine", default="auto")
    parser.add_argument("modes", nargs="*", default=["text", "json"])
    options = parser.parse_args()
    rows = [
        measure(options.flows, options.rate, ["--json"] * (mode == "json"), options.engine) for mode in options.modes
    ]
    print_table(("output", "flows sent", "shown", "received", "dropped", "peak RSS MB", "CPU s"), rows)


def measure(flows: int, rate: int, mode: list[str], engine: str) -> tuple[object, ...]:
    """Return a row: one run of `pktproc sniff` whose lines go to /dev/null."""
    with NamespacePair() as pair:
        dig_sink(pair.left)
        sniff = pktproc_command("sniff", *mode, "-n", "--engine", engine, "-i", pair.left.interface, "udp")
        with Measured(["sh", "-c", 'exec "$@" > /dev/null', "sh", *sniff], pair.left) as child:
            child.wait_for_talk("listening")
            sent = flood(pair.left, flows, rate, "--sources", SOURCES, "--ports", flows // SOURCES)["sent"]
            usage = child.interrupt()
            counts = [summarised(child, what) for what in ("shown", "received by filter", "dropped by kernel")]
    return mode[0] if mode else "text", sent, *counts, usage.peak_rss_bytes // 1_000_000, f"{usage.cpu_seconds:.1f}"


if __name__ == "__main__":
    main()
