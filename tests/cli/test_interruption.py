"""A run over a file that is told to stop, or that nobody reads any more, leaves whole packets and says so."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
from pathlib import Path

import pytest

from bed.evidence import packets_of
from bed.program import TIMEOUT, Command
from bed.sniff import pktproc_command
from bed.waiting import until

RECORDED = Path(__file__).parents[2] / "pcaps" / "recorded"
CAPTURE, STORE = RECORDED / "web4.pcap", RECORDED / "web4.db"
PACKETS = 99
FILE_HEADER_BYTES = 24
SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


def wait_until_written(path: Path) -> None:
    """Wait until a file has more than its headers."""
    until(lambda: path.exists() and path.stat().st_size > CAPTURE.stat().st_size)


def repeated(path: Path, times: int) -> Path:
    """Make a capture of the same packets again and again, larger than what is read at once."""
    data = CAPTURE.read_bytes()
    path.write_bytes(data[:FILE_HEADER_BYTES] + data[FILE_HEADER_BYTES:] * times)
    return path


@SIGNALS
def test_a_signal_while_a_pipe_brings_nothing_leaves_a_readable_file_that_is_said_to_be_partial(
    number: signal.Signals, tmp_path: Path
) -> None:
    output = tmp_path / "a.pcapng"
    with Command(pktproc_command("enrich", "-", "-s", STORE, "-o", output)) as enrich:
        enrich.stdin.write(CAPTURE.read_bytes() + struct.pack("<I", 0))  # and the beginning of a record
        enrich.stdin.flush()
        wait_until_written(output)
        enrich.child.send_signal(number)
        assert enrich.child.wait(TIMEOUT) == 1, enrich.describe()
        talk = enrich.stderr.to_the_end(TIMEOUT)
    assert talk[0] == f"{PACKETS} packets"
    assert talk[-1] == f"pktproc: told to stop: {output} is partial, it ends where reading did"
    assert len(packets_of(output)) == PACKETS


@SIGNALS
@pytest.mark.parametrize("command", [("enrich", "-", "-s", STORE), ("sniff", "-r", "-")])
def test_a_signal_while_packets_are_printed_is_a_normal_end(
    number: signal.Signals, command: tuple[object, ...]
) -> None:
    with Command(pktproc_command(*command)) as reading:
        reading.stdin.write(CAPTURE.read_bytes())
        reading.stdin.flush()
        assert reading.stdout.find(lambda _: True, PACKETS, TIMEOUT)
        reading.child.send_signal(number)
        assert reading.child.wait(TIMEOUT) == 0, reading.describe()
        talk = reading.stderr.to_the_end(TIMEOUT)
    assert talk[0] == f"{PACKETS} packets"
    assert talk[-1] == "pktproc: told to stop: these are not all packets of -"


def test_a_signal_in_the_middle_of_much_output_leaves_whole_lines(tmp_path: Path) -> None:
    source = repeated(tmp_path / "big.pcap", 1000)
    with Command(pktproc_command("enrich", source, "-s", STORE, "-n")) as enrich:
        assert enrich.stdout.find(lambda _: True, 1000, TIMEOUT)
        enrich.child.send_signal(signal.SIGTERM)
        assert enrich.child.wait(TIMEOUT) == 0, enrich.describe()
        lines, talk = enrich.stdout.to_the_end(TIMEOUT), enrich.stderr.to_the_end(TIMEOUT)
    assert talk[0] == f"{len(lines)} packets"
    assert len(lines) < 1000 * PACKETS
    assert re.search(r"length \d+$", lines[-1])


def test_a_reader_of_what_is_printed_that_leaves_ends_the_file_too_which_is_said(tmp_path: Path) -> None:
    source, output = repeated(tmp_path / "big.pcap", 700), tmp_path / "a.pcapng"
    reading, writing = os.pipe()
    os.close(reading)
    command = pktproc_command("enrich", source, "-s", STORE, "-o", output, "--print")
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(writing)
    lines = done.stderr.splitlines()
    assert done.returncode == 1
    assert lines[-1].startswith(f"pktproc: nobody reads what is printed any more: {output} is partial")
    (written,) = re.findall(r"^(\d+) packets$", done.stderr, re.MULTILINE)
    count = subprocess.run(
        ["tshark", "-r", output, "-T", "fields", "-e", "frame.number"], capture_output=True, text=True, check=True
    )
    assert 0 < len(count.stdout.splitlines()) == int(written) < 700 * PACKETS


@pytest.mark.parametrize("options", [[], ["-o", "-"]])
def test_a_reader_that_has_had_enough_is_a_quiet_normal_end(options: list[str], tmp_path: Path) -> None:
    source = repeated(tmp_path / "big.pcap", 100)
    command = [*pktproc_command("enrich", source, "-s", STORE, *options), "|", "head", "-c", "100"]
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", " ".join(command)], capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr, len(done.stdout)) == (0, b"", 100)
