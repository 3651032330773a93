"""The owners that the packets of a capture file carry with them: pktproc's own annotations, and Apple's.

A comment of pktproc's tells both ends. Without one, a reference to a Darwin process block or epb_processid_threadid
tells the process of the end on the capturing host: which end that is only the packet's direction can say. What goes
beyond a pid and a name is told by the process block, in its comment.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from pktproc.attribution.answers import AttributedBatch
from pktproc.errors import FormatError
from pktproc.model import Attribution, Direction, Flow, Process
from pktproc.packets.annotations import AnnotatedEnd, ProcessFacts, parse_comment, parse_process
from pktproc.packets.batch import Bytes, Column, PacketBatch
from pktproc.packets.columns import Columns
from pktproc.packets.flows import FlowTable
from pktproc.packets.pcapng import (
    BLOCK_HEAD_BYTES,
    BLOCK_TAIL_BYTES,
    DARWIN_PROCESS,
    DARWIN_PROCESS_NAME,
    EPB_DARWIN_EFFECTIVE_PROCESS,
    EPB_DARWIN_PROCESS,
    EPB_PROCESSID_THREADID,
    OPT_COMMENT,
    SECTION_HEADER,
    ByteOrder,
    read_options,
)

EVIDENCE = "file"
"""The evidence of an owner that is not told by pktproc."""

MAX_PROCESSES = 1 << 16
"""Process blocks of a section that are kept; later ones are not known."""
MAX_SETS = 1 << 14
"""Sets of options that are kept taken apart, each at most `_MAX_SET_BYTES` long."""
_MAX_SET_BYTES = 1 << 11

_WORD_OPTIONS = frozenset({EPB_PROCESSID_THREADID, EPB_DARWIN_PROCESS, EPB_DARWIN_EFFECTIVE_PROCESS})
_WORD_BYTES = 4
_NO_PID = 0xFFFFFFFF
_NO_NAME = ""
_NOTHING = 0
Ends = tuple[Attribution | None, Attribution | None]


class Blocks(Protocol):
    """The blocks of a pcapng file that a batch was read from, in order; see `pktproc.capture.file_batch.Origin`."""

    @property
    def order(self) -> ByteOrder:
        """Return the section's byte order."""

    @property
    def block_offset(self) -> Column:
        """Return the position of each block in the batch's data."""

    @property
    def block_bytes(self) -> Column:
        """Return the whole length of each block."""

    @property
    def block_type(self) -> Column:
        """Return the type of each block."""


class _Described(NamedTuple):
    """A process block's process; `is_ours` says that pktproc wrote the block."""

    process: Process
    is_ours: bool


class _Carried(NamedTuple):
    """What a set of options says: the owners of both ends, or the processes of what Apple's options call by name."""

    ends: Ends | None = None
    local: _Described | None = None
    effective: _Described | None = None


