"""Files that are not there, or are no such files: one line says what, which and what to do, whatever the command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bed.evidence import pktproc

FAILED, USAGE = 1, 2
RECORDED = Path(__file__).parents[2] / "pcaps" / "recorded"
CAPTURE, STORE = RECORDED / "dns.pcap", RECORDED / "dns.db"

CAPTURE_READERS = pytest.mark.parametrize(
    "command", [("summary",), ("sniff", "-r"), ("enrich", "-s", STORE)], ids=["summary", "sniff", "enrich"]
)
STORE_READERS = pytest.mark.parametrize(
    "command",
    [("summary", CAPTURE, "-s"), ("enrich", CAPTURE, "-s"), ("who", ":53", "-s")],
    ids=["summary", "enrich", "who"],
)


def refusal(*arguments: object, code: int = FAILED) -> str:
    """Return the one line that a command says when it fails."""
    done = pktproc(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    return line


@CAPTURE_READERS
def test_a_capture_that_is_not_there(command: Sequence[object], tmp_path: Path) -> None:
    path = tmp_path / "no.pcap"
    assert refusal(*command, path) == (
        f"pktproc: cannot open {path}: No such file or directory; check the name and the folder"
    )


@CAPTURE_READERS
def test_a_folder_in_place_of_a_capture(command: Sequence[object], tmp_path: Path) -> None:
    assert refusal(*command, f"{tmp_path}/") == (
        f"pktproc: cannot open {tmp_path}/: Is a directory; give a capture file in it"
    )


@CAPTURE_READERS
@pytest.mark.parametrize(("content", "told"), [(b"", " (it is empty)"), (b"root:x:0:0", "")], ids=["empty", "text"])
def test_a_file_that_is_no_capture(command: Sequence[object], content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(content)
    cure = "give one in pcap or pcapng, as tcpdump, Wireshark and pktproc write"
    assert refusal(*command, path) == f"pktproc: {path}: not a capture file{told}; {cure}"


@STORE_READERS
def test_a_store_that_is_not_there_or_none(command: Sequence[object], tmp_path: Path) -> None:
    path = tmp_path / "no.db"
    assert refusal(*command, path).startswith(f"pktproc: {path}: No such file or directory; pktproc record and ")
    path.write_text("none\n" * 1000)
    assert refusal(*command, path) == (
        f"pktproc: {path} is not a snapshot store; pktproc record and pktproc snapshot make stores"
    )


def test_a_plot_that_could_not_be_written_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    plot = tmp_path / "missing" / "a.svg"
    line = refusal("summary", CAPTURE, "--plot", plot, code=USAGE)
    assert line == f"pktproc: --plot {plot}: there is no folder {plot.parent}, make it first"
