"""The life of a capture, compressed: millions of connections through one run, its memory and what it could not keep.

`pktproc summary` counts them on loopback of a namespace of its own; the resident size is read from /proc meanwhile.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import time
from collections import Counter
from pathlib import Path

from bed.namespaces import NamespacePair
from bed.program import Program
from bed.sniff import pktproc_command
from benchmarks.measuring import Measured

LOOK_S = 10.0


def main() -> None:
    """Make the connections, and print how much memory is in use meanwhile and what was counted in the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=2_000_000)
    parser.add_argument("--rate", type=int, default=5_000)
    parser.add_argument("--engine", default="ebpf")
    options = parser.parse_args()
    load = ("--count", options.connections, "--rate", options.rate)
    with NamespacePair() as pair, Program("connections", *load, namespace=pair.left) as program:
        (ready,) = program.expect("ready")
        command = pktproc_command("summary", "--format", "json", "--engine", options.engine, "-i", "lo")
        with Measured([*command, f"tcp port {ready['port']} and tcp[tcpflags] & tcp-syn != 0"], pair.left) as run:
            run.wait_for_talk("listening")
            program.say()
            begin = time.monotonic()
            print("seconds, resident MB:", flush=True)
            while not program.events("done") and program.child.poll() is None:
                print(f"{time.monotonic() - begin:.0f}, {resident_bytes(run.pid) >> 20}", flush=True)
                time.sleep(LOOK_S)
            run.child.send_signal(signal.SIGINT)
            usage = run.reap()
    rows = json.loads("\n".join(run.stdout.so_far()))
    talk = "\n".join(run.stderr.so_far())
    packets: Counter[str] = Counter()
    for row in rows:
        pid = row.get("process", {}).get("pid")
        packets["unknown" if pid is None else "right" if pid == program.pid else "wrong"] += row["sent_packets"]
    counts = ", ".join(f"{packets[verdict]} {verdict}" for verdict in ("right", "unknown", "wrong"))
    print(f"\n{packets.total()} packets counted of {2 * options.connections}: {counts}")
    print(f"CPU s: {usage.cpu_seconds:.0f}\n\n{talk}")


def resident_bytes(pid: int) -> int:
    """Return how much memory a process has in use (proc(5), VmRSS)."""
    (kilobytes,) = re.findall(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kilobytes) * 1024


if __name__ == "__main__":
    main()