class CarriedAttributions:
    """Give the packets of a file the owners that they carry; batches come in the order of the file."""

    def __init__(self) -> None:
        self._begin_section()

    def attribute(
        self,
        batch: PacketBatch,
        columns: Columns,
        table: FlowTable,
        *,
        options: Column,
        option_sets: Sequence[bytes],
        blocks: Blocks | None,
    ) -> AttributedBatch:
        """Return a batch with its owners; a flow with different ones stands in it once for each.

        `options` is the number of each packet's set of options among `option_sets`, -1 for none. Without `blocks`, as
        in a pcap file, there are no owners.
        """
        carried = np.full(len(batch), _NOTHING, np.int64)
        if blocks is not None:
            self._read_processes(batch.data, blocks)
            numbers = [*(self._number(raw, blocks.order) for raw in option_sets), _NOTHING]
            carried = np.array(numbers, np.int64)[options]  # the last one is for -1
        flow_of, first, flows = table.flow_of, table.first, table.flows
        carried_first = carried[first]
        others = np.flatnonzero(carried != carried_first[flow_of])
        if len(others):
            keys = flow_of[others] * len(self._carried) + carried[others]
            _, met, number = np.unique(keys, return_index=True, return_inverse=True)
            flow_of = flow_of.copy()
            flow_of[others] = len(flows) + number.reshape(-1)
            flows = flows + [flows[flow] for flow in table.flow_of[others[met]].tolist()]
            first = np.concatenate((first, others[met]))
            carried_first = carried[first]
        if carried_first.any():
            ends = [self._ends(*of) for of in zip(carried_first.tolist(), flows, strict=True)]
        else:
            ends = [(None, None)] * len(flows)
        return AttributedBatch(
            batch=batch,
            columns=columns,
            flow_of=flow_of,
            flows=flows,
            first=first,
            source=[source for source, _ in ends],
            destination=[destination for _, destination in ends],
        )

    def _begin_section(self) -> None:
        self._processes: list[_Described | None] = []
        self._by_pid: dict[int, Process] = {}
        self._forget()

    def _forget(self) -> None:
        self._carried = [_Carried()]
        self._numbers: dict[_Carried, int] = {self._carried[_NOTHING]: _NOTHING}
        self._sets: dict[bytes, int] = {}
        self._directed: dict[tuple[int, int], Ends] = {}

    def _read_processes(self, data: Bytes, blocks: Blocks) -> None:
        """Read the process blocks of a batch; one that is broken counts too."""
        if max(len(self._carried), len(self._sets)) > MAX_SETS:
            self._forget()
        if len(blocks.block_type) and blocks.block_type[0] == SECTION_HEADER:
            self._begin_section()
        for place in np.flatnonzero(blocks.block_type == DARWIN_PROCESS).tolist():
            if len(self._processes) >= MAX_PROCESSES:
                return
            begin = int(blocks.block_offset[place])
            end = begin + int(blocks.block_bytes[place]) - BLOCK_TAIL_BYTES
            described = _described(data[begin + BLOCK_HEAD_BYTES : end].tobytes(), blocks.order)
            self._processes.append(described)
            if described is not None:
                self._by_pid[described.process.pid] = described.process

    def _number(self, raw: bytes, order: ByteOrder) -> int:
        number = self._sets.get(raw)
        if number is None:
            carried = self._read(raw, order)
            number = self._numbers.setdefault(carried, len(self._carried))
            if number == len(self._carried):
                self._carried.append(carried)
            if len(raw) <= _MAX_SET_BYTES:
                self._sets[raw] = number
        return number

    def _read(self, raw: bytes, order: ByteOrder) -> _Carried:
        try:
            options = list(read_options(raw, order))
        except FormatError:
            return _Carried()
        told: dict[int, int] = {}
        comment = None
        for code, value in options:
            if code == OPT_COMMENT:
                comment = comment or parse_comment(value.decode("utf-8", "replace"))
            elif code in _WORD_OPTIONS and len(value) >= _WORD_BYTES:
                (told[code],) = struct.unpack_from(f"{order}I", value)
        local = self._described(told.get(EPB_DARWIN_PROCESS))
        effective = self._described(told.get(EPB_DARWIN_EFFECTIVE_PROCESS))
        if comment is not None:
            named = [described.process for described in (local, effective) if described is not None]
            return _Carried(ends=(self._answer(comment.source, named), self._answer(comment.destination, named)))
        pid = told.get(EPB_PROCESSID_THREADID, 0)
        if local is None and 0 < pid < _NO_PID:
            local = _Described(_unnamed(pid), is_ours=False)
        return _Carried(local=local, effective=effective)

    def _described(self, number: int | None) -> _Described | None:
        return None if number is None or number >= len(self._processes) else self._processes[number]

    def _answer(self, end: AnnotatedEnd | None, named: Sequence[Process]) -> Attribution | None:
        """Return the answer that a comment gives for an end; `named` are the processes that its packet refers to."""
        if end is None:
            return None
        if end.pid is None:
            holders = tuple(map(self._holder, end.holders))
            return Attribution(reason=end.reason, evidence=end.evidence, holders=holders)
        known = next((process for process in named if process.pid == end.pid), _unnamed(end.pid))
        process = replace(known, name=end.name or _NO_NAME)
        holders = tuple(process if pid == end.pid else self._holder(pid) for pid in end.holders)
        return Attribution(process, end.match, end.evidence, holders=holders or (process,))

    def _holder(self, pid: int) -> Process:
        return self._by_pid.get(pid) or _unnamed(pid)

    def _ends(self, number: int, flow: Flow) -> Ends:
        key = (number, flow.direction)
        ends = self._directed.get(key)
        if ends is None:
            ends = self._directed[key] = _directed(self._carried[number], flow.direction)
        return ends


def _directed(carried: _Carried, direction: int) -> Ends:
    """Return the owners of the ends of a flow; what only one end can have, and no direction tells which, has none."""
    if carried.ends is not None:
        return carried.ends
    local, effective = carried.local, carried.effective
    if local is None:
        return None, None
    if effective is not None and effective.is_ours:
        return _owner(local), _owner(effective)
    if direction == Direction.OUTGOING:
        return _owner(local), None
    return None, _owner(local) if direction == Direction.INCOMING else None


def _owner(described: _Described) -> Attribution:
    return Attribution(described.process, evidence=EVIDENCE, holders=(described.process,))


def _described(body: bytes, order: ByteOrder) -> _Described | None:
    """Return the process of a Darwin process block's body, None for a broken one."""
    if len(body) < _WORD_BYTES:
        return None
    try:
        options = list(read_options(body[_WORD_BYTES:], order))
    except FormatError:
        return None
    name, facts = _NO_NAME, None
    for code, value in options:
        if code == DARWIN_PROCESS_NAME:
            name = value.partition(b"\0")[0].decode("utf-8", "surrogateescape")
        elif code == OPT_COMMENT:
            facts = facts or parse_process(value.decode("utf-8", "replace"))
    (pid,) = struct.unpack_from(f"{order}I", body)
    told = facts or ProcessFacts()
    return _Described(Process(pid=pid, name=name, **told._asdict()), is_ours=facts is not None)


def _unnamed(pid: int) -> Process:
    return Process(pid, 0, 0, _NO_NAME)
