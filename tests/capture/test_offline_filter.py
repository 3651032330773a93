"""Filters on packets of files, against tcpdump's own choice from the same files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pktproc.capture.capture_file import open_capture
from pktproc.capture.offline_filter import OfflineFilter
from pktproc.errors import UsageError
from pktproc.packets.batch import PacketBatch

DIRECTORY = Path(__file__).parents[2] / "pcaps"
FILES = sorted(path.name for path in DIRECTORY.glob("*.pcap"))

EXPRESSIONS = ("tcp", "udp or icmp6", "ip6 and not icmp6", "vlan", "less 100", "host 10.77.0.1")


def read(name: str) -> PacketBatch:
    with open_capture(str(DIRECTORY / name)) as capture:
        (file_batch,) = capture
    return file_batch.batch


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_the_packets_that_match_are_those_that_tcpdump_keeps(name: str, expression: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept.pcap"
    command = ["tcpdump", "-r", str(DIRECTORY / name), "-w", str(kept), expression]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    batch = read(name)
    if done.returncode:
        with pytest.raises(UsageError, match="bad filter"):
            OfflineFilter(expression).rows(batch)
        return
    expected = subprocess.run(["tcpdump", "-r", kept, "--count"], capture_output=True, text=True, check=True).stdout
    assert f"{len(OfflineFilter(expression).rows(batch))} packet" in expected


def test_no_expression_takes_every_packet() -> None:
    batch = read("ethernet.pcap")
    assert OfflineFilter("").rows(batch).tolist() == list(range(len(batch)))


@pytest.mark.parametrize("expression", ["tcp and", "\udcff", "nonsense"])
def test_a_bad_expression_is_refused_before_any_packet(expression: str) -> None:
    with pytest.raises(UsageError, match="bad filter"):
        OfflineFilter(expression)
