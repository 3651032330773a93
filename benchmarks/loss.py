"""Packets lost by `pktproc sniff`: a small flow picked out of a flood by a filter, and everything as text.

Truth is what the senders say they sent; beside it stands pktproc's own closing summary.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from bed.namespaces import Namespace, NamespacePair
from bed.program import Program
from bed.sniff import pktproc_command
from benchmarks.measuring import SINK, Measured, dig_sink, flood, print_table, summarised

SMALL_PORT = 999


def main() -> None:
    """Run both cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--filtered-rate", type=int, default=200_000)
    parser.add_argument("--text-rate", type=int, default=50_000)
    parser.add_argument("--json-rate", type=int, default=0, help="also everything as JSON at this rate")
    parser.add_argument("--small-rate", type=int, default=100)
    options = parser.parse_args()
    with NamespacePair() as pair:
        dig_sink(pair.left)
        rows = [
            filtered(pair.left, options.filtered_rate, options.small_rate, options.seconds),
            unfiltered(pair.left, [], options.text_rate, options.seconds),
        ]
        if options.json_rate:
            rows.append(unfiltered(pair.left, ["--json"], options.json_rate, options.seconds))
    print_table(("case", "sent/s", "sent", "shown", "received", "dropped", "CPU s"), rows)


def filtered(namespace: Namespace, rate: int, small_rate: int, seconds: float) -> tuple[object, ...]:
    """Pick a small flow out of the flood with `--json` and a filter."""
    small_count = int(small_rate * seconds)
    arguments = (SINK, SMALL_PORT, "--rate", small_rate, "--count", small_count, "--burst", 1)

    def load() -> int:
        with Program("udp_flood", *arguments, namespace=namespace).ready() as small:
            small.say()
            flood(namespace, int(rate * seconds), rate)
            (done,) = small.expect("done")
            return int(done["sent"])

    name = f"--json, filtered out of {rate}/s"
    return run(namespace, name, ["--json", f"udp port {SMALL_PORT}"], small_rate, load)


def unfiltered(namespace: Namespace, mode: list[str], rate: int, seconds: float) -> tuple[object, ...]:
    """Print every packet of the flood."""

    def load() -> int:
        return int(flood(namespace, int(rate * seconds), rate)["sent"])

    return run(namespace, f"{mode[0] if mode else 'text'}, unfiltered", [*mode, "-n", "udp"], rate, load)


def run(
    namespace: Namespace, name: str, arguments: list[str], rate: int, load: Callable[[], int]
) -> tuple[object, ...]:
    """Return a row: one run whose lines go to /dev/null."""
    sniff = pktproc_command("sniff", "-i", namespace.interface, *arguments)
    with Measured(["sh", "-c", 'exec "$@" > /dev/null', "sh", *sniff], namespace) as child:
        child.wait_for_talk("listening")
        sent = load()
        usage = child.interrupt()
        counts = [summarised(child, what) for what in ("shown", "received by filter", "dropped by kernel")]
    return name, rate, sent, *counts, f"{usage.cpu_seconds:.1f}"


if __name__ == "__main__":
    main()
