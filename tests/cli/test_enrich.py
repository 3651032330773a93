"""`pktproc enrich` with wrong input: a line that says what to do, the right exit code, and nothing destroyed."""

from __future__ import annotations

import re
import shutil
import sqlite3
import struct
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from bed.evidence import pktproc
from bed.sniff import pktproc_command
from pktproc.enrichment import enrich
from pktproc.errors import UsageError

RECORDED = Path(__file__).parents[2] / "pcaps" / "recorded"
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]
CAPTURE, STORE = RECORDED / "web4.pcap", RECORDED / "web4.db"


def test_the_evidence_is_never_written_over(tmp_path: Path) -> None:
    store = tmp_path / "day.db"
    shutil.copy(STORE, store)
    done = pktproc("enrich", CAPTURE, "-s", store, "-o", store)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is the file that is read" in done.stderr
    assert store.read_bytes() == STORE.read_bytes()


def test_python_never_writes_over_what_it_reads_either(tmp_path: Path) -> None:
    store, link = tmp_path / "day.db", tmp_path / "link.pcapng"
    shutil.copy(STORE, store)
    link.symlink_to(store)
    for output in (store, link):
        with pytest.raises(UsageError, match="is the file that is read"):
            enrich(CAPTURE, store, output)
    assert store.read_bytes() == STORE.read_bytes()


@pytest.mark.parametrize(("source", "output"), [("-", "same.pcap"), ("same.pcap", "-")])
def test_a_redirection_is_the_same_file_too(tmp_path: Path, source: str, output: str) -> None:
    path = tmp_path / "same.pcap"
    shutil.copy(CAPTURE, path)
    with path.open("rb") as read, path.open("ab") as written:
        done = subprocess.run(
            pktproc_command("enrich", source, "-s", STORE, "-o", output),
            stdin=read, stdout=written, stderr=subprocess.PIPE, cwd=tmp_path, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, path.read_bytes()) == (2, CAPTURE.read_bytes()), done.stderr


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """Return a folder of root's that others may look into."""
    for above in (tmp_path, *tmp_path.parents):
        if above != above.parent and str(above).startswith("/tmp/"):
            above.chmod(above.stat().st_mode | 0o055)
    return tmp_path


@pytest.mark.live
@pytest.mark.parametrize("hidden", [CAPTURE, STORE])
def test_what_may_not_be_read_is_a_missing_privilege_with_its_cure(open_folder: Path, hidden: Path) -> None:
    for path in (CAPTURE, STORE):
        shutil.copy(path, open_folder)
        (open_folder / path.name).chmod(0o600 if path == hidden else 0o644)
    path = open_folder / hidden.name
    commands: list[tuple[object, ...]] = [("enrich", open_folder / CAPTURE.name, "-s", open_folder / STORE.name)]
    commands += [("who", ":80", "-s", path), ("record", "-o", path)] if hidden == STORE else [("sniff", "-r", path)]
    for command in commands:
        done = subprocess.run([*NOBODY, *pktproc_command(*command)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr == f"pktproc: {path}: permission denied; it belongs to root: run as root (sudo)\n"


@pytest.mark.live
def test_where_nothing_may_be_written_is_a_missing_privilege(open_folder: Path) -> None:
    for path in (CAPTURE, STORE):
        shutil.copy(path, open_folder)
        (open_folder / path.name).chmod(0o644)
    read = (open_folder / CAPTURE.name, "-s", open_folder / STORE.name)
    for command in (("enrich", *read, "-o", open_folder / "new"), ("snapshot", "-o", open_folder / "new")):
        done = subprocess.run([*NOBODY, *pktproc_command(*command)], capture_output=True, text=True, check=False)
        assert done.returncode == 3
        cure = f"{open_folder} belongs to root: run as root (sudo)"
        assert done.stderr == f"pktproc: {open_folder / 'new'}: permission denied; {cure}\n"


@pytest.mark.parametrize("command", ["record", "snapshot"])
def test_a_store_is_no_stream(command: str, tmp_path: Path) -> None:
    done = subprocess.run(
        pktproc_command(command, "-o", "-"), capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert list(tmp_path.iterdir()) == []


def moved(path: Path, seconds: int) -> Path:
    """Make the capture anew with other times."""
    data = bytearray(CAPTURE.read_bytes())
    at = 24
    while at < len(data):
        time_s, _, captured, _ = struct.unpack_from("<4I", data, at)
        struct.pack_into("<I", data, at, time_s + seconds)
        at += 16 + captured
    path.write_bytes(data)
    return path


def range_of(store: Path) -> str:
    with closing(sqlite3.connect(store)) as reader:
        ((first, last),) = reader.execute("SELECT min(first), max(last) FROM coverage")
    return " to ".join(time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(ns // 10**9)) for ns in (first, last))


@pytest.mark.parametrize(
    ("seconds", "options", "cure"),
    [
        (-7200, [], "; if a clock was set to another time zone, try --skew 7200"),
        (1000, [], "; if their clocks are apart, say by how much with --skew"),
        (0, ["--skew", "5000"], "; leave --skew out"),
    ],
)
def test_packets_of_another_time_than_the_store_s_are_told_with_both_times(
    tmp_path: Path, seconds: int, options: list[str], cure: str
) -> None:
    done = pktproc("enrich", moved(tmp_path / "a.pcap", seconds), "-s", wide(tmp_path / "wide.db"), *options)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("pktproc: ")]
    assert done.returncode == 0
    assert line.startswith("pktproc: none of the packets are of a time that was recorded: they are of 20")
    assert line.endswith(f", the store covers {range_of(tmp_path / 'wide.db')}{cure}")


def wide(path: Path) -> Path:
    """Make a store that covers a minute before and behind its evidence."""
    shutil.copy(STORE, path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE coverage SET first = first - 60000000000, last = last + 60000000000")
    return path


def test_nothing_is_said_of_times_that_were_recorded() -> None:
    assert "pktproc:" not in pktproc("enrich", CAPTURE, "-s", STORE).stderr
    half = pktproc("enrich", CAPTURE, "-s", RECORDED / "dns.db", "-s", STORE).stderr
    assert "pktproc:" not in half


def test_an_interface_without_a_name_has_none_invented() -> None:
    line = pktproc("enrich", CAPTURE, "-s", STORE, "-n", "-c", "1").stdout
    assert re.match(r"\d\d:\d\d:\d\d\.\d{6} (IP|ARP)", line)
    assert "observer" not in pktproc("enrich", CAPTURE, "-s", STORE, "--json", "-c", "1").stdout


@pytest.mark.parametrize("option", ["--skew", "--tolerance"])
@pytest.mark.parametrize("value", ["nan", "inf", "1e30", "-1e30", "soon"])
def test_a_number_that_is_no_time_is_refused(option: str, value: str) -> None:
    done = pktproc("enrich", CAPTURE, "-s", STORE, option, value)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def test_a_closed_standard_output_is_one_line() -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *pktproc_command("enrich", CAPTURE, "-s", STORE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "standard output is closed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("capture", "store"), [("/nowhere", STORE), (CAPTURE, "/nowhere"), (STORE, STORE)])
def test_what_cannot_be_read_is_named(capture: Path, store: Path) -> None:
    done = pktproc("enrich", capture, "-s", store)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
