"""Compressed capture files, packed by the usual programs, and files that come through pipes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from capture.recorded_files import Draft, Packet, packets_of, pcap, pcap_header, pcap_record, read, some_packets
from pktproc.capture.capture_file import open_capture
from pktproc.capture.compression import COMPRESSIONS
from pktproc.capture.stream import InputStream
from pktproc.errors import CaptureError, FormatError

PACKETS = some_packets(300)
PCAP = pcap(PACKETS)
PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}
NAMES = tuple(PACK)
OTHER_WAYS = [
    *(["gzip", "-1"], ["gzip", "-9"]),
    *(
        ["zstd", "-1"],
        ["zstd", "-19", "--ultra"],
        ["zstd", "--no-check"],
        ["zstd", "--long=27"],
        ["zstd", "-T2", "-B1K"],
    ),
    *(["xz", "-0"], ["xz", "-9e"], ["xz", "--check=none"], ["xz", "-T2", "--block-size=20000"]),
    *(["bzip2", "-1"], ["bzip2", "-9"]),
]


def stored(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_every_compression_is_tested() -> None:
    assert {compression.name for compression in COMPRESSIONS} == PACK.keys()


@pytest.mark.parametrize("command", OTHER_WAYS, ids=" ".join)
def test_what_the_usual_programs_write(command: list[str], tmp_path: Path) -> None:
    packed = subprocess.run([*command, "-c"], input=PCAP, capture_output=True, check=True).stdout
    found = read(stored(tmp_path / "capture", packed))
    assert found.error is None
    assert found.packets == PACKETS


@pytest.mark.parametrize("name", NAMES)
def test_pcapng_too(name: str, tmp_path: Path) -> None:
    packets = some_packets(100, unit_ns=1)
    found = read(stored(tmp_path / "capture", PACK[name](Draft().pcapng(packets))))
    assert found.error is None
    assert found.packets == packets


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cuts", [[], [1], [24], [3, 3, 1000, 20_000]])
def test_members_behind_one_another_are_one_file(name: str, cuts: list[int], tmp_path: Path) -> None:
    pieces = [PCAP[start:end] for start, end in zip([0, *cuts], [*cuts, len(PCAP)], strict=True)]
    found = read(stored(tmp_path / "capture", b"".join(map(PACK[name], pieces))))
    assert found.error is None
    assert found.packets == PACKETS


@pytest.mark.parametrize("name", NAMES)
def test_zeros_may_lie_between_members_and_behind_them(name: str, tmp_path: Path) -> None:
    packed = PACK[name](PCAP[:5000]) + bytes(512) + PACK[name](PCAP[5000:]) + bytes(100_000)
    found = read(stored(tmp_path / "capture", packed))
    assert found.error is None
    assert found.packets == PACKETS


@pytest.mark.parametrize("name", NAMES)
def test_something_else_behind_the_members_is_an_error_at_the_end(name: str, tmp_path: Path) -> None:
    for stray in (b"tail", b"\x1f", b"BZ", PCAP):
        found = read(stored(tmp_path / "capture", PACK[name](PCAP) + stray))
        assert found.packets == PACKETS
        assert f"{name} data is followed by something else" in str(found.error)
        assert found.error is not None
        assert found.error.offset == len(PCAP)


def test_frames_that_zstd_skips(tmp_path: Path) -> None:
    skipped = bytes.fromhex("502a4d18 05000000") + b"notes"
    pack = PACK["zstd"]
    found = read(stored(tmp_path / "capture", skipped + pack(PCAP[:999]) + skipped + pack(PCAP[999:]) + skipped))
    assert found.error is None
    assert found.packets == PACKETS


@pytest.mark.parametrize("name", NAMES)
def test_an_archive_cut_anywhere_yields_whole_packets_and_one_error(name: str, tmp_path: Path) -> None:
    packed = PACK[name](PCAP)
    lengths = [*range(60), *range(60, len(packed), 397), *range(len(packed) - 40, len(packed))]
    most = 0
    for length in lengths:
        found = read(stored(tmp_path / "capture", packed[:length]))
        assert found.packets == PACKETS[: len(found.packets)]
        assert found.error is not None, length
        most = max(most, len(found.packets))
    assert most == len(PACKETS)


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_all_that_is_left_of_a_cut_archive_is_read(name: str, tmp_path: Path) -> None:
    """As much as the format's own program can save."""
    packets = some_packets(4000)
    packed = PACK[name](pcap(packets))
    for share in (0.3, 0.77):
        part = packed[: int(len(packed) * share)]
        saved = subprocess.run([name, "-dc"], input=part, capture_output=True, check=False).stdout
        found = read(stored(tmp_path / "capture", part))
        assert len(found.packets) >= len(read(stored(tmp_path / "saved", saved)).packets) > 100
        assert "cut short" in str(found.error)


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_is_an_error_behind_good_packets(name: str, tmp_path: Path) -> None:
    packets = some_packets(20_000)
    packed = PACK[name](pcap(packets))
    for share in (0.2, 0.5, 0.9):
        broken = bytearray(packed)
        broken[int(len(broken) * share)] ^= 0x10
        found = read(stored(tmp_path / "capture", bytes(broken)))
        assert found.error is not None
        # What is in a broken block may come out wrong before its checksum tells.
        same = next((n for n, pair in enumerate(zip(found.packets, packets, strict=False)) if pair[0] != pair[1]), None)
        assert same is None or same > len(packets) * (share - 0.3)


def test_a_wrong_checksum_comes_behind_all_packets(tmp_path: Path) -> None:
    packed = bytearray(PACK["gzip"](PCAP))
    packed[-6] ^= 1
    found = read(stored(tmp_path / "capture", bytes(packed)))
    assert found.packets == PACKETS
    assert "gzip data is broken" in str(found.error)
    assert found.error is not None
    assert found.error.offset == len(PCAP)


