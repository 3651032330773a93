"""Captures through the extcap: by tshark, and by a reader of its fifo that looks closer."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import pytest

from bed.namespaces import Namespace
from bed.program import TIMEOUT, Command, Program
from bed.sniff import pktproc_command
from wireshark.conftest import PORT, Talk
from wireshark.tshark import environment, fields, frames, tshark

pytestmark = pytest.mark.live

FINE, FAILED, USAGE, MISSING = 0, 1, 2, 3
SECTION_HEADER = bytes.fromhex("0a0d0d0a")
BARE_ROOT = ("setpriv", "--inh-caps=-all", "--bounding-set=-all")


def capture_command(fifo: Path, *arguments: object, interface: str = "pktproc-lo") -> list[str]:
    """Return the command line that Wireshark writes to capture."""
    return pktproc_command("--capture", "--extcap-interface", interface, "--fifo", fifo, *arguments)


class Captured:
    """Capture into a fifo as Wireshark does and keep what arrives in a file, `path`.

    A context manager that ends the capture when it is left.
    """

    def __init__(self, folder: Path, namespace: Namespace, *arguments: object, prefix: Sequence[str] = ()) -> None:
        self.path = folder / "captured.pcapng"
        self._fifo = folder / "fifo"
        os.mkfifo(self._fifo, 0o600)
        self._size = 0
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.extcap = Command([*prefix, *capture_command(self._fifo, *arguments)], namespace)

    def _read(self) -> None:
        with self._fifo.open("rb", buffering=0) as stream, self.path.open("wb", buffering=0) as file:
            while data := stream.read(1 << 16):
                file.write(data)
                with self._condition:
                    self._size += len(data)
                    self._condition.notify_all()

    def wait_for(self, size: int) -> None:
        """Wait until this many bytes have arrived."""
        with self._condition:
            assert self._condition.wait_for(lambda: self._size >= size, TIMEOUT), self.extcap.describe()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the capture as Wireshark does; AssertionError unless that is a normal end and a quiet one."""
        self.extcap.child.send_signal(number)
        assert self.ended() == (FINE, [])

    def ended(self) -> tuple[int, list[str]]:
        """Wait for the end of the capture and of the fifo; return exit code and standard error."""
        code = self.extcap.finish()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive(), "the fifo has no end"
        assert self.extcap.stdout.so_far() == []
        return code, self.extcap.stderr.so_far()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.extcap.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with pktproc installed for Wireshark."""
    folder = tmp_path / "home"
    command = pktproc_command("wireshark", "--install")
    subprocess.run(command, env=environment(folder), check=True, capture_output=True, timeout=60)
    return folder


def test_tshark_captures_with_names(home: Path, talk: Talk, tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    command = ["tshark", "-q", "-i", "pktproc-lo", "-f", f"udp port {PORT}", "-c", "20", "-w", str(path)]
    with Command(command, talk.namespace, environment(home)) as shark:
        assert shark.finish() == 0, shark.describe()
    pattern = (
        rf"pktproc src\.pid={talk.talker} src\.name=talker src\.match=(exact|bound) "
        rf'dst\.pid={talk.listener} dst\.name="the listener" dst\.match=(exact|bound) '
        r"(by=(ebpf|netlink)|src\.by=ebpf dst\.by=netlink)"
    )
    comments = [told["frame.comment"] for told in fields(home, path, "frame.comment", lua=None)]
    assert len(comments) == 20
    assert all(len(one) == 1 and re.fullmatch(pattern, one[0]) for one in comments)
    assert frames(home, path, f'pktproc.dst.name == "the listener" && udp.dstport == {PORT}', lua=None) == [
        *range(1, 21)
    ]


@pytest.mark.parametrize("interface", ["pktproc-lo", "pktproc-any"])
def test_tshark_shows_names_while_it_captures(home: Path, talk: Talk, interface: str) -> None:
    shown = ("-T", "fields", "-e", "pktproc.src.name", "-e", "pktproc.dst.pid", "-e", "frame.interface_name")
    command = ["tshark", "-l", "-i", interface, "-c", "5", "-Y", f"udp.port == {PORT}", *shown]
    with Command(command, talk.namespace, environment(home)) as shark:
        assert shark.finish() == 0, shark.describe()
        lines = shark.stdout.so_far()
    assert lines
    assert {tuple(line.split("\t")) for line in lines} == {("talker", str(talk.listener), "lo")}


def test_tshark_tells_why_it_cannot_capture(home: Path, left: Namespace) -> None:
    command = [*BARE_ROOT, "tshark", "-i", "pktproc-lo", "-c", "1"]
    with Command(command, left, environment(home)) as shark:
        assert shark.finish() != 0, shark.describe()
        talk = "\n".join(shark.stderr.so_far())
    assert "pktproc: capturing packets needs CAP_NET_RAW" in talk
    assert "Traceback" not in talk


def test_the_section_header_comes_at_once(left: Namespace, tmp_path: Path) -> None:
    with Captured(tmp_path, left) as captured:
        captured.wait_for(28)
        captured.stop()
    assert captured.path.read_bytes().startswith(SECTION_HEADER)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_whole_file(talk: Talk, tmp_path: Path, number: int) -> None:
    with Captured(tmp_path, talk.namespace) as captured:
        captured.wait_for(20_000)
        captured.stop(number)
    told = subprocess.run(["capinfos", "-M", captured.path], capture_output=True, text=True, check=True, timeout=60)
    (packets,) = re.findall(r"Number of packets: +(\d+)", told.stdout)
    assert int(packets) > 10
    assert "cut short" not in told.stdout + told.stderr


def test_it_ends_when_nobody_reads_any_more(left: Namespace, tmp_path: Path) -> None:
    """Also with no packet to write, which is how it would notice otherwise."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with Command(capture_command(fifo, "--extcap-capture-filter", "port 9"), left) as extcap:
        reader = os.open(fifo, os.O_RDONLY)
        assert os.read(reader, 4) == SECTION_HEADER
        os.close(reader)
        assert (extcap.finish(), extcap.stderr.so_far()) == (FINE, [])


