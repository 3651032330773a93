"""Rewritten pcapng files: everything is as it was, and the packets tell their processes."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.utils import PcapNgReader

from capture.recorded_files import (
    COMMENT,
    DARWIN,
    END_OF_OPTIONS,
    ENHANCED,
    FLAGS,
    OBSOLETE,
    ORDERS,
    SECTION,
    Draft,
)
from output.attributed_packets import BY_CURL, BY_SERVER, CURL, NO_SOCKET, SERVER, START_NS, Ends, ethernet, nobody
from output.other_tools import accept, fields, packets
from packets.capture_files import DIRECTORY
from pktproc.attribution.answers import AttributedBatch
from pktproc.capture.capture_file import FileBatch, open_capture
from pktproc.model import Attribution, Flow, Match
from pktproc.output.annotate import ALL_FORMS
from pktproc.output.pcapng_rewrite import PcapngRewriter
from pktproc.packets.annotations import comment_text
from pktproc.packets.decode import decode
from pktproc.packets.flows import distinct_flows
from pktproc.packets.fragments import FragmentTable

PID, PROCESS, EFFECTIVE = 8, 0x8001, 0x8003
OTHER_OPTION = 0x2BC
Owners = Callable[[Flow], Ends]
ENDS: dict[int, Ends] = {
    1: (BY_CURL, BY_SERVER),
    2: (BY_CURL, None),
    3: (None, BY_SERVER),
    4: (None, NO_SOCKET),
    5: (None, None),
}
_DATAGRAMS = (IP(src="10.77.0.1", dst="10.77.0.2") / UDP(sport=port) / bytes(port) for port in ENDS)
FRAMES = dict(zip(ENDS, ethernet(*_DATAGRAMS), strict=True))


def ends(flow: Flow) -> Ends:
    return ENDS.get(flow.source_port, (None, None))


def attribute(file_batch: FileBatch, owners: Owners) -> AttributedBatch:
    batch = file_batch.batch
    columns = decode(batch, FragmentTable())
    table = distinct_flows(batch, columns)
    pairs = [owners(flow) for flow in table.flows]
    return AttributedBatch(
        batch=batch,
        columns=columns,
        flow_of=table.flow_of,
        flows=table.flows,
        first=table.first,
        source=[source for source, _ in pairs],
        destination=[destination for _, destination in pairs],
    )


def rewritten(
    path: Path,
    owners: Owners = ends,
    *,
    forms: Collection[str] = ALL_FORMS,
    wanted: Callable[[AttributedBatch], Any] | None = None,
) -> Path:
    """Rewrite a file next to itself."""
    copy, written = path.with_name(f"{path.stem}-with-processes.pcapng"), io.BytesIO()
    writer = PcapngRewriter(written, forms=forms)
    with open_capture(str(path)) as capture:
        for file_batch in capture:
            block = attribute(file_batch, owners)
            writer.write(file_batch, block, None if wanted is None else wanted(block))
    copy.write_bytes(written.getvalue())
    return copy


class Block(NamedTuple):
    kind: int
    body: bytes


def blocks_of(path: Path, order: str = "<") -> list[Block]:
    data, position, found = path.read_bytes(), 0, []
    while position < len(data):
        kind, length = struct.unpack_from(f"{order}II", data, position)
        assert data[position + length - 4 : position + length] == data[position + 4 : position + 8]
        found.append(Block(kind, data[position + 8 : position + length - 4]))
        position += length
    return found


def options_of(block: Block, order: str = "<") -> list[tuple[int, bytes]]:
    """Options of an enhanced or obsolete packet block."""
    (captured,) = struct.unpack_from(f"{order}I", block.body, 12)
    position, found = 20 + captured + -captured % 4, []
    while position < len(block.body):
        code, length = struct.unpack_from(f"{order}HH", block.body, position)
        if code == 0:
            assert position + 4 == len(block.body)
            break
        found.append((code, block.body[position + 4 : position + 4 + length]))
        position += 4 + length + -length % 4
    return found


def file(path: Path, *blocks: bytes) -> Path:
    path.write_bytes(b"".join(blocks))
    return path


def enhanced(draft: Draft, port: int, options: bytes = b"", step: int = 0) -> bytes:
    return draft.enhanced(FRAMES[port], START_NS + step, options=options)


def process(draft: Draft, pid: int, name: str = "foreign") -> bytes:
    return draft.block(DARWIN, draft.pack("I", pid) + draft.option(2, name.encode()) + END_OF_OPTIONS)


def test_packets_stay_and_their_processes_are_told(tmp_path: Path) -> None:
    draft = Draft()
    flags = draft.option(FLAGS, draft.pack("I", 5)) + END_OF_OPTIONS
    mine = draft.option(COMMENT, b"my own words") + draft.option(OTHER_OPTION, b"abc") + END_OF_OPTIONS
    unended = draft.option(COMMENT, b"no end")
    path = file(
        tmp_path / "a.pcapng",
        draft.section(length=-1),
        draft.interface(1, 262144, name="eth7", tsresol=9),
        enhanced(draft, 1),
        enhanced(draft, 2, flags, 1),
        enhanced(draft, 3, mine, 2),
        enhanced(draft, 4, unended, 3),
        enhanced(draft, 5, mine, 4),
        enhanced(draft, 5, unended, 5),
        enhanced(draft, 5, b"", 6),
    )
    copy = rewritten(path)
    assert packets(copy) == packets(path)
    told = [value for (value,) in fields(copy, "frame.comment", options=("-E", "aggregator=|"))]
    said = {port: comment_text(*pair) for port, pair in ENDS.items()}
    assert told == [
        said[1],
        said[2],
        f"my own words|{said[3]}",
        f"no end|{said[4]}",
        "my own words",
        "no end",
        "",
    ]
    directions = [value for (value,) in fields(copy, "frame.packet_flags_direction")]
    assert directions == ["", "0x00000001", "", "", "", "", ""]
    after, before = blocks_of(copy), blocks_of(path)
    assert [block for block in after if block.kind not in {ENHANCED, DARWIN}] == before[:2]
    assert after[-3:] == before[-3:]
    assert [dict(options_of(block)).get(OTHER_OPTION) for block in after if block.kind == ENHANCED] == [
        *[None] * 2,
        b"abc",
        None,
        b"abc",
        *[None] * 2,
    ]
    with PcapNgReader(str(copy)) as reader:
        processes = [packet.process_information or {} for packet in reader]
    assert [{key: one["name"] for key, one in about.items()} for about in processes] == [
        {"proc": "curl", "eproc": "python3"},
        {"proc": "curl"},
        {"proc": "python3"},
        *[{}] * 4,
    ]
    accept(copy)


@pytest.mark.parametrize("forms", [ALL_FORMS, ()])
def test_every_other_block_stays_where_it_was(tmp_path: Path, forms: Collection[str]) -> None:
    draft = Draft()
    others = draft.other_blocks()
    pieces = [draft.section(), others[2], draft.interface(1, tsresol=9), *others]
    for step in range(12):
        pieces += [enhanced(draft, 1 + step % 5, step=step), *others[: step % 4], draft.simple(b"x" * 21)]
    path = file(tmp_path / "a.pcapng", *pieces)
    copy = rewritten(path, forms=forms)
    after, before = blocks_of(copy), blocks_of(path)
    kept = [block for block in after if block.kind != DARWIN]
    assert [block.kind for block in kept] == [block.kind for block in before]
    for was, now in zip(before, kept, strict=True):
        assert now.body.startswith(was.body)
        assert now.body == was.body or was.kind == ENHANCED
    if not forms:
        assert copy.read_bytes() == path.read_bytes()
    assert packets(copy) == packets(path)


@pytest.mark.parametrize("order", ORDERS)
def test_the_byte_order_of_a_section_is_kept_and_obsolete_packets_get_the_comment_alone(
    tmp_path: Path, order: str
) -> None:
    draft = Draft(order)
    path = file(
        tmp_path / "a.pcapng",
        draft.section(),
        draft.interface(1, 262144, tsresol=9),
        draft.obsolete(FRAMES[1], START_NS, options=draft.option(COMMENT, b"old") + END_OF_OPTIONS),
        draft.obsolete(FRAMES[5], START_NS),
        enhanced(draft, 1, step=1),
    )
    copy = rewritten(path)
    assert packets(copy) == packets(path)
    comment = comment_text(*ENDS[1]).encode()
    old, unowned, new = (block for block in blocks_of(copy, order) if block.kind in {OBSOLETE, ENHANCED})
    assert options_of(old, order) == [(COMMENT, b"old"), (COMMENT, comment)]
    assert options_of(unowned, order) == []
    assert options_of(new, order) == [
        (COMMENT, comment),
        (PID, draft.pack("II", CURL.pid, 0)),
        (PROCESS, draft.pack("I", 0)),
        (EFFECTIVE, draft.pack("I", 1)),
    ]
    accept(copy)


def test_older_annotations_are_replaced(tmp_path: Path) -> None:
    draft = Draft()
    flags = draft.option(FLAGS, draft.pack("I", 5))
    path = file(
        tmp_path / "a.pcapng",
        draft.section(),
        draft.interface(1, 262144, tsresol=9),
        *(enhanced(draft, port, flags + END_OF_OPTIONS, port) for port in ENDS),
    )
    once = rewritten(path)
    others: dict[int, Ends] = {
        1: (None, None),
        2: (BY_SERVER, None),
        3: (None, NO_SOCKET),
        4: (BY_CURL, None),
        5: (None, None),
    }
    twice = rewritten(once, lambda flow: others[flow.source_port])
    told = [comment for (comment,) in fields(twice, "frame.comment")]
    assert told == [comment_text(*pair) for pair in others.values()]
    assert packets(twice) == packets(path)
    options = [dict(options_of(block)) for block in blocks_of(twice) if block.kind == ENHANCED]
    assert [{COMMENT, PID, PROCESS, EFFECTIVE} & found.keys() for found in options] == [
        set(),
        {COMMENT, PID, PROCESS},
        {COMMENT},
        {COMMENT, PID, PROCESS},
        set(),
    ]
    assert all(found[FLAGS] == draft.pack("I", 5) for found in options)
    accept(twice)


def test_to_rewrite_once_more_with_the_same_owners_changes_nothing(tmp_path: Path) -> None:
    draft = Draft()
    path = file(
        tmp_path / "a.pcapng",
        draft.section(),
        draft.interface(1, 262144, tsresol=9),
        *(enhanced(draft, port, step=port) for port in ENDS),
    )
    once = rewritten(path)
    assert rewritten(once).read_bytes() == once.read_bytes()


def test_options_of_others_that_say_the_same_stay_and_are_not_repeated(tmp_path: Path) -> None:
    draft = Draft()
    foreign_pid = draft.option(PID, draft.pack("II", 77, 78)) + END_OF_OPTIONS
    foreign_process = draft.option(PROCESS, draft.pack("I", 0)) + END_OF_OPTIONS
    path = file(
        tmp_path / "a.pcapng",
        draft.section(),
        draft.interface(1, 262144, tsresol=9),
        process(draft, 77),
        enhanced(draft, 2, foreign_pid),
        enhanced(draft, 2, foreign_process),
        enhanced(draft, 5, foreign_process),
        enhanced(draft, 2),
    )
    copy = rewritten(path)
    comment = (COMMENT, comment_text(*ENDS[2]).encode())
    pid, reference = draft.pack("II", CURL.pid, 0), draft.pack("I", 1)
    assert [options_of(block) for block in blocks_of(copy) if block.kind == ENHANCED] == [
        [(PID, draft.pack("II", 77, 78)), comment, (PROCESS, reference)],
        [(PROCESS, draft.pack("I", 0)), comment, (PID, pid)],
        [(PROCESS, draft.pack("I", 0))],
        [comment, (PID, pid), (PROCESS, reference)],
    ]
    accept(copy)


def test_references_to_process_blocks_of_the_input_follow_them_as_they_move(tmp_path: Path) -> None:
    draft = Draft()

    def refer(number: int) -> bytes:
        return draft.option(PROCESS, draft.pack("I", number)) + END_OF_OPTIONS

    first = [process(draft, 70, "zero"), enhanced(draft, 5, refer(0)), process(draft, 71, "one"), enhanced(draft, 2)]
    later = [
        process(draft, 72, "two"),
        *(enhanced(draft, 5, refer(number)) for number in (2, 1, 0)),
        enhanced(draft, 3),
    ]
    path = file(tmp_path / "a.pcapng", draft.section(), draft.interface(1, 262144, tsresol=9), *first, *later)
    expected = ["zero", "curl", "two", "one", "zero", "python3"]

    def names(of: Path) -> list[str]:
        with PcapNgReader(str(of)) as reader:
            return [(packet.process_information or {})["proc"]["name"] for packet in reader]

    assert names(rewritten(path)) == expected
    # The same with each block in a batch of its own, so that new blocks come between the input's.
    copy, written = tmp_path / "small.pcapng", io.BytesIO()
    writer = PcapngRewriter(written)
    for file_batch in in_small_batches(path):
        writer.write(file_batch, attribute(file_batch, ends))
    copy.write_bytes(written.getvalue())
    assert names(copy) == expected
    accept(copy)


def in_small_batches(path: Path) -> Iterable[FileBatch]:
    """The batches of a file, one for each packet with the blocks before it, as if the file were long."""
    with open_capture(str(path)) as capture:
        for whole in list(capture):
            origin = whole.origin
            assert origin is not None
            begin = 0
            for place in [*np.flatnonzero(origin.block_row >= 0).tolist(), len(origin.block_row) - 1]:
                blocks = slice(begin, place + 1)
                start = int(origin.block_offset[begin]) if begin <= place else 0
                stop = int(origin.block_offset[place] + origin.block_bytes[place])
                numbers = origin.block_row[blocks]
                packet_rows = numbers[numbers >= 0]
                columns = ("captured_bytes", "wire_bytes", "time_ns", "interface", "packet_type", "linktype")
                batch = replace(
                    whole.batch,
                    data=whole.batch.data[start:stop],
                    offset=whole.batch.offset[packet_rows] - start,
                    **{name: getattr(whole.batch, name)[packet_rows] for name in columns},
                )
                yield replace(
                    whole,
                    batch=batch,
                    options=whole.options[packet_rows],
                    origin=replace(
                        origin,
                        block_offset=origin.block_offset[blocks] - start,
                        block_bytes=origin.block_bytes[blocks],
                        block_type=origin.block_type[blocks],
                        block_row=np.where(numbers >= 0, np.cumsum(numbers >= 0) - 1, -1),
                    ),
                )
                begin = place + 1


def test_each_section_has_processes_of_its_own_and_an_open_length(tmp_path: Path) -> None:
    little, big = Draft("<"), Draft(">")
    sections = []
    for draft in (little, big, little):
        body = draft.interface(1, 262144, tsresol=9) + enhanced(draft, 1) + enhanced(draft, 3)
        sections.append(draft.section(length=len(body)) + body)
    path = file(tmp_path / "a.pcapng", *sections)
    copy = rewritten(path)
    assert packets(copy) == packets(path)
    data = copy.read_bytes()
    headers = [at for at in range(0, len(data), 4) if data[at : at + 4] == struct.pack("<I", SECTION)]
    assert len(headers) == 3
    assert {data[at + 16 : at + 24] for at in headers} == {b"\xff" * 8}
    names = [name for (name,) in fields(copy, "frame.comment")]
    assert names == [comment_text(*ENDS[port]) for port in (1, 3) * 3]
    one = tmp_path / "one.pcapng"
    for begin, end in zip(headers, [*headers[1:], len(data)], strict=True):
        one.write_bytes(data[begin:end])
        with PcapNgReader(str(one)) as reader:
            told = [{k: v["name"] for k, v in (packet.process_information or {}).items()} for packet in reader]
        assert told == [{"proc": "curl", "eproc": "python3"}, {"proc": "python3"}]
        accept(one)
    accept(copy, tcpdump=False)


def test_packets_that_are_not_wanted_are_left_out_and_nothing_else(tmp_path: Path) -> None:
    draft = Draft()
    names = draft.other_blocks()[0]
    pieces = [draft.section(), draft.interface(1, 262144, tsresol=9)]
    for step in range(20):
        pieces += [enhanced(draft, 1 + step % 5, step=step), names]
    path = file(tmp_path / "a.pcapng", *pieces)
    copy = rewritten(path, wanted=lambda block: np.flatnonzero(np.isin(block.columns.source_port, [3, 5])))
    kinds = [block.kind for block in blocks_of(copy)]
    assert kinds.count(4) == 20
    assert [port for (port,) in fields(copy, "udp.srcport")] == ["3", "5"] * 4
    assert packets(copy) == [line for row, line in enumerate(packets(path)) if row % 5 in {2, 4}]
    assert b"curl" not in copy.read_bytes()
    accept(copy)


def test_options_that_cannot_be_read_stay_as_they_are(tmp_path: Path) -> None:
    draft = Draft()
    broken = draft.pack("HH", COMMENT, 500) + b"cut off!"
    path = file(
        tmp_path / "a.pcapng",
        draft.section(),
        draft.interface(1, 262144, tsresol=9),
        enhanced(draft, 2, broken),
        enhanced(draft, 2),
    )
    before, after = blocks_of(path), blocks_of(rewritten(path))
    assert before[2] in after
    assert [len(options_of(block)) for block in after[-1:]] == [3]


def test_real_packets_of_all_kinds_stay(tmp_path: Path) -> None:
    path = tmp_path / "mixed.pcapng"
    path.write_bytes((DIRECTORY / "mixed.pcapng").read_bytes())
    copy = rewritten(path, lambda _: (BY_CURL, NO_SOCKET))
    assert packets(copy) == packets(path)
    assert {comment for (comment,) in fields(copy, "frame.comment")} == {comment_text(BY_CURL, NO_SOCKET)}
    plain = rewritten(path, nobody)
    assert packets(plain) == packets(path)


def test_many_packets_with_many_owners_keep_order_and_owner(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    draft = Draft()
    frame = FRAMES[2]
    ports = random.integers(1, 4000, 3000).tolist()
    flags = [draft.option(FLAGS, draft.pack("I", value)) + END_OF_OPTIONS for value in (1, 2, 5)]
    pieces = [draft.section(), draft.interface(1, 262144, tsresol=9)]
    for step, port in enumerate(ports):
        data = frame[:34] + port.to_bytes(2, "big") + frame[36:] + random.bytes(step % 7)
        pieces.append(draft.enhanced(data, START_NS + step, options=random.choice([*flags, b""])))
        if step % 400 == 0:
            pieces += draft.other_blocks()[:2]
    path = file(tmp_path / "a.pcapng", *pieces)
    copy = rewritten(path, lambda flow: (owner(flow.source_port), None))
    assert packets(copy) == packets(path)
    told = fields(copy, "udp.srcport", "frame.comment")
    assert told == [[str(port), comment_text(owner(port), None)] for port in ports]
    accept(copy)


def owner(port: int) -> Attribution:
    return Attribution(replace(SERVER, pid=port, name=f"server {port}"), Match.BOUND, "snapshot")


RAW_OPTIONS = st.one_of(
    st.binary(max_size=40).map(lambda raw: raw + bytes(-len(raw) % 4)),
    st.lists(
        st.tuples(
            st.sampled_from([COMMENT, FLAGS, PID, PROCESS, EFFECTIVE, 0, OTHER_OPTION]),
            st.sampled_from([b"", b"pktproc src.pid=1 src.name=a", b"pktproc ", bytes(4), b"\1\0\0\0", b"12345678"]),
        ),
        max_size=5,
    ).map(lambda options: b"".join(Draft().option(code, value) for code, value in options)),
)


@given(
    blocks=st.lists(
        st.one_of(
            st.tuples(st.sampled_from([1, 2, 3, 5]), RAW_OPTIONS),
            st.tuples(st.sampled_from([-1, -2, -3]), st.binary(max_size=20)),
        ),
        max_size=12,
    )
)
@settings(max_examples=300, deadline=None)
def test_whatever_options_a_file_has_its_packets_and_blocks_stay(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[tuple[int, bytes]]
) -> None:
    draft = Draft()
    pieces = [draft.section(), draft.interface(1, tsresol=9)]
    for kind, data in blocks:
        if kind > 0:
            pieces.append(enhanced(draft, kind, data))
        else:
            pieces.append({-1: draft.simple(data), -2: draft.block(DARWIN, data), -3: draft.block(77, data)}[kind])
    path = file(tmp_path_factory.mktemp("any") / "a.pcapng", *pieces)
    before, after = blocks_of(path), blocks_of(rewritten(path))
    assert [block.kind for block in after if block.kind != DARWIN] == [b.kind for b in before if b.kind != DARWIN]
    remaining = iter(after)
    for was in before:
        now = next(block for block in remaining if block.kind == was.kind and (was.kind != DARWIN or block == was))
        if was.kind == ENHANCED:
            (captured,) = struct.unpack_from("<I", was.body, 12)
            assert now.body[: 20 + captured] == was.body[: 20 + captured]
        else:
            assert now == was
    once = path.with_name("a-with-processes.pcapng")
    assert seen(once) == seen(path)


def seen(path: Path) -> list[tuple[bytes, int]]:
    with open_capture(str(path)) as capture:
        return [
            (batch.batch.packet(row), int(batch.batch.time_ns[row]))
            for batch in capture
            for row in range(len(batch.batch))
        ]
