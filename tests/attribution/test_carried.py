"""Annotations read back from files: what was written, what Apple writes, and whatever else there may be."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP

from capture.recorded_files import COMMENT, DARWIN, END_OF_OPTIONS, FLAGS, ORDERS, Draft
from output.attributed_packets import (
    BY_CURL,
    BY_SERVER,
    CURL,
    NO_SOCKET,
    SERVER,
    START_NS,
    Ends,
    attributed,
    ethernet,
    rows,
    write_pcap,
)
from pktproc.attribution.answers import AttributedBatch
from pktproc.attribution.carried import EVIDENCE, CarriedAttributions
from pktproc.capture.capture_file import open_capture
from pktproc.model import Attribution, Flow, Match, PacketType, Process, Reason
from pktproc.output.annotate import ALL_FORMS
from pktproc.output.pcapng import PcapngWriter
from pktproc.output.savefile import Savefile
from pktproc.packets.annotations import comment_text
from pktproc.packets.decode import decode
from pktproc.packets.flows import distinct_flows
from pktproc.packets.fragments import FragmentTable

PID, PROCESS, EFFECTIVE, NAME = 8, 0x8001, 0x8003, 2
UNICAST_IN, OUT = 5, 2
FRAME = ethernet(IP(src="10.77.0.1", dst="10.77.0.2") / UDP(sport=7, dport=9))[0]
WORKERS = tuple(replace(SERVER, pid=800 + number, name=f"worker {number}") for number in range(3))
WHOLE = replace(CURL, container_id="0123abcd")


def carried(path: Path) -> list[AttributedBatch]:
    reader = CarriedAttributions()
    found = []
    with open_capture(str(path)) as capture:
        for file_batch in capture:
            columns = decode(file_batch.batch, FragmentTable())
            table = distinct_flows(file_batch.batch, columns)
            options, sets, blocks = file_batch.options, file_batch.option_sets, file_batch.origin
            found.append(
                reader.attribute(file_batch.batch, columns, table, options=options, option_sets=sets, blocks=blocks)
            )
    return found


def owners(path: Path) -> list[Ends]:
    """The owners of each packet of a file."""
    return [(block.source[flow], block.destination[flow]) for block in carried(path) for flow in block.flow_of.tolist()]


def write(path: Path, blocks: Sequence[AttributedBatch], forms: Collection[str] = ALL_FORMS) -> Path:
    with Savefile(str(path)) as file:
        writer = PcapngWriter(file, forms=forms)
        for block in blocks:
            writer.write(block, rows(block))
    return path


def file(path: Path, draft: Draft, *blocks: bytes) -> Path:
    path.write_bytes(draft.section() + draft.interface(1, tsresol=9) + b"".join(blocks))
    return path


def shared(match: Match) -> Attribution:
    return Attribution(WORKERS[0], match, "netlink", holders=WORKERS)


def one(process: Process, match: Match | None = Match.EXACT, evidence: str = "netlink") -> Attribution:
    return Attribution(process, match, evidence, holders=(process,))


@pytest.mark.parametrize(
    "ends",
    [
        (one(CURL), one(SERVER, Match.LISTENER, "procfs")),
        (one(WHOLE, Match.INHERITED), None),
        (None, one(WHOLE)),
        (None, NO_SOCKET),
        (None, None),
        (shared(Match.SHARED), shared(Match.SHARED)),
        (Attribution(reason=Reason.AMBIGUOUS, evidence="snapshot", holders=WORKERS), None),
        (Attribution(reason=Reason.NOT_IP), Attribution(reason=Reason.NOT_IP)),
        (one(replace(CURL, name='we"ird \x1b[31m \udcff \\xff name')), one(replace(SERVER, exe="\udcfe", uid=None))),
    ],
)
@pytest.mark.parametrize("packet_type", [PacketType.OUTGOING, PacketType.HOST, PacketType.UNKNOWN])
def test_what_was_written_is_read_back_as_it_was(tmp_path: Path, ends: Ends, packet_type: PacketType) -> None:
    path = write(tmp_path / "a.pcapng", [attributed([FRAME] * 3, ends, packet_type=packet_type)])
    assert owners(path) == [ends] * 3


def test_without_process_blocks_pid_name_and_match_are_left(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pcapng", [attributed([FRAME], (one(WHOLE), shared(Match.SHARED)))], {"comment", "pid"})
    holders = tuple(Process(worker.pid, 0, 0, "") for worker in WORKERS)
    named = replace(holders[0], name="worker 0")
    receiver = Attribution(named, Match.SHARED, "netlink", holders=(named, *holders[1:]))
    assert owners(path) == [(one(Process(4711, 0, 0, "curl")), receiver)]


@pytest.mark.parametrize("forms", [{"darwin"}, {"darwin", "pid"}])
def test_without_comments_the_direction_tells_whose_process_it_is(tmp_path: Path, forms: set[str]) -> None:
    kinds = [PacketType.OUTGOING, PacketType.HOST, PacketType.BROADCAST, PacketType.UNKNOWN]
    for end in ((BY_CURL, None), (None, BY_CURL)):
        path = write(tmp_path / "a.pcapng", [attributed([FRAME] * 4, end, packet_type=kinds)], forms)
        owner = one(CURL, None, EVIDENCE)
        assert owners(path) == [(owner, None), (None, owner), (None, owner), (None, None)]


def test_two_processes_without_comments_are_those_of_both_ends(tmp_path: Path) -> None:
    kinds = [PacketType.OUTGOING, PacketType.HOST, PacketType.UNKNOWN]
    block = attributed([FRAME] * 3, (BY_CURL, BY_SERVER), packet_type=kinds)
    path = write(tmp_path / "a.pcapng", [block], {"darwin"})
    assert owners(path) == [(one(CURL, None, EVIDENCE), one(SERVER, None, EVIDENCE))] * 3


def test_a_pid_alone_is_a_process_without_a_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pcapng", [attributed([FRAME], (BY_CURL, None))], {"pid"})
    assert owners(path) == [(one(Process(4711, 0, 0, ""), None, EVIDENCE), None)]


@pytest.mark.parametrize("order", ORDERS)
def test_files_of_macos_name_the_process_that_has_the_socket(tmp_path: Path, order: str) -> None:
    draft = Draft(order)

    def process(pid: int, name: bytes) -> bytes:
        return draft.block(DARWIN, draft.pack("I", pid) + draft.option(NAME, name) + draft.option(4, bytes(16)))

    def packet(flags: int, *references: tuple[int, int]) -> bytes:
        options = draft.option(FLAGS, draft.pack("I", flags))
        options += b"".join(draft.option(code, draft.pack("I", number)) for code, number in references)
        return draft.enhanced(FRAME, START_NS, options=options + END_OF_OPTIONS)

    path = file(
        tmp_path / "a.pcapng",
        draft,
        process(0, b"kernel_task"),
        process(312, b"mDNSResponder\0"),
        packet(OUT, (PROCESS, 1)),
        packet(UNICAST_IN, (PROCESS, 1), (EFFECTIVE, 2)),
        process(900, b"Safari \xff"),
        packet(OUT, (PROCESS, 2), (EFFECTIVE, 1)),
        packet(OUT, (PROCESS, 0)),
        packet(OUT, (PROCESS, 3)),
        packet(0, (PROCESS, 1)),
        packet(OUT),
    )
    responder = one(Process(312, 0, 0, "mDNSResponder"), None, EVIDENCE)
    browser = one(Process(900, 0, 0, "Safari \udcff"), None, EVIDENCE)
    kernel = one(Process(0, 0, 0, "kernel_task"), None, EVIDENCE)
    assert owners(path) == [
        (responder, None),
        (None, responder),
        (browser, None),
        (kernel, None),
        (None, None),
        (None, None),
        (None, None),
    ]


def test_process_blocks_are_numbered_by_section(tmp_path: Path) -> None:
    first = write(tmp_path / "a.pcapng", [attributed([FRAME], (one(CURL), None))])
    second = write(tmp_path / "b.pcapng", [attributed([FRAME], (one(SERVER), one(CURL)))])
    both = tmp_path / "both.pcapng"
    both.write_bytes(first.read_bytes() + second.read_bytes())
    assert owners(both) == [(one(CURL), None), (one(SERVER), one(CURL))]


def test_a_flow_whose_owner_changes_is_several_flows(tmp_path: Path) -> None:
    changing = [(one(CURL), None), (one(SERVER), None), (None, None), (one(CURL), None)]
    other = ethernet(IP(src="10.77.0.1", dst="10.77.0.2") / UDP(sport=8, dport=9))[0]
    blocks = [attributed([FRAME, other], ends) for ends in changing]
    path = write(tmp_path / "a.pcapng", blocks)
    assert owners(path) == [ends for ends in changing for _ in range(2)]
    (block,) = carried(path)
    assert len(block.flows) == 6
    assert len(set(block.flows)) == 2
    assert block.first.tolist() == [block.flow_of.tolist().index(flow) for flow in range(6)]
    for row, flow in enumerate(block.flow_of.tolist()):
        assert block.flows[flow].source_port == (7 if row % 2 == 0 else 8)


def test_owners_that_do_not_change_split_nothing(tmp_path: Path) -> None:
    draft = Draft()
    comment = draft.option(COMMENT, comment_text(one(CURL), None).encode())
    packets = [
        draft.enhanced(FRAME, START_NS, options=comment + draft.option(0x2BC, draft.pack("I", number)))
        for number in range(5)
    ]
    (block,) = carried(file(tmp_path / "a.pcapng", draft, *packets))
    assert len(block.flows) == 1


def test_pcap_files_carry_nothing(tmp_path: Path) -> None:
    assert owners(write_pcap(tmp_path / "a.pcap", attributed([FRAME] * 2))) == [(None, None)] * 2


def test_many_owners_are_read_back(tmp_path: Path) -> None:
    def ends(flow: Flow) -> Ends:
        return one(replace(CURL, pid=flow.source_port, start_ticks=flow.source_port)), None

    frames = [FRAME[:34] + port.to_bytes(2, "big") + FRAME[36:] for port in range(1, 3000)]
    path = write(tmp_path / "a.pcapng", [attributed(frames, ends)] * 2)
    found = owners(path)
    assert [source.process.pid for source, _ in found if source and source.process] == [*range(1, 3000)] * 2
    assert {source.process.exe for source, _ in found if source and source.process} == {CURL.exe}


@given(
    blocks=st.lists(
        st.tuples(
            st.sampled_from(["packet", "process", "comment", "reference"]),
            st.binary(max_size=30),
            st.sampled_from([0, 1, 2, 7, 2**31, 2**32 - 1]),
        ),
        max_size=10,
    ),
    order=st.sampled_from(ORDERS),
)
@settings(max_examples=200, deadline=None)
def test_reading_is_total(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[tuple[str, bytes, int]], order: str
) -> None:
    draft = Draft(order)
    pieces = []
    for kind, data, number in blocks:
        raw = data + bytes(-len(data) % 4)
        if kind == "process":
            pieces.append(draft.block(DARWIN, data))
        elif kind == "comment":
            pieces.append(draft.block(DARWIN, draft.pack("I", number) + draft.option(COMMENT, b"pktproc " + data)))
        else:
            reference = b"" if kind == "packet" else draft.option(PROCESS, draft.pack("I", number))
            options = reference + draft.option(PID, draft.pack("I", number)) + raw
            pieces.append(draft.enhanced(FRAME, START_NS, options=options))
    found = carried(file(tmp_path_factory.mktemp("any") / "a.pcapng", draft, *pieces))
    for block in found:
        assert np.array_equal(np.unique(block.flow_of), np.arange(len(block.flows)))
        assert len(block.source) == len(block.destination) == len(block.first) == len(block.flows)