def test_it_ends_when_the_reader_leaves_a_full_fifo(talk: Talk, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with Command(capture_command(fifo), talk.namespace) as extcap:
        reader = os.open(fifo, os.O_RDONLY)
        assert os.read(reader, 4) == SECTION_HEADER
        wait_until_stuck(extcap.pid)
        os.close(reader)
        assert (extcap.finish(), extcap.stderr.so_far()) == (FINE, [])


def wait_until_stuck(pid: int) -> None:
    """Wait until a process waits for room in a pipe."""
    place = Path(f"/proc/{pid}/wchan")
    for _ in range(int(TIMEOUT / 0.01)):
        if "pipe" in place.read_text():
            return
        threading.Event().wait(0.01)
    raise AssertionError(f"{pid} never waited for the reader: {place.read_text()}")


@pytest.fixture
def others(talk: Talk) -> Iterator[int]:
    """Another talker, `python`'s, on the same loopback; its pid."""
    flood = ("127.0.0.1", PORT + 1, "--rate", 500, "--burst", 1, "--count", 10**9)
    with Program("udp_flood", *flood, namespace=talk.namespace) as program:
        program.ready().say()
        yield program.pid


@pytest.mark.parametrize(
    "chosen",
    [
        ("--pid", "{talker}"),
        ("--pid", "1, {talker}"),
        ("--name", "talker"),
        ("--name", "nosuch, the list*"),
        ("--user", "root", "--name", "talker"),
        ("--name", "talker", "--user", "0,nobody"),
    ],
    ids=" ".join,
)
def test_only_packets_of_the_chosen_processes(talk: Talk, others: int, tmp_path: Path, chosen: tuple[str, ...]) -> None:
    words = [word.format(talker=talk.talker) for word in chosen]
    with Captured(tmp_path, talk.namespace, *words) as captured:
        captured.wait_for(20_000)
        captured.stop()
    found = fields(tmp_path, captured.path, "pktproc.src.pid", "udp.dstport")
    assert len(found) > 10
    assert {(layers["pktproc.src.pid"][0], layers["udp.dstport"][0]) for layers in found} == {
        (str(talk.talker), str(PORT))
    }
    assert talk.talker != others


def test_nobodys_packets_are_not_captured(talk: Talk, tmp_path: Path) -> None:
    with Captured(tmp_path, talk.namespace, "--user", "nobody") as captured:
        captured.wait_for(28)
        captured.stop()
    assert tshark(tmp_path, "-r", captured.path) == ""


def test_packets_are_cut_to_the_snapshot_length(talk: Talk, tmp_path: Path) -> None:
    with Captured(tmp_path, talk.namespace, "--snaplen", "60", "--promiscuous", "false") as captured:
        captured.wait_for(10_000)
        captured.stop()
    found = fields(tmp_path, captured.path, "frame.cap_len", "frame.len")
    assert {(layers["frame.cap_len"][0], layers["frame.len"][0]) for layers in found} == {("60", "242")}


@pytest.mark.parametrize(("options", "kept"), [((), True), (("--no-cmdline",), False)])
def test_command_lines_are_left_out_on_request(
    talk: Talk, tmp_path: Path, options: tuple[str, ...], kept: bool
) -> None:
    with Captured(tmp_path, talk.namespace, *options) as captured:
        captured.wait_for(20_000)
        captured.stop()
    assert (b"bed.programs.udp_flood" in captured.path.read_bytes()) == kept


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--extcap-capture-filter", "tcp prot"), "tcp prot"),
        (("--snaplen", "0"), "snapshot length"),
        (("--snaplen", "many"), "snapshot length"),
        (("--pid", "1;2"), "process id"),
        (("--pid", "9" * 5000), "process id"),
        (("--user", "no-such-user"), "no-such-user"),
        (("--engine", "nosuch"), "nosuch"),
        (("--extcap-interface", "pktproc-nosuch0"), "nosuch0"),
        (("--extcap-interface", "lo"), "lo"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, tuple) else None,
)
def test_what_is_wrong_is_one_line_and_the_end_of_the_fifo(
    left: Namespace, tmp_path: Path, arguments: tuple[str, ...], named: str
) -> None:
    with Captured(tmp_path, left, *arguments) as captured:
        code, talk = captured.ended()
    assert code == USAGE, talk
    (line,) = talk
    assert line.startswith("pktproc: ")
    assert named in line
    assert captured.path.read_bytes() == b""


