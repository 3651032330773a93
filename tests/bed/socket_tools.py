"""What ss, lsof, netstat and psutil say of sockets, and `pktproc sockets`, all in the same form."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from bed.namespaces import Namespace
from bed.program import program_environment

LABELS = {
    "established": "ESTAB",
    "syn-sent": "SYN-SENT",
    "fin-wait-1": "FIN-WAIT-1",
    "fin-wait-2": "FIN-WAIT-2",
    "time-wait": "TIME-WAIT",
    "closed": "UNCONN",
    "unconnected": "UNCONN",
    "close-wait": "CLOSE-WAIT",
    "last-ack": "LAST-ACK",
    "listening": "LISTEN",
}
_HOLDER = re.compile(r"pid=(\d+),fd=(\d+)")
_UNIX = re.compile(r"(?P<local>.*?) +(?P<inode>\d+) +(?P<remote>.*?) +(?P<peer>\d+) *(?P<rest>users:.*)?", re.DOTALL)


class Line(NamedTuple):
    """A socket as ss shows it; `holders` are (pid, fd)."""

    kind: str
    state: str
    queues: tuple[int, int]
    local: str
    remote: str
    holders: frozenset[tuple[int, int]]


def pktproc_sockets(*words: object) -> list[str]:
    """Return the command line of `pktproc sockets`."""
    return [sys.executable, "-m", "pktproc", "sockets", *map(str, words)]


def run(command: Sequence[str], inside: Namespace | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in a namespace or here."""
    entered = command if inside is None else inside.enter(command)
    environment = program_environment()
    return subprocess.run(
        entered, capture_output=True, text=True, errors="surrogateescape", timeout=60, check=False, env=environment
    )


def objects(*words: object, inside: Namespace | None = None) -> list[dict[str, Any]]:
    """Return what `pktproc sockets --format json` lists; AssertionError when it fails, but for want of any."""
    done = run(pktproc_sockets("--format", "json", *words), inside)
    assert done.returncode in (0, 1), done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, list)
    assert found or "no" in done.stderr or done.returncode == 0
    return found


def ours(*words: object, inside: Namespace) -> list[Line]:
    """Return what `pktproc sockets --format csv` lists, in ss's form."""
    done = run(pktproc_sockets("--format", "csv", "-n", *words), inside)
    assert done.returncode == 0, done.stderr
    return [_of_csv(row) for row in csv.DictReader(io.StringIO(done.stdout))]


def _of_csv(row: dict[str, str]) -> Line:
    pids = [int(pid) for pid in row["pids"].split()]
    fds = [[int(fd) for fd in group.split(",")] for group in row["fds"].split(";") if group]
    holders = frozenset((pid, fd) for pid, group in zip(pids, fds, strict=True) for fd in group)
    separator = " " if row["netid"].startswith("u_") else ":"
    local, remote = (
        separator.join(part for part in (row[f"{end}_address"].removeprefix("'"), row[f"{end}_port"]) if part)
        for end in ("local", "remote")
    )
    queues = int(row["receive_queue"]), int(row["send_queue"])
    return Line(row["netid"], LABELS[row["state"]], queues, local, remote, holders)


def ss(*letters: str, inside: Namespace, kind: str = "", state: str = "ESTAB") -> list[Line]:
    """Return what `ss -n -p` lists; it leaves out what all have in common: `kind`, and `state`."""
    heading, *lines = inside.run("ss", "-n", "-p", *letters).split("\n")
    return [_of_ss(line, heading, kind, state) for line in lines if line.strip()]


def _of_ss(line: str, heading: str, kind: str, state: str) -> Line:
    rest = line
    if "Netid" in heading:
        kind, rest = rest.split(None, 1)
    if "State" in heading:
        state, rest = rest.split(None, 1)
    receiving, sending, rest = rest.split(None, 2)
    holders = frozenset((int(pid), int(fd)) for pid, fd in _HOLDER.findall(rest))
    if kind.startswith("u_") and (matched := _UNIX.match(rest)):
        local, remote = f"{matched['local']} {matched['inode']}", f"{matched['remote']} {matched['peer']}"
    else:
        local, remote = rest.split()[:2]
    return Line(kind, state, (int(receiving), int(sending)), local, remote, holders)


class Netstat(NamedTuple):
    """A socket as netstat shows it: one holder at most."""

    protocol: str
    queues: tuple[int, int]
    local: str
    remote: str
    state: str
    uid: int
    inode: int
    pid: int | None


def netstat(*letters: str, inside: Namespace) -> list[Netstat]:
    """Return what `netstat -neepW` lists of inet sockets."""
    found = []
    for line in inside.run("netstat", "-neepW", *letters).splitlines():
        words = line.split()
        if not words or not re.fullmatch(r"(tcp|udp|udpl|udplite|raw|icmp)6?", words[0]):
            continue
        protocol, receiving, sending, local, remote, *rest = words
        state = rest.pop(0) if rest[0].isupper() or not rest[0].isdecimal() or protocol.startswith("raw") else ""
        uid, inode, holder = rest[:3]
        pid = int(holder.partition("/")[0]) if holder != "-" else None
        found.append(Netstat(protocol, (int(receiving), int(sending)), local, remote, state, int(uid), int(inode), pid))
    return found


class Listed(NamedTuple):
    """A descriptor as lsof shows it."""

    pid: int
    fd: int
    protocol: str
    name: str
    state: str


def lsof(*letters: str, inside: Namespace) -> list[Listed]:
    """Return what `lsof -nP` lists."""
    found: list[Listed] = []
    pid = 0
    facts: dict[str, str] = {}

    def flush() -> None:
        if facts.get("f", "").isdecimal():
            name = facts.get("n", "")
            found.append(Listed(pid, int(facts["f"]), facts.get("P", ""), name, facts.get("TST", "")))

    for line in inside.run("lsof", "-nP", "-F", "pfPtnT", *letters).splitlines():
        tag, value = line[0], line[1:]
        if tag in "pf":
            flush()
            facts = {}
        if tag == "p":
            pid = int(value)
        elif tag == "T":
            key, _, word = value.partition("=")
            facts[f"T{key}"] = word
        else:
            facts[tag] = value
    flush()
    return found


PSUTIL = """
import json, psutil
print(json.dumps([[c.pid, c.fd, int(c.family), int(c.type), list(c.laddr), list(c.raddr), c.status]
                  for c in psutil.net_connections("inet")]))
"""


def psutil_connections(inside: Namespace) -> list[list[Any]]:
    """Return what psutil lists of inet sockets: pid, fd, family, type, both ends, state."""
    found = json.loads(inside.run(sys.executable, "-c", PSUTIL))
    assert isinstance(found, list)
    return found
