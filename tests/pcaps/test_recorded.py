"""Recorded scenes of real programs (pcaps/record.py), named again from their stores."""

from __future__ import annotations

import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from scapy.utils import PcapNgReader

from bed.evidence import enrich, packets_of, pktproc, tshark
from bed.recorded import Owner, Shown, assert_well_named, judge_recorded, owner_of, read_owners, shown

DIRECTORY = Path(__file__).parents[2] / "pcaps" / "recorded"
SCENES = ("dns", "fragments", "loopback", "ping", "prefork", "reuse", "reuse_udp", "vlan", "web4", "web6")
LARGEST_BYTES = 100_000
UNTOUCHED = ("frame.number", "frame.time_epoch", "frame.len", "frame.cap_len", "frame.protocols")


@dataclass(frozen=True)
class Recorded:
    """The files of a scene, what tshark shows of its packets, and the annotated file that pktproc made of them."""

    name: str
    capture: Path
    store: Path
    owners: list[Owner]
    packets: list[Shown]
    annotated: Path


@pytest.fixture(scope="module", params=SCENES)
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    name = request.param
    capture, store = DIRECTORY / f"{name}.pcap", DIRECTORY / f"{name}.db"
    annotated = tmp_path_factory.mktemp("annotated") / f"{name}.pcapng"
    done = pktproc("enrich", capture, "-s", store, "-o", annotated)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return Recorded(name, capture, store, read_owners(DIRECTORY / f"{name}.truth.json"), shown(capture), annotated)


def run(*command: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_every_recorded_scene_is_tested() -> None:
    files = {f"{name}{suffix}" for name in SCENES for suffix in (".pcap", ".db", ".truth.json")}
    assert {path.name for path in DIRECTORY.iterdir()} == files


def test_no_end_is_named_wrongly_and_all_are_named(scene: Recorded) -> None:
    packets, talk = enrich(scene.capture, "-s", scene.store)
    assert_well_named(judge_recorded(scene.packets, packets, scene.owners), scene.owners)
    assert f"{len(packets)} packets" in talk


def test_what_was_annotated_is_read_back(scene: Recorded) -> None:
    verdict = judge_recorded(scene.packets, packets_of(scene.annotated), scene.owners)
    assert_well_named(verdict, scene.owners)


def test_every_owner_has_packets(scene: Recorded) -> None:
    """A truth that no packet shows would prove nothing."""
    ends = [(end, packet) for packet in scene.packets for end in (packet.source, packet.destination) if end]
    assert {owner_of(end, packet, scene.owners) for end, packet in ends} == set(scene.owners)


def test_packets_times_and_order_are_the_input_s(scene: Recorded) -> None:
    fields = [argument for field in UNTOUCHED for argument in ("-e", field)]
    rows = tshark(scene.capture, "-T", "fields", *fields)
    assert len(rows) > 3
    assert tshark(scene.annotated, "-T", "fields", *fields) == rows
    hex_dump = tshark(scene.capture, "-x")
    assert len(hex_dump) > len(rows)
    assert tshark(scene.annotated, "-x") == hex_dump


def test_other_tools_take_the_result_without_complaint(scene: Recorded, tmp_path: Path) -> None:
    packets = len(scene.packets)
    told = run("capinfos", "-c", "-M", scene.annotated)
    assert told.stderr == ""
    assert f"Number of packets:   {packets}\n" in told.stdout
    for command in (
        ("editcap", scene.annotated, tmp_path / "edited.pcapng"),
        ("mergecap", "-w", tmp_path / "merged.pcapng", scene.annotated, scene.capture),
    ):
        assert run(*command).stderr == ""
    for name, count in (("edited", packets), ("merged", 2 * packets)):
        assert f"Number of packets:   {count}\n" in run("capinfos", "-c", "-M", tmp_path / f"{name}.pcapng").stdout
    dumped = run("tcpdump", "-n", "-t", "-#", "-r", scene.annotated)
    assert dumped.stdout == run("tcpdump", "-n", "-t", "-#", "-r", scene.capture).stdout
    assert [line for line in dumped.stderr.splitlines() if "reading from file" not in line] == []


def test_scapy_reads_the_result(scene: Recorded, recwarn: pytest.WarningsRecorder) -> None:
    with PcapNgReader(str(scene.annotated)) as reader:
        packets = list(reader)
    assert len(packets) == len(scene.packets)
    pids = {packet.process_information["proc"]["id"] for packet in packets if packet.process_information}
    assert pids
    assert pids <= {owner.pid for owner in scene.owners}
    assert [str(warning.message) for warning in recwarn] == []


def test_the_files_are_small_and_tell_of_nothing_but_the_scene(scene: Recorded) -> None:
    truth = DIRECTORY / f"{scene.name}.truth.json"
    for path in (scene.capture, scene.store, truth):
        assert path.stat().st_size <= LARGEST_BYTES
        assert not [word for word in (b"/root", b"/home", b"/tmp", b"/work") if word in path.read_bytes()]
    with closing(sqlite3.connect(f"file:{scene.store}?mode=ro", uri=True)) as connection:
        assert connection.execute("SELECT name FROM host").fetchall() == [("host",)]
        assert {name for (name,) in connection.execute("SELECT name FROM process")} <= {
            "python3",
            "curl",
            "ping",
            "getent",
        }
        assert connection.execute("SELECT count(DISTINCT netns) FROM address").fetchone()[0] <= 2
        assert all(exe.startswith("/usr/bin/") for (exe,) in connection.execute("SELECT exe FROM process"))


def test_the_scenes_show_what_they_are_named_after() -> None:
    tags = tshark(DIRECTORY / "vlan.pcap", "-Y", "tcp or udp", "-T", "fields", "-e", "vlan.id")
    assert {tag for (tag,) in tags} == {"7"}
    parts = "ip.flags.mf == 1 or ip.frag_offset > 0 or ipv6.fraghdr"
    assert len(tshark(DIRECTORY / "fragments.pcap", "-Y", parts, "-T", "fields", "-e", "frame.number")) == 24
    workers = {owner.pid for owner in read_owners(DIRECTORY / "prefork.truth.json") if owner.stream is not None}
    assert len(workers) == 3
    for name in ("reuse", "reuse_udp"):
        owners = read_owners(DIRECTORY / f"{name}.truth.json")
        assert len({owner.pid for owner in owners if owner.port == 7200}) == 2
