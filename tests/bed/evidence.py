"""Evidence as a user gathers it: `pktproc record` and tcpdump beside running programs, `pktproc enrich` afterwards."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Self

from scapy.utils import PcapNgReader

from bed.namespaces import Namespace
from bed.program import TIMEOUT, Command
from bed.sniff import Captured, Packet, parse, pktproc_command

INTERVAL_S = 0.1


class Recorder(Command):
    """Run `pktproc record`; leaving the constructor means that the first look is over."""

    def __init__(self, store: Path, *arguments: object, interval_s: float = INTERVAL_S) -> None:
        self.store = store
        super().__init__(pktproc_command("record", "-o", store, "--interval", interval_s, *arguments))
        self._wait_until(lambda: bool(self.ask("SELECT count(*) FROM coverage")[0][0]), "recording")

    def ask(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """Return the rows of a query, asked through SQLite itself; none while there is no such table yet."""
        try:
            with closing(sqlite3.connect(f"file:{self.store}?mode=ro", uri=True)) as connection:
                return list(connection.execute(query, values))
        except sqlite3.OperationalError:
            return [(0,)]

    def saw(self, pid: int, port: int | None = None) -> Self:
        """Wait until a look has found a process with a socket (on a port), and return."""
        query = "SELECT count(*) FROM socket JOIN holder ON socket = socket.id JOIN process ON process = process.id"
        wanted = f"{query} WHERE pid = ? AND (? IS NULL OR local_port = ?)"
        self._wait_until(lambda: bool(self.ask(wanted, pid, port, port)[0][0]), f"socket of {pid}")
        return self

    def looked_again(self) -> Self:
        """Wait until a look has begun and ended from now on."""
        now_ns = time.time_ns()
        self._wait_until(lambda: int(str(self.ask("SELECT max(last) FROM coverage")[0][0])) > now_ns, "another look")
        return self

    def stop(self) -> str:
        """Interrupt as Ctrl-C does and return what was said; AssertionError unless that is a normal end."""
        self.child.send_signal(signal.SIGINT)
        assert self.finish() == 0, self.describe()
        return "\n".join(self.stderr.so_far())

    def _wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + TIMEOUT
        while not condition():
            if time.monotonic() > deadline or self.child.poll() is not None:
                self.close()
                raise AssertionError(f"no {what}: {self.describe()}")
            time.sleep(INTERVAL_S / 10)


class Dump(Command):
    """Run tcpdump into a file; leaving the constructor means that it captures."""

    def __init__(
        self, path: Path, on: Namespace, *expression: str, interface: str | None = None, room_kib: int = 1 << 16
    ) -> None:
        self.path = path
        name = interface or on.interface
        # Each packet takes as much room as the longest, and a machine that stands still must not cost one.
        options = ["-Z", "root", "-U", "-n", "-B", str(room_kib), "-i", name, "-w", str(path)]
        super().__init__(["tcpdump", "--immediate-mode", *options, *expression], on)
        if not self.stderr.find(lambda line: "listening on" in line, 1, TIMEOUT):
            self.close()
            raise AssertionError(f"tcpdump did not start: {self.describe()}")

    def stop(self) -> Path:
        """Interrupt tcpdump, wait for its end and return the file."""
        self.child.send_signal(signal.SIGINT)
        assert self.finish() == 0, self.describe()
        return self.path


def enrich(capture: Path, *arguments: object) -> Captured:
    """Run `pktproc enrich --json` on a file; AssertionError unless it succeeds."""
    done = pktproc("enrich", capture, "--json", *arguments)
    assert done.returncode == 0, done.stderr
    return Captured([parse(line) for line in done.stdout.splitlines()], done.stderr)


def pktproc(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run pktproc to its end."""
    return subprocess.run(pktproc_command(*arguments), capture_output=True, text=True, timeout=timeout, check=False)


def tshark(path: Path, *arguments: str) -> list[list[str]]:
    """Return the fields that tshark prints of each packet, tab-separated."""
    done = subprocess.run(["tshark", "-n", "-r", path, *arguments], capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


def packets_of(path: Path) -> list[Packet]:
    """Return the packets of a file as `pktproc sniff -r --json` tells them."""
    done = pktproc("sniff", "-r", path, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def pids_by_scapy(path: Path) -> list[int | None]:
    """Return the pid that scapy's own reader finds for each packet, None where there is none."""
    with PcapNgReader(str(path)) as reader:
        return [(packet.process_information or {}).get("proc", {}).get("id") for packet in reader]
