"""`pktproc sniff -w`: files that other programs read, with the processes of live packets; -r shows them again."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bed.evidence import packets_of, pids_by_scapy, pktproc, tshark
from bed.namespaces import Namespace
from bed.program import TIMEOUT, Command, Program
from bed.sniff import pktproc_command
from bed.verdict import End, fully_named
from bed.waiting import until

DATAGRAMS = 20


class Writer(Command):
    """Run `pktproc sniff -w`; leaving the constructor means that the capture is running."""

    def __init__(self, output: Path | str, on: Namespace, *arguments: object) -> None:
        where = ("--netns", on.name, "-i", on.interface)
        super().__init__(pktproc_command("sniff", "-w", output, *where, *arguments))
        if not self.stderr.find(lambda line: "listening" in line, 1, TIMEOUT):
            self.close()
            raise AssertionError(f"the capture did not start: {self.describe()}")

    def stop(self) -> str:
        """Interrupt as Ctrl-C does and return what was said; AssertionError unless that is a normal end."""
        self.child.send_signal(signal.SIGINT)
        assert self.finish() == 0, self.describe()
        return "\n".join(self.stderr.so_far())


@contextmanager
def exchange(left: Namespace, right: Namespace, count: int = DATAGRAMS) -> Iterator[dict[End, int | None]]:
    """Send datagrams and take their echoes; yield who uses the client's end, while it still does."""
    with (
        Program("udp_server", right.v4, 7300, namespace=right).ready(),
        Program("udp_client", right.v4, 7300, "--count", count, namespace=left) as client,
    ):
        (done,) = client.expect("done")
        yield {("udp", *done["local"]): client.pid}


def wait_for_packets(path: Path, count: int) -> None:
    """Wait until a file has so many packets; AssertionError when it has not in time."""
    read = ["tcpdump", "-nr", str(path)]
    until(
        lambda: len(subprocess.run(read, capture_output=True, check=False).stdout.splitlines()) >= count,
        lambda: f"fewer than {count} packets in {path}",
    )


def test_what_is_written_can_be_read_by_all(left: Namespace, right: Namespace, tmp_path: Path) -> None:
    path = tmp_path / "live.pcapng"
    with Writer(path, left, "udp port 7300") as writer:
        with exchange(left, right) as truth:
            wait_for_packets(path, 2 * DATAGRAMS)
        talk = writer.stop()
    assert f"{2 * DATAGRAMS} packets shown" in talk
    assert writer.stdout.so_far() == []
    (pid,) = truth.values()
    comments = [row[0] for row in tshark(path, "-T", "fields", "-e", "frame.comment")]
    assert len(comments) == 2 * DATAGRAMS
    assert all(re.search(rf"\.pid={pid}\b", comment) for comment in comments), comments[0]
    assert {tuple(row) for row in tshark(path, "-T", "fields", "-e", "frame.interface_name")} == {(left.interface,)}
    sent = [row[0] == left.v4 for row in tshark(path, "-T", "fields", "-e", "ip.src")]
    assert {found for found, is_sent in zip(pids_by_scapy(path), sent, strict=True) if is_sent} == {pid}
    for command in (["capinfos"], ["tcpdump", "-nr"]):
        done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=True)
        assert "rror" not in done.stderr
    verdict = fully_named(packets_of(path), truth)
    assert verdict.total == 2 * DATAGRAMS


def test_a_file_is_filtered_and_shown_again_as_text(left: Namespace, right: Namespace, tmp_path: Path) -> None:
    path = tmp_path / "live.pcapng"
    with Writer(path, left, "udp port 7300") as writer:
        with exchange(left, right) as truth:
            wait_for_packets(path, 2 * DATAGRAMS)
        writer.stop()
    ((_, _, port),) = truth
    (pid,) = truth.values()
    shown = pktproc("sniff", "-r", path, "-n", f"udp src port {port}")
    lines = shown.stdout.splitlines()
    assert len(lines) == DATAGRAMS
    assert all(re.search(rf" {left.v4}\.{port} python\S*\[{pid}\] > {right.v4}\.7300", line) for line in lines), lines[
        0
    ]
    by_pid = pktproc("sniff", "-r", path, "-n", "--pid", pid)
    assert len(by_pid.stdout.splitlines()) == 2 * DATAGRAMS
    assert pktproc("sniff", "-r", path, "--pid", 1).stdout == ""


