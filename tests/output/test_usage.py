"""Usage reports: as tables of a width, as JSON, as CSV, drawn."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from output.usage_views import usage
from pktproc.output.amounts import Units, amount_text, rate_text
from pktproc.output.usage_export import csv_report, json_report
from pktproc.output.usage_table import UNLIMITED, table

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    import time  # noqa: PLC0415 - tzset is of no other use here

    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


@pytest.mark.parametrize(
    ("name", "keys", "width", "units"),
    [
        ("process-80", ["process"], 80, "iec"),
        ("process-160", ["process"], 160, "si"),
        ("user-remote-40", ["name", "remote"], 40, "bits"),
    ],
)
def test_tables_are_as_they_were(name: str, keys: list[str], width: int, units: Units) -> None:
    view, _ = usage(keys)
    found = table(view, width=width, units=units, curves=True)
    assert found == (GOLDEN / f"usage-{name}.txt").read_text()
    body = found.partition("\n\n")[0].splitlines()
    assert max(map(len, body)) <= width


def test_a_table_holds_no_escape_sequence_unless_it_is_for_a_terminal() -> None:
    view, _ = usage()
    assert "\x1b" not in table(view, width=UNLIMITED, units="iec")
    coloured = table(view, width=100, units="iec", colour=True)
    assert "\x1b[2m" in coloured
    assert "\x1b[31m" not in coloured


def test_rates_of_now_are_shown_where_they_are_wanted_and_told_to_programs() -> None:
    view, _ = usage()
    assert "Sent/s" not in table(view, width=UNLIMITED, units="iec")
    titles, _, first, *_ = table(view, width=UNLIMITED, units="si", rates=True).splitlines()
    assert titles.split()[:5] == ["Process", "Sent/s", "Recv/s", "Sent", "Received"]
    assert first.split()[1:5] == ["5.00", "MB", "54", "B"]  # the fifth second of curl
    narrow = table(view, width=40, units="si", rates=True)
    assert "Sent/s" not in narrow
    assert "Recv/s" not in narrow
    rows = list(csv.reader(io.StringIO(csv_report(view))))
    assert rows[0][-2:] == ["rate_sent_bytes_per_second", "rate_received_bytes_per_second"]
    assert rows[1][-2:] == ["5000015.000", "54.000"]


def test_the_rest_is_one_row_and_all_adds_up() -> None:
    view, series = usage(most=2)
    assert [row.key for row in view.rows][-1] == ("others",)
    lines = table(view, width=UNLIMITED, units="iec").splitlines()
    sent, received, local, passed = (
        sum(int(getattr(row.total, name)) for row in view.rows)
        for name in ("sent_bytes", "received_bytes", "local_received_bytes", "passed_bytes")
    )
    told = f"{sent:,} sent + {received:,} received - {local:,} counted at both ends + {passed:,} passed"
    assert lines[-1] == f"{view.captured.bytes:,} B = {told}"
    assert sum(sum(point[1:]) for point in series["others",]) == sum(int(view.rows[-1].total[at]) for at in (0, 1, 6))


def test_json_has_the_keys_of_the_contract() -> None:
    view, series = usage()
    rows: list[dict[str, Any]] = json.loads(json_report(view, series))
    curl = rows[0]
    assert curl["process"]["pid"] == 1001
    assert curl["process"]["name"] == "curl"
    assert curl["process"]["command_line"] == "curl -s 'http://10.77.0.2/a b'"
    assert (curl["sent_bytes"], curl["sent_packets"], curl["received_packets"]) == (15_000_045, 5, 5)
    assert curl["connections"] == 1
    assert curl["first_seen"] < curl["last_seen"]
    assert [point["sent_bytes"] for point in curl["series"]] == [1_000_003 * number for number in range(1, 6)]
    assert {row["reason"] for row in rows if "process" not in row} == {"no-socket", "not-ip"}
    assert not any("reason" in row for row in rows if "process" in row)
    assert "command_line" not in json_report(view, cmdline=False)
    assert "null" not in json_report(view, series)


@pytest.mark.parametrize("keys", [["user"], ["remote", "remote-port"], ["unit", "container"], ["connection"], ["exe"]])
def test_json_of_other_keys(keys: list[str]) -> None:
    view, _ = usage(keys)
    rows = json.loads(json_report(view))
    assert len(rows) == len(view.rows)
    named = {key for row in rows for key in row}
    assert set(keys) <= {name.replace("_", "-") for name in named}


def test_csv_cells_are_no_formulas() -> None:
    view, series = usage(["name", "remote-port"])
    rows = list(csv.reader(io.StringIO(csv_report(view))))
    header, lines = rows[0], rows[1:]
    assert header[:3] == ["name", "remote_port", "reason"]
    assert {len(line) for line in rows} == {len(header)}
    assert any(line[0].startswith("'=HYPERLINK") for line in lines)
    assert not any(cell.startswith(("=", "+", "-", "@")) for line in lines for cell in line)
    assert "\x1b" not in csv_report(view)
    points = list(csv.DictReader(io.StringIO(csv_report(view, series))))
    assert sum(int(point["sent_bytes"]) for point in points) == sum(row.total.sent_bytes for row in view.rows)


@pytest.mark.parametrize(
    ("size", "units", "text"),
    [(0, "iec", "0 B"), (999, "si", "999 B"), (1000, "si", "1.00 kB"), (1024, "iec", "1.00 KiB"),
     (1_270_000, "iec", "1.21 MiB"), (125, "bits", "1.00 kbit"), (10**30, "si", "1000000000000 EB")],
)  # fmt: skip
def test_amounts(size: int, units: Units, text: str) -> None:
    assert amount_text(size, units) == text
    assert rate_text(size, units) == f"{text}/s"


def test_plots_are_drawn_and_hold_what_they_need(tmp_path: Path) -> None:
    from pktproc.output import usage_plot  # noqa: PLC0415 - slow

    view, series = usage()
    for suffix, begin in ((".png", b"\x89PNG"), (".svg", b"<svg"), (".html", b"<!DOCTYPE html>")):
        path = tmp_path / f"plot{suffix}"
        usage_plot.draw(str(path), view, series)
        assert path.read_bytes().lstrip().startswith(begin)
    assert "curl[1001]" in (tmp_path / "plot.svg").read_text()
    html = (tmp_path / "plot.html").read_text()
    assert 'src="http' not in html
    assert "<link" not in html


def test_a_missing_library_is_said_before_anything_is_done() -> None:
    script = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "altair" else find(name, *rest)
from pktproc.cli import main
main(["summary", "--plot", "a.png", "--duration", "9"])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["pktproc: --plot needs Altair: pip install 'pktproc[plot]'"]