def test_without_privilege_one_line_says_the_cures(left: Namespace, tmp_path: Path) -> None:
    with Captured(tmp_path, left, prefix=BARE_ROOT) as captured:
        code, talk = captured.ended()
    assert code == MISSING
    (line,) = talk
    assert "CAP_NET_RAW" in line
    assert "sudo pktproc sniff -i lo -w - | wireshark -k -i -" in line


def test_arguments_of_a_newer_wireshark_do_no_harm(left: Namespace, tmp_path: Path) -> None:
    with Captured(tmp_path, left, "--extcap-control-in", "/nonexistent", "--nosuch=1") as captured:
        captured.wait_for(28)
        captured.stop()


@pytest.mark.parametrize("target", ["file", "link", "folder"])
def test_nothing_but_a_fifo_is_written_to(left: Namespace, tmp_path: Path, target: str) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "folder").mkdir()
    with Command(capture_command(tmp_path / target), left) as extcap:
        assert extcap.finish() in (FAILED, USAGE)
        (line,) = extcap.stderr.so_far()
    assert str(tmp_path / target) in line
    assert file.read_text() == "precious"


def test_a_fifo_that_is_gone_is_one_line(left: Namespace, tmp_path: Path) -> None:
    with Command(capture_command(tmp_path / "nosuch"), left) as extcap:
        assert extcap.finish() == FAILED
        assert extcap.stderr.so_far() == [f"pktproc: {tmp_path / 'nosuch'}: No such file or directory"]
