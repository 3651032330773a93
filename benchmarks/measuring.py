"""Children whose CPU time and memory are taken from the kernel's account of them, and the load that they face."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bed.namespaces import Namespace
from bed.program import TIMEOUT, Command, Event, Program

SINK = "10.77.200.1"
"""An address whose frames the peer's kernel drops for their link address: load without any receiver's cost."""
SINK_PORT = 1000
FRAME_BYTES = 60


class Usage(NamedTuple):
    """What a child cost: user and system CPU time in seconds, peak resident size in bytes."""

    cpu_seconds: float
    peak_rss_bytes: int


class Measured(Command):
    """Run a command and read its resource usage from wait4(2) at its end."""

    def interrupt(self) -> Usage:
        """End the command as Ctrl-C does and return what it cost."""
        self.child.send_signal(signal.SIGINT)
        return self.reap()

    def reap(self) -> Usage:
        """Wait for the command's end and return what it cost; RuntimeError when it failed."""
        _, status, usage = os.wait4(self.pid, 0)
        self.child.returncode = os.waitstatus_to_exitcode(status)
        self.stdout.to_the_end(TIMEOUT)
        self.stderr.to_the_end(TIMEOUT)
        if self.child.returncode:
            raise RuntimeError(self.describe())
        return Usage(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)

    def wait_for_talk(self, word: str) -> None:
        """Wait until a line on either output contains the word, in any case."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline and self.child.poll() is None:
            lines = (*self.stderr.so_far(), *self.stdout.so_far())
            if any(word in line.lower() for line in lines):
                return
            time.sleep(0.01)
        raise RuntimeError(f"never said {word!r}: {self.describe()}")


def summarised(child: Measured, what: str) -> int:
    """Return the number that pktproc's closing summary gives, as in `12 packets dropped by kernel`."""
    (count,) = re.findall(rf"(\d+) packets {what}", "\n".join(child.stderr.so_far()))
    return int(count)


def dig_sink(namespace: Namespace) -> None:
    """Make `SINK` reachable from the namespace: packets leave its veth and are dropped unread by the other end."""
    entry = ("lladdr", "02:77:00:00:00:99", "dev", namespace.interface, "nud", "permanent")
    namespace.run("ip", "neigh", "replace", SINK, *entry)


def flood(namespace: Namespace, count: int, rate: int, *options: object) -> Event:
    """Send `count` datagrams to `SINK` at a rate and return what the sender says about it."""
    arguments = (SINK, SINK_PORT, "--count", count, "--rate", rate, *options)
    with Program("udp_flood", *arguments, namespace=namespace).ready() as sender:
        sender.say()
        (done,) = sender.expect("done", timeout=600)
        return done


def cost_under(
    command: Sequence[str],
    namespace: Namespace,
    listening: str,
    load: Callable[[], None],
    settle: Callable[[Measured], None],
) -> tuple[Usage, Measured]:
    """Return what a capturing command cost from its start to its end around a load, and the ended child.

    `settle` waits, after the load, until the command has dealt with it.
    """
    with Measured(command, namespace) as child:
        child.wait_for_talk(listening)
        load()
        settle(child)
        return child.interrupt(), child


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    print(f"| {' | '.join(header)} |")
    print("|" + "---|" * len(header))
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |")