@pytest.mark.parametrize("name", NAMES)
def test_a_compressed_file_of_something_else_is_no_capture(name: str, tmp_path: Path) -> None:
    for data in (b"", b"some text", b"\xd4\xc3"):
        path = stored(tmp_path / "other", PACK[name](data))
        with pytest.raises(FormatError, match="not a capture file"):
            open_capture(str(path))


COST = """
import sys
from pktproc.capture.capture_file import open_capture
with open_capture(sys.argv[1]) as capture:
    count = sum(len(batch.batch) for batch in capture)
with open("/proc/self/status") as status:
    print(count, next(line.split()[1] for line in status if line.startswith("VmHWM:")))
"""


@pytest.mark.parametrize("command", ["cat", "gzip -1", "zstd -19", "xz -0 -T1", "bzip2 -9"])
def test_memory_does_not_grow_with_the_file_nor_with_a_bomb(command: str, tmp_path: Path) -> None:
    record = pcap_record(Packet(bytes(60_000), 0, 60_000))
    path, repeated = tmp_path / "bomb", 4_500
    with path.open("wb") as file, subprocess.Popen(command.split(), stdin=subprocess.PIPE, stdout=file) as child:
        assert child.stdin
        child.stdin.write(pcap_header())
        for _ in range(repeated // 100):
            child.stdin.write(record * 100)
    done = subprocess.run([sys.executable, "-c", COST, path], capture_output=True, text=True, check=True)
    count, peak_kilobytes = map(int, done.stdout.split())
    assert count == repeated
    assert peak_kilobytes < 200_000
    assert (path.stat().st_size < repeated * len(record) // 100) == (command != "cat")


@pytest.mark.parametrize("name", [None, *NAMES])
def test_the_progress_is_that_in_the_file_as_it_lies_there(name: str | None, tmp_path: Path) -> None:
    packets = some_packets(15_000)
    data = pcap(packets)
    path = stored(tmp_path / "capture", PACK[name](data) if name else data)
    with open_capture(str(path), chunk_bytes=1 << 20) as capture:
        assert capture.path == str(path)
        assert capture.total_bytes == path.stat().st_size
        seen = [capture.bytes_read for _ in capture]
        assert seen == sorted(seen)
        assert 0 < seen[0] < seen[-1] == capture.bytes_read == capture.total_bytes
        assert capture.position == len(data)


COUNT = """
import sys
from pktproc.capture.capture_file import open_capture
with open_capture("-") as capture:
    print(capture.path, capture.total_bytes, sum(len(batch.batch) for batch in capture), capture.bytes_read)
"""


@pytest.mark.parametrize("name", [None, *NAMES])
@pytest.mark.parametrize("is_pipe", [True, False])
def test_standard_input(name: str | None, is_pipe: bool, tmp_path: Path) -> None:
    data = PACK[name](PCAP) if name else PCAP
    command = [sys.executable, "-c", COUNT]
    if is_pipe:
        done = subprocess.run(command, input=data, capture_output=True, check=True)
    else:
        with stored(tmp_path / "capture", data).open("rb") as file:
            done = subprocess.run(command, stdin=file, capture_output=True, check=True)
    assert done.stdout.split() == [b"-", b"None", b"300", b"%d" % len(data)]


@pytest.mark.parametrize("make", [pcap, lambda packets: Draft().pcapng(packets)], ids=["pcap", "pcapng"])
def test_packets_that_come_slowly_are_given_out_before_the_rest_arrives(
    make: Callable[[list[Packet]], bytes], tmp_path: Path
) -> None:
    packets = some_packets(30)
    data = make(packets)
    ends = [len(make(packets[:count])) for count in range(1, len(packets) + 1)]
    path = tmp_path / "pipe"
    os.mkfifo(path)
    seen = threading.Semaphore(0)

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for start, end in zip([0, *ends], [*ends, len(data)], strict=True):
                pipe.write(data[start:end])
                seen.acquire()

    writer = threading.Thread(target=write)
    writer.start()
    found: list[Packet] = []
    with open_capture(str(path)) as capture:
        assert capture.total_bytes is None
        for batch in capture:
            found += packets_of(batch)
            seen.release()
            if len(found) == len(packets):
                seen.release()
    writer.join()
    assert found == packets


def test_bytes_that_come_quickly_come_together(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    data = bytes(3_000_000)

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for start in range(0, len(data), 1000):
                pipe.write(data[start : start + 1000])

    writer = threading.Thread(target=write)
    writer.start()
    fills = []
    with InputStream(str(path)) as stream:
        while came := stream.fill(np.empty(1 << 20, np.uint8).data):
            fills.append(came)
    writer.join()
    assert sum(fills) == len(data)
    assert len(fills) < 100


def test_what_cannot_be_opened_or_read(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="No such file or directory"):
        open_capture(str(tmp_path / "missing"))
    with pytest.raises(CaptureError, match="Is a directory"):
        open_capture(str(tmp_path))
    with pytest.raises(CaptureError, match="null byte"):
        open_capture("a\0b")
    with pytest.raises(CaptureError, match="cannot read /proc/self/mem: Input/output error"):
        open_capture("/proc/self/mem")


def test_no_file_stays_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    path = stored(tmp_path / "capture", PCAP + pcap_record(PACKETS[0])[:-1])
    for _ in range(3):
        read(path)
        read(stored(tmp_path / "other", b"other"))
        read(stored(tmp_path / "broken", b"\x1f\x8b\x08" + bytes(100)))
    assert len(list(Path("/proc/self/fd").iterdir())) == before
