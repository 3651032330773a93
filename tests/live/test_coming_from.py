"""Each row of docs/coming-from.md, tried: the old command and the new one say the same of the same sockets."""

from __future__ import annotations

import csv
import io
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pktproc
from bed.namespaces import Namespace, NamespacePair
from bed.program import Command, Program
from bed.socket_tools import run

PAGE = Path(pktproc.__file__).parent.parent / "docs" / "coming-from.md"
WAIT_S = 10.0
ROWS = re.findall(r"^\| `([^`]+)` \| `(pktproc sockets[^`]*)` \|", PAGE.read_text(), re.MULTILINE)
ACTS = {"fuser -k", "ss -K", "ss -E", "watch"}
_SS_HOLDER = re.compile(r"pid=(\d+),fd=(\d+)")
_INODE = re.compile(r"ino:(\d+)|(?<= )(\d{4,})(?= |$)")


@pytest.fixture(scope="module")
def host(pair: NamespacePair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with Program("all_kinds", tmp_path_factory.mktemp("host"), namespace=pair.left).ready() as program:
        yield program


def words(text: str, program: Program, space: Namespace) -> list[str]:
    """Return a command line as it is meant here; pktproc is the one under test."""
    filled = [{"PID": str(program.pid), "NAME": space.name}.get(word, word) for word in shlex.split(text)]
    return [sys.executable, "-m", *filled] if filled[0] == "pktproc" else filled


def theirs(command: list[str], output: str, pid: int) -> set[tuple[int, int]] | set[int]:
    """Return (pid, fd), or pids alone, of what an old command names; only of the program that the test started."""
    if command[0] == "ss" or "ss" in command[:5]:
        return {(int(found), int(fd)) for found, fd in _SS_HOLDER.findall(output) if int(found) == pid}
    if command[0] == "lsof":
        lines = [line.split() for line in output.splitlines()]
        return {(pid, int(line[3].rstrip("urw"))) for line in lines if line[1] == str(pid) and line[3][0].isdecimal()}
    pids = {int(found) for found in re.findall(r"(\d+)/", output)} or {int(found) for found in output.split()}
    return pids & {pid}


def ours(output: str, pid: int) -> set[tuple[int, int]]:
    rows = list(csv.DictReader(io.StringIO(output)))
    held = [(row["pids"].split(), row["fds"].split(";")) for row in rows]
    return {
        (pid, int(fd))
        for pids, groups in held
        for holder, fds in zip(pids, groups, strict=False)
        if int(holder) == pid
        for fd in fds.split(",")
    }


def test_the_page_has_its_rows() -> None:
    assert len(ROWS) >= 25
    assert len(ROWS) == PAGE.read_text().count("| `pktproc sockets")


@pytest.mark.parametrize(("old", "new"), [row for row in ROWS if not any(row[0].startswith(act) for act in ACTS)])
def test_what_looks_names_the_same_processes_and_descriptors(
    host: Program, left: Namespace, old: str, new: str
) -> None:
    inside = None if "NAME" in new else left
    before, after = words(old, host, left), words(new, host, left)
    if "ss" in before and "p" not in "".join(word for word in before if word.startswith("-")):
        before.insert(before.index("ss") + 1, "-p")
    expected_output = run(before, inside).stdout
    done = run([*after, "--format", "csv"] if "-s" not in after else after, inside)
    assert done.returncode == 0, done.stderr
    if "-s" in after:
        totals = dict(re.findall(r"^(TCP|UDP|RAW)\s+(\d+)", expected_output, re.MULTILINE))
        assert f"\nudp {totals['UDP']:>9} " in done.stdout.replace("udp    ", "udp ") or totals["UDP"] in done.stdout
        return
    expected, found = theirs(before, expected_output, host.pid), ours(done.stdout, host.pid)
    assert expected, expected_output
    if all(isinstance(one, int) for one in expected):
        assert {pid for pid, _ in found} == expected
        return
    extra = found - {one for one in expected if isinstance(one, tuple)}
    assert expected <= found
    if "--pid" not in after:
        assert not extra


@pytest.mark.parametrize("row", [row for row in ROWS if row[0].startswith("fuser -k")], ids=lambda row: row[0])
def test_what_kills_ends_the_same_process(host: Program, left: Namespace, row: tuple[str, str]) -> None:
    ends = []
    for command in row:
        with Program("tcp_server", "127.0.0.1", 7450, namespace=left).ready() as server:
            done = run(words(command, host, left), left)
            assert done.returncode == 0, done.stderr
            ends.append(server.child.wait(WAIT_S))
    assert ends[0] == ends[1] in (-signal.SIGTERM, -signal.SIGKILL)


@pytest.mark.parametrize("row", [row for row in ROWS if row[0].startswith("ss -K")], ids=lambda row: row[0])
def test_what_closes_closes_the_same_socket(host: Program, left: Namespace, row: tuple[str, str]) -> None:
    for command in row:
        with (
            Program("tcp_server", "127.0.0.1", 7453, namespace=left).ready(),
            Program("tcp_client", "127.0.0.1", 7453, namespace=left).ready() as client,
        ):
            client.expect("done")
            done = run(words(command, host, left), left)
            assert done.returncode == 0, done.stderr
            assert run(["ss", "-Htn", "state", "established", "dport", "=", ":7453"], left).stdout == ""


@pytest.mark.parametrize("row", [row for row in ROWS if row[0].startswith("watch")], ids=lambda row: row[0])
def test_what_goes_on_shows_a_socket_when_it_is_there(host: Program, left: Namespace, row: tuple[str, str]) -> None:
    with (
        Command([*words(row[1], host, left), "-n"], left) as after,
        Program("tcp_server", "127.0.0.1", 7459, namespace=left).ready() as server,
    ):
        assert after.stdout.find(lambda line: ":7459 " in line and f"[{server.pid}]" in line, 1, WAIT_S)


@pytest.mark.parametrize("row", [row for row in ROWS if row[0] == "ss -E"], ids=lambda row: row[0])
def test_what_tells_of_ends_tells_of_the_same_one(host: Program, left: Namespace, row: tuple[str, str]) -> None:
    old, new = (words(command, host, left) for command in row)
    with Command([*new, "-n"], left) as after, Command(["stdbuf", "-oL", *old, "-n"], left) as before:
        assert after.stderr.find(lambda line: "watching" in line, 1, WAIT_S)
        with Program("tcp_server", "127.0.0.1", 7460, namespace=left).ready() as server:
            assert after.stdout.find(lambda line: ":7460 " in line and " opened " in line, 1, WAIT_S)
        assert before.stdout.find(lambda line: ":7460" in line, 1, WAIT_S)
        closed = f"[{server.pid}] fd"
        assert after.stdout.find(lambda line: ":7460 " in line and " closed " in line and closed in line, 1, WAIT_S)
