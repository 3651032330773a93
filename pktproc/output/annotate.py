"""The annotations of packets as options of their blocks, made once for each pair of owners."""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import numpy as np

from pktproc.attribution.answers import AttributedBatch
from pktproc.model import Attribution, Process
from pktproc.output.process_blocks import ProcessBlocks
from pktproc.packets.annotations import MAX_HOLDERS, comment_text
from pktproc.packets.batch import Column
from pktproc.packets.pcapng import (
    EPB_DARWIN_EFFECTIVE_PROCESS,
    EPB_DARWIN_PROCESS,
    EPB_PROCESSID_THREADID,
    OPT_COMMENT,
    OPT_END,
    ByteOrder,
    option,
)

Form = Literal["comment", "pid", "darwin"]
ALL_FORMS: frozenset[Form] = frozenset({"comment", "pid", "darwin"})

MAX_OWNERS = 1 << 15
"""Pairs of owners whose annotation is kept: more flows than a busy host has at one time, about 1 kB each."""

NO_ANNOTATION, BARE_END = 0, 1
"""Numbers that no owners have: of nothing at all, and of an opt_endofopt alone."""

_NO_THREAD = 0
_Ends = tuple[Attribution | None, Attribution | None]
_NO_KEYS = np.array([np.inf], np.complex128)


class Annotation(NamedTuple):
    """The options that tell a packet's owners, each empty where it is not wanted or there is nothing to tell."""

    comment: bytes = b""
    pid: bytes = b""
    darwin: bytes = b""


class Table:
    """Hold all annotations in some forms, by their number, each with opt_endofopt behind its options, and lengths."""

    def __init__(self, forms: frozenset[str], end: bytes) -> None:
        self._forms = forms
        self._end = end
        self.pieces = [b"", end]
        self.lengths: Column = np.array([0, len(end)], np.int64)

    def extend(self, annotations: Sequence[Annotation]) -> None:
        """Take in those that are new."""
        fresh = [self._encode(annotation) for annotation in annotations[len(self.pieces) :]]
        if fresh:
            self.pieces += fresh
            self.lengths = np.concatenate((self.lengths, [len(piece) for piece in fresh]))

    def _encode(self, annotation: Annotation) -> bytes:
        comment, pid, darwin = annotation
        options = (comment, "comment"), (pid, "pid"), (darwin, "darwin")
        chosen = b"".join(encoded for encoded, form in options if form in self._forms)
        return chosen + self._end if chosen else b""


class Annotator:
    """Encode the owners of flows for the packets of one section; `processes` numbers its process blocks.

    `forms` are some of `comment`, `pid` (epb_processid_threadid) and `darwin` (references to process blocks). The last
    two tell the process of the end on this host, which is the sender's where that has one, else the receiver's; with
    two, `darwin` also tells the receiver's, as the effective process.
    """

    def __init__(self, order: ByteOrder, forms: Collection[str], processes: ProcessBlocks) -> None:
        self._order: ByteOrder = order
        self._forms = frozenset(forms)
        self._processes = processes
        self._forget()

    def numbers(self, attributed: AttributedBatch, flow_of: Column) -> Column:
        """Return the number of an annotation for each packet of a block, given by its flow, `NO_ANNOTATION` for none.

        Numbers are good until the next call.
        """
        if not self._forms:
            return np.full(len(flow_of), NO_ANNOTATION, np.int64)
        if len(self._owners) > MAX_OWNERS:
            self._forget()
        met = np.zeros(len(attributed.flows), bool)
        met[flow_of] = True
        flows = np.flatnonzero(met)
        sources, destinations = attributed.source, attributed.destination
        if len(flows) < len(met):
            sources = list(map(sources.__getitem__, flows.tolist()))
            destinations = list(map(destinations.__getitem__, flows.tolist()))
        # A complex number for the identities of both: exact, since addresses have less than 53 bits, and sortable.
        keys = _identities(sources) + 1j * _identities(destinations)
        place = np.searchsorted(self._keys, keys)
        missing = np.flatnonzero(self._keys[place] != keys)
        if len(missing):
            fresh, first = np.unique(keys[missing], return_index=True)
            self._learn(fresh, [(sources[at], destinations[at]) for at in missing[first].tolist()])
            place = np.searchsorted(self._keys, keys)
        numbers = np.zeros(len(met), np.int64)
        numbers[flows] = self._numbers[place]
        return numbers[flow_of]

    def table(self, without: frozenset[str] = frozenset()) -> Table:
        """Return the annotations that have a number so far, without some of the forms."""
        if without not in self._tables:
            self._tables[without] = Table(self._forms - without, option(OPT_END, b"", self._order))
        table = self._tables[without]
        table.extend(self._annotations)
        return table

    def _forget(self) -> None:
        self._annotations = [Annotation(), Annotation()]  # NO_ANNOTATION, BARE_END
        self._known: dict[_Ends, int] = {}
        # Identities stand for owners as long as these live.
        self._owners: list[_Ends] = []
        self._keys = _NO_KEYS
        self._numbers: Column = np.zeros(1, np.int64)
        self._tables: dict[frozenset[str], Table] = {}

    def _learn(self, keys: Column, owners: Sequence[_Ends]) -> None:
        """Make annotations for pairs of owners with new keys, which are in order."""
        numbers = np.fromiter(map(self._number, owners), np.int64, len(keys))
        self._owners += owners
        place = np.searchsorted(self._keys, keys)
        self._keys, self._numbers = np.insert(self._keys, place, keys), np.insert(self._numbers, place, numbers)

    def _number(self, owners: _Ends) -> int:
        """Return the number of the annotation for two owners; equal ones share it."""
        number = self._known.get(owners)
        if number is None:
            annotation = self._make(*owners)
            number = self._known[owners] = len(self._annotations) if any(annotation) else NO_ANNOTATION
            if number != NO_ANNOTATION:
                self._annotations.append(annotation)
        return number

    def _make(self, source: Attribution | None, destination: Attribution | None) -> Annotation:
        comment = pid = darwin = b""
        if "comment" in self._forms and (text := comment_text(source, destination)):
            comment = option(OPT_COMMENT, text.encode("ascii"), self._order)
        local, effective = _processes(source, destination)
        if local is not None and "pid" in self._forms:
            value = struct.pack(f"{self._order}II", local.pid & 0xFFFFFFFF, _NO_THREAD)
            pid = option(EPB_PROCESSID_THREADID, value, self._order)
        if "darwin" in self._forms:
            if local is not None:
                darwin = self._reference(EPB_DARWIN_PROCESS, local)
            if effective is not None:
                darwin += self._reference(EPB_DARWIN_EFFECTIVE_PROCESS, effective)
            self._number_holders(source, destination)
        return Annotation(comment, pid, darwin)

    def _reference(self, code: int, process: Process) -> bytes:
        return option(code, struct.pack(f"{self._order}I", self._processes.number(process)), self._order)

    def _number_holders(self, *ends: Attribution | None) -> None:
        """Describe several holders too: a comment has only their pids."""
        for end in ends:
            if end is not None and len(end.holders) > (0 if end.process is None else 1):
                for holder in end.holders[:MAX_HOLDERS]:
                    self._processes.number(holder)


def _identities(objects: Sequence[object]) -> Column:
    return np.fromiter(map(id, objects), np.int64, len(objects))


def _processes(source: Attribution | None, destination: Attribution | None) -> tuple[Process | None, Process | None]:
    """Return the process of the end on this host, and that of the receiver where both have one."""
    sender = source.process if source else None
    receiver = destination.process if destination else None
    return (sender, receiver) if sender is not None else (receiver, None)
