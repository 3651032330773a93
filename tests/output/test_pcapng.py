"""New pcapng files: what other people's tools read from them is what was put in."""

from __future__ import annotations

import io
import struct
import subprocess
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP
from scapy.packet import Packet
from scapy.utils import PcapNgReader

from output.attributed_packets import (
    BY_CURL,
    BY_SERVER,
    CURL,
    ETH0,
    LINUX_SLL2,
    LOOPBACK,
    NO_SOCKET,
    SERVER,
    START_NS,
    Ends,
    attributed,
    ethernet,
    nobody,
    rows,
)
from output.other_tools import accept, fields, packets, run
from pktproc.attribution.answers import AttributedBatch
from pktproc.capture.capture_file import open_capture
from pktproc.capture.tap import Statistics
from pktproc.errors import FormatError
from pktproc.model import Attribution, Flow, Interface, Match, PacketType, Process
from pktproc.output.annotate import ALL_FORMS, MAX_OWNERS
from pktproc.output.pcapng import PcapngWriter
from pktproc.output.process_blocks import process_block
from pktproc.output.savefile import Savefile
from pktproc.packets.annotations import comment_text, parse_comment, process_text

HERE, THERE = "10.77.0.1", "10.77.0.2"
ENDS: dict[int, Ends] = {
    1: (BY_CURL, BY_SERVER),
    2: (BY_CURL, None),
    3: (None, BY_SERVER),
    4: (None, NO_SOCKET),
    5: (None, None),
}


def ends(flow: Flow) -> Ends:
    return ENDS[flow.source_port]


def datagrams(*ports: int) -> list[bytes]:
    """Datagrams from the given ports, each a byte longer than the one before."""
    return ethernet(
        *(IP(src=HERE, dst=THERE) / UDP(sport=port, dport=9) / bytes(size) for size, port in enumerate(ports))
    )


DATAGRAM = datagrams(1)


def write(path: Path, *blocks: AttributedBatch, forms: Collection[str] = ALL_FORMS, cmdline: bool = True) -> Path:
    with Savefile(str(path)) as file:
        writer = PcapngWriter(file, forms=forms, cmdline=cmdline)
        for block in blocks:
            assert writer.write(block, rows(block)) == len(block.batch)
    return path


def test_tshark_reads_bytes_times_lengths_interface_direction_and_comment(tmp_path: Path) -> None:
    data = datagrams(1, 2, 3, 4, 5, 1)
    wire = [len(packet) + 100 * (row == 3) for row, packet in enumerate(data)]
    times_ns = [START_NS + step for step in (0, 1, 1, 999_999_999, 10**9, 2**33)]
    path = write(tmp_path / "a.pcapng", attributed(data, ends, times_ns=times_ns, wire_bytes=wire))
    names = ("frame.time_epoch", "frame.len", "frame.cap_len", "frame.interface_name", "frame.comment", "udp.srcport")
    assert fields(path, *names) == [
        [
            f"{time_ns // 10**9}.{time_ns % 10**9:09d}",
            str(length),
            str(len(packet)),
            "eth0",
            comment_text(*ENDS[port]),
            str(port),
        ]
        for time_ns, length, packet, port in zip(times_ns, wire, data, (1, 2, 3, 4, 5, 1), strict=True)
    ]
    with PcapNgReader(str(path)) as reader:
        assert [bytes(packet) for packet in reader] == data
    accept(path)


