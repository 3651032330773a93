"""`pktproc summary`: what is a file and what a filter, what does not go together, and files counted to the byte."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

import pktproc
from bed.evidence import pktproc as run
from bed.evidence import tshark
from pktproc.attribution.engine import Addresses
from pktproc.errors import UsageError
from pktproc.model import pack_address
from snapshots.bench import HOME, OURS, THEIRS, Bench, at

USAGE = 2


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Some packets of two connections, cut to their heads."""
    path = tmp_path / "a.pcap"
    packets = [
        Ether() / IP(src="10.77.0.1", dst="10.77.0.2") / TCP(sport=1000 + number % 2, dport=80) / bytes(number)
        for number in range(100)
    ]
    packets += [Ether() / IP(src="10.77.0.2", dst="10.77.0.1") / UDP(sport=53, dport=9) / bytes(50)]
    for number, packet in enumerate(packets):
        packet.time = 1_790_000_000 + number / 10
    wrpcap(str(path), packets, snaplen=60)
    return path


def test_a_file_without_names_adds_up(capture: Path) -> None:
    whole = sum(int(row[0]) for row in tshark(capture, "-T", "fields", "-e", "frame.len"))
    done = run("summary", capture, "--format", "json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["reason"], row["passed_bytes"], row["passed_packets"]) == ("not-covered", whole, 101)
    assert row["connections"] == 3
    assert "101 packets counted" in done.stderr
    assert "the file carries no processes: name its packets by a store (-s)" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("layer", "field"), [("wire", "frame.len"), ("ip", "ip.len"), ("payload", "tcp.len"), ("payload", "udp.length")]
)
def test_layers_are_as_tshark_has_them(capture: Path, layer: str, field: str) -> None:
    protocol = field.partition(".")[0]
    expression = protocol if protocol in ("tcp", "udp") else "ip"
    rows = tshark(capture, "-Y", expression, "-T", "fields", "-e", field)
    header_bytes = 8 if protocol == "udp" else 0
    view = pktproc.summary(capture, filter=expression, layer=layer)
    assert view.captured.bytes == sum(int(row[0]) - header_bytes for row in rows)


def test_a_filter_follows_the_file(capture: Path) -> None:
    done = run("summary", capture, "udp", "port", "53", "--format", "csv")
    assert done.returncode == 0, done.stderr
    assert "1 packet counted" in done.stderr


def test_standard_input(capture: Path) -> None:
    command = [sys.executable, "-m", "pktproc", "summary", "-", "tcp"]
    done = subprocess.run(command, input=capture.read_bytes(), capture_output=True, check=True, timeout=60)
    assert b"100 packets counted" in done.stderr


def test_a_broken_file_is_counted_to_its_last_whole_packet(capture: Path) -> None:
    capture.write_bytes(capture.read_bytes()[:-10])
    done = run("summary", capture)
    assert done.returncode == 1
    assert "100 packets" in done.stdout
    assert str(capture) in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-i", "lo", "a.pcap"], "-i captures, a.pcap is a file"),
        (["--duration", "1", "-"], "--duration captures, - is a file"),
        (["--engine", "procfs", "x/a"], "--engine captures, x/a is a file"),
        (["-s", "day.db"], "give the FILE"),
        (["--skew", "1"], "--skew is for the packets of a FILE"),
        (["--skew", "1", "tcp"], "tcp: no such file"),
        (["--by", "colour"], "'colour' is no key"),
        (["--by", ","], "no key is given"),
        (["--by", "cmdline", "--no-cmdline"], "choose one of them"),
        (["--plot", "a.gif"], "end it with one of .png, .svg, .html"),
        (["--duration", "soon"], "is not a time"),
        (["--user", "nobody-of-this-name"], "no user"),
        (["--interval", "1ms"], "too short"),
    ],
)
def test_what_does_not_go_together_is_said_in_one_line(arguments: list[str], said: str) -> None:
    done = run("summary", *arguments)
    assert (done.returncode, done.stdout) == (USAGE, "")
    (line,) = done.stderr.splitlines()
    assert said in line


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = run("summary", tmp_path / "no.pcap")
    assert done.returncode == 1
    assert "no.pcap" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_plot_does_not_overwrite_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"a capture, by chance")
    done = run("summary", path, "--plot", path)
    assert done.returncode == USAGE
    assert path.read_bytes() == b"a capture, by chance"


def test_a_table_is_cut_to_the_columns_of_the_environment(capture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    done = run("summary", capture, "--by", "connection")
    table = done.stdout.partition("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 40
    assert "…" in table


def test_the_function_and_its_refusals(capture: Path) -> None:
    view = pktproc.summary(capture, by="protocol")
    assert {row.key for row in view.rows} == {("tcp",), ("udp",)}
    with pytest.raises(UsageError, match="duration"):
        pktproc.summary()
    with pytest.raises(UsageError, match="cannot group by"):
        pktproc.summary(capture, by="colour")
    with pytest.raises(UsageError, match="no layer"):
        pktproc.summary(capture, layer="link")


def test_a_summary_of_annotated_packets_adds_up_as_well() -> None:
    annotated = next(Path(__file__).parents[2].joinpath("pcaps").rglob("*.pcapng"), None)
    assert annotated is not None
    view = pktproc.summary(annotated)
    assert view.captured.packets > 0
    sums = [sum(values) for values in zip(*(row.total for row in view.rows), strict=True)]
    assert sums[0] + sums[1] - sums[5] + sums[6] == view.captured.bytes


def test_units_are_known_of_a_file_by_what_was_recorded(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "day.db")
    bench.host.spaces[HOME] = Addresses(local=frozenset([pack_address(OURS)]))
    for port, unit in ((40000, "web.service"), (40001, "session-1.scope"), (40002, None)):
        process = bench.host.start(f"program{port}")
        bench.connect(bench.host.become(replace(process, unit=unit)), port=port)
    bench.recorder.look()
    bench.look()
    bench.end()
    packets = [
        Ether() / IP(src=OURS, dst=THEIRS) / TCP(sport=port, dport=80, flags="PA") / bytes(size)
        for port, size in ((40000, 100), (40001, 200), (40002, 400))
    ]
    for packet in packets:
        packet.time = at(0.5) / 1e9
    wrpcap(str(tmp_path / "a.pcap"), packets)
    done = run("summary", tmp_path / "a.pcap", "-s", bench.path, "--by", "unit", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert "carries no processes" not in done.stderr
    sent = {row.get("unit"): row["sent_bytes"] for row in json.loads(done.stdout)}
    assert sent == {"web.service": 154, "session-1.scope": 254, None: 454}
