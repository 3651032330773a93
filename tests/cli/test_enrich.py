"""`pktproc enrich` with wrong input: a line that says what to do, the right exit code, and nothing destroyed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bed.evidence import pktproc
from bed.sniff import pktproc_command

RECORDED = Path(__file__).parents[2] / "pcaps" / "recorded"
CAPTURE, STORE = RECORDED / "web4.pcap", RECORDED / "web4.db"


def test_the_evidence_is_never_written_over(tmp_path: Path) -> None:
    store = tmp_path / "day.db"
    shutil.copy(STORE, store)
    done = pktproc("enrich", CAPTURE, "-s", store, "-o", store)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is the file that is read" in done.stderr
    assert store.read_bytes() == STORE.read_bytes()


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