def test_standard_output_takes_the_file(left: Namespace, right: Namespace, tmp_path: Path) -> None:
    path = tmp_path / "piped.pcapng"
    command = pktproc_command("sniff", "-w", "-", "--netns", left.name, "-i", left.interface, "-c", 4, "udp port 7300")
    with path.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, text=True) as sniff:
        assert sniff.stderr
        while "listening" not in sniff.stderr.readline():
            assert sniff.poll() is None
        with exchange(left, right):
            assert sniff.wait(TIMEOUT) == 0
    assert len(tshark(path)) == 4


def test_print_shows_what_is_written_too(left: Namespace, right: Namespace, tmp_path: Path) -> None:
    path = tmp_path / "live.pcapng"
    with Writer(path, left, "--print", "-n", "udp port 7300") as writer:
        with exchange(left, right):
            wait_for_packets(path, 2 * DATAGRAMS)
        writer.stop()
    assert len(writer.stdout.so_far()) == len(tshark(path)) == 2 * DATAGRAMS


def test_files_follow_each_other_by_size(left: Namespace, right: Namespace, tmp_path: Path) -> None:
    with Writer(tmp_path / "ring", left, "-C", "4k", "-W", 3, "--print", "-n", "udp port 7300") as writer:
        with exchange(left, right, 100):
            assert writer.stdout.find(lambda line: "UDP" in line, 200, TIMEOUT)
        writer.stop()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["ring0", "ring1", "ring2"]
    for name in files:
        rows = tshark(tmp_path / name, "-T", "fields", "-e", "frame.comment")
        assert rows
        assert all("name=python" in comment for (comment,) in rows), rows[0]


def test_nothing_captured_is_a_file_all_the_same(left: Namespace, tmp_path: Path) -> None:
    path = tmp_path / "empty.pcapng"
    with Writer(path, left, "tcp port 1") as writer:
        writer.stop()
    assert tshark(path) == []
    subprocess.run(["tcpdump", "-nr", path], check=True, capture_output=True)


def test_a_kill_leaves_whole_packets(left: Namespace, right: Namespace, tmp_path: Path) -> None:
    path = tmp_path / "killed.pcapng"
    with Writer(path, left, "--print", "udp port 7300") as writer:
        with exchange(left, right):
            assert writer.stdout.find(lambda line: "UDP" in line, 2 * DATAGRAMS, TIMEOUT)
        writer.child.kill()
        writer.child.wait()
    assert len(tshark(path)) == 2 * DATAGRAMS


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-w", "-", "--print"), "standard output is taken"),
        (("-w", "-", "--json"), "standard output is taken"),
        (("-W", 3), "-W says how many files"),
        (("-C", "1m"), "-w FILE"),
        (("-w", "x", "-C", "much"), "-C much"),
        (("-w", "x", "--annotate", "colour"), "--annotate colour"),
        (("-r", "x", "-i", "lo"), "leave -i out"),
        (("-r", "x", "--", "true"), "leave the command after -- out"),
        (("-r", "x", "-w", "x"), "is the file that is read"),
    ],
)
def test_what_does_not_go_together_is_refused_in_a_line(
    arguments: tuple[object, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_bytes(b"")
    done = pktproc("sniff", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_full_disk_is_one_line(left: Namespace, right: Namespace) -> None:
    with Writer("/dev/full", left, "udp port 7300") as writer, exchange(left, right):
        assert writer.finish() == 1
    talk = [line for line in writer.stderr.so_far() if "space" in line.lower()]
    assert len(talk) == 1, writer.describe()
    assert "Traceback" not in "\n".join(writer.stderr.so_far())