def test_the_file_says_who_wrote_it_where(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pcapng", attributed(datagrams(1), ends))
    told = run("capinfos", "-F", "-K", path) + run("capinfos", path)
    assert "Capture application: pktproc" in told
    assert "Capture oper-sys:    Linux" in told
    assert "File timestamp precision:  nanoseconds (9)" in told
    assert "Name = eth0" in told


@pytest.mark.parametrize(
    ("kind", "interface", "flags"),
    [
        (PacketType.HOST, ETH0, ["1", "1"]),
        (PacketType.MULTICAST, ETH0, ["1", "2"]),
        (PacketType.BROADCAST, ETH0, ["1", "3"]),
        (PacketType.OTHERHOST, ETH0, ["1", "4"]),
        (PacketType.OUTGOING, ETH0, ["2", "0"]),
        (PacketType.UNKNOWN, ETH0, ["", ""]),
        (PacketType.OUTGOING, LOOPBACK, ["", ""]),
    ],
)
@pytest.mark.parametrize("forms", [ALL_FORMS, ()])
def test_the_way_of_a_packet_is_flagged_where_it_is_known(
    tmp_path: Path, kind: PacketType, interface: Interface, flags: list[str], forms: Collection[str]
) -> None:
    block = attributed(datagrams(1, 5, 5, 5), ends, packet_type=kind, interface=interface)
    path = write(tmp_path / "a.pcapng", block, forms=forms)
    names = ("frame.packet_flags_direction", "frame.packet_flags_reception_type")
    told = [[str(int(value, 16)) if value else "" for value in line] for line in fields(path, *names)]
    assert told == [flags] * 4


def proc_of(process: Process) -> dict[str, Any]:
    return {"id": process.pid, "name": process.name}


def told_by_scapy(path: Path) -> list[dict[str, Any]]:
    """The processes that scapy shows for each packet, without their UUIDs."""
    with PcapNgReader(str(path)) as reader:
        found = [packet.process_information or {} for packet in reader]
    return [{key: {"id": one["id"], "name": one["name"]} for key, one in about.items()} for about in found]


def test_scapy_shows_the_processes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pcapng", attributed(datagrams(1, 2, 3, 4, 5), ends))
    assert told_by_scapy(path) == [
        {"proc": proc_of(CURL), "eproc": proc_of(SERVER)},
        {"proc": proc_of(CURL)},
        {"proc": proc_of(SERVER)},
        {},
        {},
    ]


def test_a_process_is_described_once_and_one_that_had_the_same_pid_is_another(tmp_path: Path) -> None:
    later = Attribution(replace(CURL, start_ticks=101, start_ns=CURL.start_ns + 10_000_000), Match.EXACT, "netlink")
    owners: dict[int, Ends] = {1: (BY_CURL, None), 2: (later, None), 3: (replace(BY_CURL), None)}
    blocks = [attributed(datagrams(1, 2, 3), lambda flow: owners[flow.source_port]) for _ in range(3)]
    path = write(tmp_path / "a.pcapng", *blocks)
    with PcapNgReader(str(path)) as reader:
        uuids = [(packet.process_information or {})["proc"]["uuid"] for packet in reader]
    assert len(set(uuids)) == 2
    assert uuids == [uuids[0], uuids[1], uuids[0]] * 3
    assert path.read_bytes().count(b"\x01\0\0\x80") == 2  # blocks; options 0x8001 look otherwise


def option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def options_of(path: Path) -> list[bytes]:
    with open_capture(str(path)) as capture:
        found: list[bytes] = []
        for batch in capture:
            found += [batch.option_sets[at] if at >= 0 else b"" for at in batch.options.tolist()]
    return found


@pytest.mark.parametrize(
    ("forms", "expected"),
    [
        ((), b""),
        (("comment",), option(1, comment_text(BY_CURL, BY_SERVER).encode()) + bytes(4)),
        (("pid",), option(8, struct.pack("<II", 4711, 0)) + bytes(4)),
        (
            ("darwin",),
            option(0x8001, struct.pack("<I", 0)) + option(0x8003, struct.pack("<I", 1)) + bytes(4),
        ),
    ],
)
def test_the_forms_are_chosen_one_by_one(tmp_path: Path, forms: Sequence[str], expected: bytes) -> None:
    block = attributed(datagrams(1, 5), ends, packet_type=PacketType.UNKNOWN)
    path = write(tmp_path / "a.pcapng", block, forms=forms)
    assert options_of(path) == [expected, b""]
    assert (b"curl" in path.read_bytes()) is bool({"comment", "darwin"} & set(forms))
    accept(path)


def test_command_lines_are_left_out_on_request(tmp_path: Path) -> None:
    block = attributed(datagrams(1), ends)
    assert b"a b" in write(tmp_path / "a.pcapng", block).read_bytes()
    assert b"a b" not in write(tmp_path / "b.pcapng", block, cmdline=False).read_bytes()


def test_what_a_process_block_says_of_its_process_comes_with_it() -> None:
    assert process_text(CURL, cmdline=True).encode() in process_block(CURL, "<", cmdline=True)


def test_interfaces_and_processes_appear_at_any_time(tmp_path: Path) -> None:
    wlan = Interface("wlan0", 3, 4026531840)
    first, second = attributed(datagrams(2, 2), ends), attributed(datagrams(3), ends, interface=wlan)
    third = attributed(datagrams(5, 2, 3), ends)
    mixed = replace(third, batch=replace(third.batch, interfaces=(ETH0, wlan), interface=np.array([1, 0, 1], np.int64)))
    path = write(tmp_path / "a.pcapng", first, second, first, mixed)
    names = [name for (name,) in fields(path, "frame.interface_name")]
    assert names == ["eth0", "eth0", "wlan0", "eth0", "eth0", "wlan0", "eth0", "wlan0"]
    curl, server = {"proc": proc_of(CURL)}, {"proc": proc_of(SERVER)}
    assert told_by_scapy(path) == [curl, curl, server, curl, curl, {}, curl, server]
    accept(path)


def test_each_link_type_of_an_interface_has_a_description(tmp_path: Path) -> None:
    cooked = bytes.fromhex("0800 0000 00000002 0001 00 06 0200000000010000") + bytes(
        IP(src=HERE, dst=THERE) / UDP(sport=2)
    )
    blocks = [attributed(datagrams(2), ends), attributed([cooked], ends, linktype=LINUX_SLL2)]
    mixed = attributed([*datagrams(2), cooked], nobody)
    mixed = replace(mixed, batch=replace(mixed.batch, linktype=np.array([1, LINUX_SLL2], np.uint16)))
    path = write(tmp_path / "a.pcapng", *blocks, mixed)
    names = ("frame.encap_type", "frame.interface_name", "ip.dst")
    ether, sll2 = (["1", "eth0", THERE], ["210", "eth0", THERE])
    assert fields(path, *names) == [ether, sll2, ether, sll2]
    accept(path, tcpdump=False)


def test_only_the_given_packets_are_written_and_only_their_processes_told(tmp_path: Path) -> None:
    block = attributed(datagrams(1, 2, 3, 4, 5, 3), ends)
    path = tmp_path / "a.pcapng"
    with Savefile(str(path)) as file:
        assert PcapngWriter(file).write(block, np.array([2, 5], np.int64)) == 2
    assert [port for (port,) in fields(path, "udp.srcport")] == ["3", "3"]
    assert b"curl" not in path.read_bytes()


def test_many_packets_keep_their_order_and_bytes(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    ports = random.integers(1, 6, 1100)
    data = ethernet(
        *(
            IP(src=HERE, dst=THERE) / UDP(sport=int(port), dport=9) / random.bytes(int(random.integers(0, 60)))
            for port in ports
        )
    )
    block = attributed(data, ends, packet_type=random.choice([0, 1, 2, 3, 4, 255], 1100).tolist())
    path = write(tmp_path / "a.pcapng", block, block)
    with PcapNgReader(str(path)) as reader:
        assert [bytes(packet) for packet in reader] == data * 2
    told = [[port, comment] for port, comment in fields(path, "udp.srcport", "frame.comment")]
    assert told == [[str(port), comment_text(*ENDS[int(port)])] for port in [*ports, *ports]]


def test_statistics_tell_what_was_dropped(tmp_path: Path) -> None:
    file = io.BytesIO()
    writer = PcapngWriter(file)
    block = attributed(datagrams(1, 2), ends)
    writer.write(block, rows(block))
    end = len(file.getvalue())
    writer.statistics(Statistics(received=12, dropped=3))
    path = tmp_path / "a.pcapng"
    path.write_bytes(file.getvalue())
    statistics = file.getvalue()[end:]
    assert struct.unpack_from("<III", statistics) == (5, len(statistics), 0)
    assert option(4, struct.pack("<Q", 12)) + option(5, struct.pack("<Q", 3)) in statistics
    assert "Number of stat entries = 1" in run("capinfos", path)
    accept(path)


def test_a_capture_without_packets_is_a_file_too(tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    with Savefile(str(path)) as file:
        writer = PcapngWriter(file)
        writer.describe(ETH0, 1)
        writer.write(attributed([]), np.zeros(0, np.int64))
        writer.statistics(Statistics(received=0, dropped=0))
    accept(path)
    assert packets(path) == []


@given(name=st.text(st.characters(exclude_categories=()), max_size=30))
@settings(max_examples=100, deadline=None)
def test_names_are_read_back_whatever_they_hold(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    owner = Attribution(replace(CURL, name=name, exe=name, cmdline=(name,)), Match.EXACT, name)
    path = write(tmp_path_factory.mktemp("names") / "a.pcapng", attributed(DATAGRAM, (owner, None)))
    with PcapNgReader(str(path)) as reader:
        (packet,) = reader
    assert (packet.process_information or {})["proc"]["id"] == CURL.pid
    parsed = parse_comment((packet.comment or b"").decode("ascii"))
    assert parsed is not None
    assert parsed.source is not None
    assert (parsed.source.name, parsed.source.evidence) == (name, name)


def test_what_is_no_ip_packet_says_so(tmp_path: Path) -> None:
    tcp: list[Packet] = [ARP(), IP(src=HERE, dst=THERE) / TCP(sport=2)]
    path = write(tmp_path / "a.pcapng", attributed(ethernet(*tcp), nobody))
    assert fields(path, "frame.comment") == [[""], [""]]


def test_a_file_that_is_cut_anywhere_is_good_up_to_the_last_whole_block(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pcapng", attributed(datagrams(2, 3, 5), ends))
    whole, cut = path.read_bytes(), tmp_path / "cut.pcapng"
    ends_of_blocks, position = [], 0
    while position < len(whole):
        kind, length = struct.unpack_from("<II", whole, position)
        position += length
        ends_of_blocks.append((position, kind == 6))
    for size in range(28, len(whole)):
        cut.write_bytes(whole[:size])
        expected = sum(is_packet for end, is_packet in ends_of_blocks if end <= size)
        count = 0
        try:
            with open_capture(str(cut)) as capture:
                for batch in capture:
                    count += len(batch.batch)
        except FormatError:
            assert size not in {end for end, _ in ends_of_blocks}
        assert count == expected
    cut.write_bytes(whole[:-6])
    done = subprocess.run(["tshark", "-n", "-r", str(cut)], capture_output=True, text=True, check=False)
    assert len(done.stdout.splitlines()) == 2


def test_every_write_is_of_whole_blocks() -> None:
    written: list[bytes] = []

    class Writes:
        def write(self, data: bytes) -> None:
            written.append(data)

    writer = PcapngWriter(Writes())
    block = attributed(datagrams(1, 2, 3) * 500, ends)
    writer.write(block, rows(block))
    assert len(written) > 3
    for data in filter(None, written):
        position = 0
        while position < len(data):
            position += struct.unpack_from("<I", data, position + 4)[0]
        assert position == len(data)


def test_a_full_disk_is_one_error_with_the_name_of_the_file() -> None:
    block = attributed(datagrams(1), ends)
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"), Savefile("/dev/full") as file:
        PcapngWriter(file).write(block, rows(block))


def test_a_file_that_cannot_be_made_is_one_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No such file or directory: .*/missing/a.pcapng"):
        Savefile(str(tmp_path / "missing" / "a.pcapng"))


def test_more_owners_than_are_remembered_are_written_all_the_same(tmp_path: Path) -> None:
    (one,) = datagrams(1)
    at = len(one) - 8

    def block(ports: Iterable[int]) -> AttributedBatch:
        return attributed([one[:at] + port.to_bytes(2, "big") + one[at + 2 :] for port in ports], owners)

    def owners(flow: Flow) -> Ends:
        return replace(BY_CURL, process=replace(CURL, pid=flow.source_port)), None

    ports = [*range(1, MAX_OWNERS - 10), *range(MAX_OWNERS - 20, MAX_OWNERS + 20), *range(1, 20)]
    path = write(tmp_path / "a.pcapng", block(ports[:20_000]), block(ports[20_000:-40]), block(ports[-40:]))
    sets = options_of(path)
    assert len(sets) == len(ports)
    for port, options in zip(ports, sets, strict=True):
        (length,) = struct.unpack_from("<H", options, 10)  # behind the flags
        assert options[12 : 12 + length].startswith(f"pktproc src.pid={port} ".encode())
