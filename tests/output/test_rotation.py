"""Files one after another: names as tcpdump gives them, no packet lost or twice, each file whole in itself."""

from __future__ import annotations

import struct
import subprocess
import time
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP

from output.attributed_packets import BY_CURL, attributed, ethernet, rows, write_pcap
from output.other_tools import accept, fields
from pktproc.capture.capture_file import open_capture
from pktproc.errors import UsageError
from pktproc.output.pcapng import PcapngWriter
from pktproc.output.rotation import RotatingFile, Rotation, parse_size

COUNT = 40
PAYLOAD = 150_000
"""Bytes of a packet's payload, so that `-C 1`, the least that tcpdump takes, is reached after seven packets."""


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now_s: float = 1_790_000_000.9) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def big_packets(count: int) -> list[bytes]:
    """Frames that say in their source port which one they are; nobody checks an IP length of 0, as offload has it."""
    head = ethernet(*(IP(src="10.77.0.1", dst="10.77.0.2") / UDP(sport=1 + number) for number in range(count)))
    return [one + bytes(PAYLOAD) for one in head]


def ports(path: Path) -> list[int]:
    with open_capture(str(path)) as capture:
        return [
            struct.unpack_from(">H", batch.batch.packet(row), 34)[0]
            for batch in capture
            for row in range(len(batch.batch))
        ]


def by_size(folder: Path, rotation: Rotation, count: int = COUNT) -> dict[str, list[int]]:
    """Write packets with a rotation; return which are in each file."""
    file = RotatingFile(str(folder / "a.pcapng"), rotation)
    writer = PcapngWriter(file)
    block = attributed(big_packets(count), (BY_CURL, None))
    assert writer.write(block, rows(block)) == count
    file.close()
    return {path.name: ports(path) for path in sorted(folder.iterdir())}


def tcpdump_names(folder: Path, *options: str, count: int = COUNT) -> set[str]:
    """Let tcpdump write the same packets with its options and return the names of its files."""
    pcap = write_pcap(folder.with_name("in.pcap"), attributed(big_packets(count)))
    command = ["tcpdump", "-Z", "root", "-r", str(pcap), "-w", str(folder / "a.pcapng"), *options]
    subprocess.run(command, check=True, capture_output=True)
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("files", [None, 1, 2, 3, 10, 11, 100])
def test_files_by_size_are_named_like_tcpdumps(tmp_path: Path, files: int | None) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    written = by_size(ours, Rotation(file_bytes=1_000_000, files=files))
    options = ("-C", "1") if files is None else ("-C", "1", "-W", str(files))
    assert set(written) == tcpdump_names(theirs, *options)
    if files is None or files > 6:
        assert sorted(port for found in written.values() for port in found) == list(range(1, COUNT + 1))


def test_a_file_ends_before_the_first_packet_that_finds_it_too_large(tmp_path: Path) -> None:
    written = by_size(tmp_path, Rotation(file_bytes=1_000_000), 20)
    assert written == {
        "a.pcapng": [*range(1, 8)],
        "a.pcapng1": [*range(8, 15)],
        "a.pcapng2": [*range(15, 21)],
    }


def test_a_ring_overwrites_its_oldest_file(tmp_path: Path) -> None:
    written = by_size(tmp_path, Rotation(file_bytes=1_000_000, files=2), 20)
    assert written == {"a.pcapng0": [*range(15, 21)], "a.pcapng1": [*range(8, 15)]}


def test_each_file_is_whole_in_itself(tmp_path: Path) -> None:
    by_size(tmp_path, Rotation(file_bytes=1_000_000), 20)
    for path in sorted(tmp_path.glob("a.pcapng*")):
        accept(path)
        assert {comment for (comment,) in fields(path, "frame.comment")} == {
            "pktproc src.pid=4711 src.name=curl src.match=exact by=netlink"
        }
        assert b"/usr/bin/curl" in path.read_bytes()


def test_files_by_time_are_named_by_it_and_writing_ends_after_the_last(tmp_path: Path) -> None:
    clock = Clock()
    file = RotatingFile(str(tmp_path / "a-%Y%m%d-%H%M%S.pcapng"), Rotation(seconds=60, files=3), clock)
    writer = PcapngWriter(file)
    block = attributed(ethernet(IP() / UDP()))
    began, names, counts = clock.now_s, [], []
    for step_s in (0, 59, 1, 61, 58, 1, 1, 500):
        clock.now_s += step_s
        finished = file.finished
        counts.append(writer.write(block, rows(block)))
        assert finished is (counts[-1] == 0)
        names.append(Path(file.path).name)
    assert counts == [1, 1, 1, 1, 1, 1, 0, 0]
    starts = [began + after_s for after_s in (0, 0, 60, 121, 121, 121, 121, 121)]
    assert names == [time.strftime("a-%Y%m%d-%H%M%S.pcapng", time.localtime(start)) for start in starts]
    assert writer.count == 6
    for name in set(names):
        accept(tmp_path / name)
    assert [len(ports(tmp_path / name)) for name in sorted(set(names))] == [2, 1, 3]


def test_without_a_conversion_a_file_by_time_overwrites_the_one_before(tmp_path: Path) -> None:
    clock = Clock()
    file = RotatingFile(str(tmp_path / "a.pcapng"), Rotation(seconds=1), clock)
    writer = PcapngWriter(file)
    block = attributed(ethernet(IP() / UDP(sport=7)))
    writer.write(block, rows(block))
    writer.write(block, rows(block))
    clock.now_s += 1
    writer.write(block, rows(block))
    assert ports(tmp_path / "a.pcapng") == [7]


def test_by_size_and_time_the_numbers_begin_anew_with_each_time_and_nothing_ends(tmp_path: Path) -> None:
    clock = Clock()
    rotation = Rotation(file_bytes=1_000_000, seconds=60, files=10)
    file = RotatingFile(str(tmp_path / "%s."), rotation, clock)
    writer = PcapngWriter(file)
    block = attributed(big_packets(10))
    names = []
    for _ in range(4):
        writer.write(block, rows(block))
        assert not file.finished
        clock.now_s += 60
        names.append(str(int(clock.now_s) - 60))
    expected = {f"{second}.{number}" for second in names for number in (0, 1)}
    assert {path.name for path in tmp_path.iterdir()} == expected


def test_a_conversion_stands_for_itself_where_time_decides_nothing(tmp_path: Path) -> None:
    file = RotatingFile(str(tmp_path / "100%d"), Rotation(file_bytes=1))
    file.close()
    assert [path.name for path in tmp_path.iterdir()] == ["100%d"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1_000_000),
        ("25", 25_000_000),
        ("4k", 4096),
        ("4KB", 4096),
        ("3m", 3 << 20),
        ("3Mb", 3 << 20),
        ("2g", 2 << 30),
        ("2gB", 2 << 30),
    ],
)
def test_sizes_are_millions_or_have_a_suffix(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "4t", "k", "4 k", "4kib", "٣", "1" * 13])
def test_other_sizes_are_wrong_use(text: str) -> None:
    with pytest.raises(UsageError, match="-C"):
        parse_size(text)
