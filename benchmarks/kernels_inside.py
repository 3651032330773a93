"""What `benchmarks.kernels` runs in each of its machines: which hooks are on, and storms, in packets and in sockets."""

from __future__ import annotations

import argparse
import json
import platform
import re
import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import bed.program
import bed.sniff
from bed.namespaces import Namespace, NamespacePair
from bed.program import Command, Program
from bed.sniff import Sniff, pktproc_command
from bed.verdict import judge, judge_processes
from benchmarks.measuring import print_table
from kernel.ebpf.exact_bed import ExactProgram
from pktproc.errors import EngineError
from pktproc.kernel.ebpf.examination import examine_hooks

BEGIN, END = "-- begin of the findings --", "-- end of the findings --"
FAILED = "failed:"
PORT = 7000
PATIENCE_S = 240.0
ACTIONS = ("opened", "closed")
EVENTS = {"TCP": ("tcp", ()), "TCP, refused": ("tcp", ("--refused",)), "UDP": ("udp", ("--udp",))}
LOCKDOWN = Path("/sys/kernel/security/lockdown")
_DROPPED = re.compile(r"(\d+) packets? dropped by kernel")


def main() -> None:
    """Print the findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--commands", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    bed.program.TIMEOUT = PATIENCE_S
    bed.sniff.TIMEOUT = PATIENCE_S  # type: ignore[attr-defined] # which it took from there
    print(BEGIN)
    try:
        print(f"Linux {platform.release()}\n")
        for finding in examine_hooks():
            print(f"- {finding.what}: {finding.state}, {finding.detail}")
        print()
        if options.commands:
            commands()
            return
        with NamespacePair() as pair:
            rows = [
                (transport, parallel, *storm(pair.left, pair.right, transport, parallel, options.count))
                for transport in ("tcp", "udp")
                for parallel in (1, 32)
            ]
            ends = ("right", "unknown", "wrong", "server right", "server unknown", "server wrong", "packets dropped")
            print_table(("storm", "at a time", *ends), rows)
            print()
            events = [(name, *told_events(pair.left, pair.right, name, options.count)) for name in EVENTS]
        print_table(("sockets --events", "right", "unknown", "wrong"), events)
    except (AssertionError, EngineError, OSError) as error:
        print(f"{FAILED} {error}")
    finally:
        print(END)


def commands() -> None:
    """Print how a short capture ends with the engine `ebpf`, and with the one that is chosen."""
    print(f"lockdown: {LOCKDOWN.read_text().strip() if LOCKDOWN.exists() else 'not in this kernel'}\n")
    for engine in ("ebpf", "auto"):
        command = pktproc_command("sniff", "-i", "lo", "--engine", engine, "--duration", "1")
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        print(f"--engine {engine}: exit code {done.returncode}\n{done.stderr}")


def storm(left: Namespace, right: Namespace, transport: str, parallel: int, count: int) -> tuple[int, ...]:
    """Return how many processes, and how many ends of packets at the server, were right, unknown and wrong.

    Last comes how many packets the kernel dropped, as it does on a slow machine: some processes are then not seen.
    """
    kind = ["--udp"] if transport == "udp" else []
    crowd = (right.v4, PORT, "--count", count, "--parallel", parallel, "--port", 20000, *kind)
    with (
        Program(f"{transport}_server", right.v4, PORT, namespace=right).ready() as server,
        Sniff("--engine", "ebpf", f"{transport} port {PORT}", on=(left, right)) as sniff,
        ExactProgram("crowd", *crowd, namespace=left).ready() as program,
    ):
        program.say()
        program.expect("done", timeout=300)
        truth = {(transport, left.v4, child["port"]): child["child"] for child in program.events("child")}
        packets, talk = sniff.stop()
    (dropped,) = _DROPPED.findall(talk)
    clients = judge_processes(packets, truth)
    if clients.unknown or clients.wrong:
        print(f"{transport}, {parallel} at a time: {clients}\n")
    ends = judge(packets, {(transport, right.v4, PORT): server.pid})
    return (
        clients.right,
        clients.unknown.total(),
        clients.wrong,
        ends.right + ends.shared,
        ends.unknown.total(),
        ends.wrong,
        int(dropped),
    )


def told_events(left: Namespace, right: Namespace, name: str, count: int) -> tuple[int, int, int]:
    """Return how often `sockets --events` tells that a process's socket opened or closed, with it, none, or another."""
    transport, words = EVENTS[name]
    with ExitStack() as opened:
        if "--refused" not in words:
            opened.enter_context(Program(f"{transport}_server", right.v4, PORT, namespace=right).ready())
        command = pktproc_command("sockets", "-n", "--events", "--engine", "ebpf", f"--{transport}", "--format", "json")
        heard = opened.enter_context(Command(command, left))
        assert heard.stderr.find(lambda line: "watching" in line, 1, PATIENCE_S), heard.describe()
        crowd = (right.v4, PORT, "--count", count, "--port", 20000, *words)
        program = opened.enter_context(ExactProgram("crowd", *crowd, namespace=left).ready())
        program.say()
        program.expect("done", timeout=300)
        truth = {child["port"]: child["child"] for child in program.events("child")}
        assert heard.stdout.find(lambda line: "socket-closed" in line, count, PATIENCE_S), heard.describe()
        heard.child.send_signal(signal.SIGINT)
        assert heard.finish(PATIENCE_S) == 0, heard.describe()
        events = [json.loads(line) for line in heard.stdout.so_far()]
    told = {(event["local"].get("port"), event["event"]["action"]): event.get("process", {}) for event in events}
    pids = [(told.get((port, f"socket-{what}"), {}).get("pid"), pid) for port, pid in truth.items() for what in ACTIONS]
    named = sum(found == pid for found, pid in pids)
    unknown = sum(found is None for found, _ in pids)
    return named, unknown, len(pids) - named - unknown


if __name__ == "__main__":
    main()
