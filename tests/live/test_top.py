"""`pktproc top` as a user runs it: in a terminal, while real programs download."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shlex
import signal
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bed.namespaces import Namespace, NamespacePair
from bed.program import Command
from bed.sniff import pktproc_command
from live.test_record import epoch
from pktproc.bandwidth.ledger import LAG_NS
from tui.tmux import Tmux

pytestmark = pytest.mark.timeout(180)

# Sends without end and evenly: so many bytes a second, a hundredth of them at a time.
PACED = """
import socket, sys, time
address, port, rate = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
listener = socket.create_server((address, port))
print("ready", flush=True)
connection, _ = listener.accept()
connection.recv(65536)
connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 10000000000\\r\\n\\r\\n")
begin, sent = time.monotonic(), 0
while True:
    connection.sendall(bytes(rate // 100))
    sent += 1
    time.sleep(max(begin + sent / 100 - time.monotonic(), 0))
"""
PORTS = {"curl": 7811, "wget": 7812}
RATES = {"curl": 2_000_003, "wget": 500_009}
CLIENTS = {
    "curl": ["curl", "--silent", "--output", "/dev/null"],
    "wget": ["wget", "--quiet", "--output-document", "/dev/null"],
}
WINDOW_S = 6
TOLERANCE = 0.02
_RECORD = struct.Struct("<IIII")
_SI = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}


@contextmanager
def servers(right: Namespace) -> Iterator[None]:
    with (
        Command([sys.executable, "-c", PACED, right.v4, str(PORTS["curl"]), str(RATES["curl"])], right) as one,
        Command([sys.executable, "-c", PACED, right.v4, str(PORTS["wget"]), str(RATES["wget"])], right) as other,
    ):
        for server in (one, other):
            assert server.stdout.find(lambda line: line == "ready", 1, 20), server.describe()
        yield


@contextmanager
def downloads(left: Namespace, right: Namespace) -> Iterator[dict[str, int]]:
    with (
        Command([*CLIENTS["curl"], f"http://{right.v4}:{PORTS['curl']}/"], left) as curl,
        Command([*CLIENTS["wget"], f"http://{right.v4}:{PORTS['wget']}/"], left) as wget,
    ):
        yield {"curl": curl.pid, "wget": wget.pid}


@contextmanager
def tcpdump(left: Namespace, path: Path) -> Iterator[None]:
    command = ["tcpdump", "--immediate-mode", "-U", "-s", "96", "-i", left.interface, "-w", str(path), "tcp"]
    with Command(command, left) as child:
        assert child.stderr.find(lambda line: "listening" in line, 1, 20), child.describe()
        yield


def top_line(left: Namespace, *options: str) -> str:
    return shlex.join(pktproc_command("top", "--netns", left.name, "-i", left.interface, "--numeric", *options))


def received(path: Path, port: int, begin: float, end: float) -> int:
    """Bytes on the wire from a port within a time, by tcpdump's own capture of Ethernet, IPv4 and TCP."""
    deadline = time.monotonic() + 20
    while True:
        found = list(records(path.read_bytes()))
        if found and found[-1][0] >= end:
            return sum(size for time_s, source, size in found if source == port and begin <= time_s < end)
        assert time.monotonic() < deadline, "tcpdump does not keep up"
        time.sleep(0.05)


def records(data: bytes) -> Iterator[tuple[float, int, int]]:
    """Yield the time, the source port and the length of each whole packet of a capture file."""
    at = 24
    while at + _RECORD.size <= len(data):
        seconds, micros, kept, size = _RECORD.unpack_from(data, at)
        if at + _RECORD.size + kept > len(data):
            return
        (source,) = struct.unpack_from("!H", data, at + _RECORD.size + 34)
        yield seconds + micros / 1e6, source, size
        at += _RECORD.size + kept


def elapsed_s(terminal: Tmux) -> int:
    clock = next(word for word in terminal.lines[0].split() if word.count(":") == 2)
    hours, minutes, seconds = map(int, clock.split(":"))
    return hours * 3600 + minutes * 60 + seconds


def figure(terminal: Tmux, name: str, title: str) -> float:
    """Bytes in the column with a title of the line that begins with a name."""
    titles = next(line for line in terminal.lines if line.startswith("Name"))
    line = next(line for line in terminal.lines if line.startswith(name))
    end = titles.index(title) + len(title)
    number, unit = line[:end].split()[-2:]
    return float(number) * _SI[unit]


def wait_for_words(terminal: Tmux, *words: str) -> None:
    terminal.until(lambda: all(word in terminal.text for word in words))


def test_two_downloads_are_shown_at_once_with_the_right_rates(
    left: Namespace, right: Namespace, tmp_path: Path
) -> None:
    capture = tmp_path / "truth.pcap"
    with servers(right), Tmux(120, 30) as terminal, tcpdump(left, capture):
        terminal.enter(f"stty -a > {tmp_path}/before; {top_line(left, '--units', 'si')}; stty -a > {tmp_path}/after")
        terminal.until(lambda: "Captured" in terminal.text)
        with downloads(left, right) as pids:
            taken_s = terminal.until(lambda: all(terminal.row(name) for name in pids))
            assert taken_s < 2
            for name, pid in pids.items():
                assert terminal.row(name)[:3] == [name, str(pid), "root"]
            terminal.press("r")
            begin = time.time()
            terminal.until(lambda: elapsed_s(terminal) == 0)
            terminal.until(lambda: elapsed_s(terminal) >= WINDOW_S)
            terminal.press("p")
            terminal.until(lambda: "PAUSED" in terminal.text)
            for name, port in PORTS.items():
                truth = received(capture, port, begin + 0.5, begin + WINDOW_S - 0.5) / (WINDOW_S - 1)
                assert truth == pytest.approx(RATES[name], rel=0.1)
                assert figure(terminal, name, "Avg recv") == pytest.approx(truth, rel=TOLERANCE)
                assert figure(terminal, name, "Recv/s") == pytest.approx(truth, rel=TOLERANCE)
            terminal.press("p", "/", *"/usr/bin/curl", "Enter")
            terminal.until(lambda: re.search(r"^1 of \d+ lines", terminal.text, re.MULTILINE))
            terminal.press("Enter")
            terminal.until(lambda: f"curl[{pids['curl']}]" in terminal.text)
            page = terminal.until(lambda: "ESTABLISHED" in terminal.text)
            assert page < 2
            assert f"{right.v4}:{PORTS['curl']}" in terminal.text
            assert "command curl --silent" in terminal.text
        terminal.press("q")
        terminal.until(lambda: (tmp_path / "after").exists() and terminal.text.rstrip().endswith("ready>"))
    assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_terminal_is_restored_after_a_signal(left: Namespace, tmp_path: Path, number: signal.Signals) -> None:
    with Tmux() as terminal:
        terminal.enter(
            f"stty -a > {tmp_path}/before; sh -c 'echo $$ > {tmp_path}/pid; exec {top_line(left)}'; "
            f"echo exit $?; stty -a > {tmp_path}/after"
        )
        terminal.until(lambda: "no traffic so far" in terminal.text or "Captured" in terminal.text)
        os.kill(int((tmp_path / "pid").read_text()), number)
        terminal.until(lambda: "exit 0" in terminal.text and terminal.text.rstrip().endswith("ready>"))
    assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text()


def test_the_terminal_is_restored_after_a_failure(tmp_path: Path) -> None:
    with NamespacePair() as pair, Tmux() as terminal:
        terminal.enter(f"stty -a > {tmp_path}/before; {top_line(pair.left)}; echo exit $?; stty -a > {tmp_path}/after")
        terminal.until(lambda: "no traffic so far" in terminal.text or "Captured" in terminal.text)
        pair.left.run("ip", "link", "del", pair.left.interface)
        terminal.until(lambda: "exit 1" in terminal.text and terminal.text.rstrip().endswith("ready>"))
        assert f"pktproc: interface {pair.left.interface} disappeared" in terminal.lines
    assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text()


def test_batches_add_up(left: Namespace, right: Namespace) -> None:
    options = ["top", "--netns", left.name, "-i", left.interface, "--batch", "-n", "3", "-d", "0.5", "--format"]
    with servers(right), downloads(left, right) as pids, Command(pktproc_command(*options, "json")) as batch:
        assert batch.finish() == 0, batch.describe()
        views = [json.loads(line) for line in batch.stdout.so_far()]
    assert len(views) == 3
    for view in views:
        rows = view["rows"]
        moved = sum(row["sent_bytes"] + row["received_bytes"] - row.get("local_received_bytes", 0)
                    + row.get("passed_bytes", 0) for row in rows)  # fmt: skip
        assert moved == view["captured"]["bytes"] > 0
    named = {row["process"]["name"]: row for row in views[-1]["rows"] if "process" in row}
    for name, pid in pids.items():
        assert named[name]["process"]["pid"] == pid
        assert named[name]["received_bytes"] > 0.5 * RATES[name]


def test_rates_of_a_batch_are_of_what_came_since_the_view_before(
    left: Namespace, right: Namespace, tmp_path: Path
) -> None:
    """Views of a second each, against what tcpdump saw in just these seconds."""
    capture = tmp_path / "truth.pcap"
    options = ["top", "--netns", left.name, "-i", left.interface, "--batch", "-n", "3", "-d", "1", "--format", "json"]
    with servers(right), downloads(left, right), tcpdump(left, capture):
        with Command(pktproc_command(*options)) as batch:
            assert batch.finish() == 0, batch.describe()
        views = [json.loads(line) for line in batch.stdout.so_far()]
    ends = []
    for view in views:
        begin = epoch(view["@timestamp"]) - view["elapsed_s"]
        ends.append(int(view["elapsed_s"] - LAG_NS / 1e9))
        assert view["rate_s"] == 1
        named = {row["process"]["name"]: row for row in view["rows"] if "process" in row}
        for name, port in PORTS.items():
            truth = received(capture, port, begin + ends[-1] - 1, begin + ends[-1])
            # A packet of 10 ms more or less at either end: the beginning is told in milliseconds.
            assert named[name]["rate_per_second"]["received_bytes"] == pytest.approx(truth, rel=0.03)
    assert ends == [1, 2, 3]


def test_rates_follow_the_keys_that_change_how_often_is_looked(left: Namespace, right: Namespace) -> None:
    with servers(right), downloads(left, right), Tmux(120, 30) as terminal:
        terminal.enter(top_line(left, "--units", "si"))
        for key, seconds in (("", 1), ("+", 2), ("+", 5), ("-", 2), ("-", 1), ("-", 0.5)):
            if key:
                terminal.press(key)
            # No less than an interval, which is that of -d.
            wait_for_words(terminal, f"every {seconds:g} s", f"over {max(seconds, 1)} s")
            terminal.until(lambda: figure(terminal, "curl", "Recv/s") == pytest.approx(RATES["curl"], rel=0.05))
        terminal.press("q")


def test_batches_as_csv_have_one_header_and_the_time(left: Namespace, right: Namespace) -> None:
    options = ["top", "--netns", left.name, "-i", left.interface, "-bn2", "-d", "0.5", "--format", "csv"]
    with servers(right), downloads(left, right), Command(pktproc_command(*options, "--by", "program")) as batch:
        assert batch.finish() == 0, batch.describe()
    rows = list(csv.DictReader(io.StringIO("\n".join(batch.stdout.so_far()))))
    assert len({row["time"] for row in rows}) == 2
    assert {"curl", "wget"} <= {row["name"] for row in rows}


def test_ctrl_c_ends_a_batch_with_a_last_view(left: Namespace) -> None:
    with Command(pktproc_command("top", "--netns", left.name, "-i", "lo", "--batch", "-d", "60")) as batch:
        assert batch.stderr.find(lambda line: "listening" in line, 1, 20), batch.describe()
        batch.child.send_signal(signal.SIGINT)
        assert batch.finish() == 0, batch.describe()
        assert "0 packets" in "\n".join(batch.stdout.so_far())


def test_without_a_terminal_batch_is_recommended(left: Namespace) -> None:
    with Command(pktproc_command("top", "--netns", left.name, "-i", "lo")) as screen:
        assert screen.finish() == 2
        assert "--batch" in "\n".join(screen.stderr.so_far())
