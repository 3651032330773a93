"""A pcapng file as it was, block by block, with the processes behind its packets."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pktproc.attribution.answers import AttributedBatch
from pktproc.capture.file_batch import FileBatch, Origin
from pktproc.output.annotate import ALL_FORMS, Annotator
from pktproc.output.interleave import Buffer, Pieces, Sink, write_pieces
from pktproc.output.option_sets import CAVEATS, HAS_DARWIN, HAS_PID, IS_BROKEN, NO_OPTIONS, OptionSets
from pktproc.output.process_blocks import ProcessBlocks
from pktproc.packets.batch import Bytes, Column, PacketBatch
from pktproc.packets.pcapng import (
    BLOCK_HEAD_BYTES,
    BLOCK_TAIL_BYTES,
    DARWIN_PROCESS,
    ENHANCED_PACKET,
    OBSOLETE_PACKET,
    SECTION_HEADER,
    UNKNOWN_SECTION_BYTES,
    ByteOrder,
)

_SECTION_BYTES = slice(16, 24)
"""Place of the section length in its header: type, total length, magic and version come before (section 4.1)."""
_UNKNOWN = np.frombuffer(UNKNOWN_SECTION_BYTES.to_bytes(8, "little", signed=True), np.uint8)
_JOINT_WORDS = 3
_KEPT, _EDITED, _DROPPED = 0, 1, 2
_UNWANTED = [
    frozenset(ALL_FORMS)
    if caveats & IS_BROKEN
    else frozenset({"pid"} if caveats & HAS_PID else ()) | frozenset({"darwin"} if caveats & HAS_DARWIN else ())
    for caveats in range(CAVEATS)
]
"""The forms of annotation that a packet with such options is not given."""


class PcapngRewriter:
    """Write the blocks of a pcapng file in order, each verbatim but for the annotations of its packets.

    Enhanced packets get the options of `Annotator` in place of older ones from pktproc, obsolete packet blocks the
    comment alone, since the other options are not defined there, simple packets nothing. An option that says the same
    thing for somebody else stays and is not repeated. A section's known length becomes unknown, its byte order stays.
    Each write to the sink is of whole blocks. `count` is the number of packets written so far.
    """

    def __init__(self, sink: Sink, *, forms: Collection[str] = ALL_FORMS, cmdline: bool = True) -> None:
        self._sink = sink
        self._forms = frozenset(forms)
        self._cmdline = cmdline
        self._section: _Section | None = None
        self.count = 0

    def write(self, file_batch: FileBatch, attributed: AttributedBatch, rows: Column | None = None) -> int:
        """Write the blocks of a batch; return how many packets that were.

        Without those packets that are not among `rows` (int64 row numbers, all by default). Raise ValueError for a
        batch that is not from a pcapng file.
        """
        origin = file_batch.origin
        if origin is None:
            raise ValueError("only pcapng files have blocks to keep")
        batch = file_batch.batch
        begins = len(origin.block_type) > 0 and origin.block_type[0] == SECTION_HEADER
        if self._section is None or begins:
            self._section = _Section(origin.order, self._sink, self._forms, cmdline=self._cmdline)
        if begins:
            data = batch.data.copy()
            data[int(origin.block_offset[0]) :][_SECTION_BYTES] = _UNKNOWN
            batch = replace(batch, data=data)
        count = self._section.write(
            _Stretch(batch, origin, file_batch.options, file_batch.option_sets), attributed, rows
        )
        self.count += count
        return count


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A `FileBatch` that has blocks."""

    batch: PacketBatch
    origin: Origin
    options: Column
    option_sets: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class _Choice:
    """Hold pieces of bytes and, for each packet, the number and the length of its own."""

    pieces: list[bytes]
    index: Column
    lengths: Column

    def of(self, mask: Column) -> _Choice:
        """Return the same for some of the packets."""
        return _Choice(self.pieces, self.index[mask], self.lengths[mask])


class _Section:
    """Rewrite the batches of one section."""

    def __init__(self, order: ByteOrder, sink: Sink, forms: Collection[str], *, cmdline: bool) -> None:
        self._sink = sink
        self._processes = ProcessBlocks(order, cmdline=cmdline)
        self._annotator = Annotator(order, forms, self._processes)
        self._option_sets = OptionSets(order, self._processes)

    def write(self, stretch: _Stretch, attributed: AttributedBatch, rows: Column | None) -> int:
        batch, origin = stretch.batch, stretch.origin
        state = np.full(len(origin.block_type), _KEPT, np.uint8)
        packets = np.flatnonzero(origin.block_row >= 0)
        if rows is not None:
            wanted = np.zeros(len(batch), bool)
            wanted[rows] = True
            is_wanted = wanted[origin.block_row[packets]]
            state[packets[~is_wanted]] = _DROPPED
            packets = packets[is_wanted]
        kind = origin.block_type[packets]
        places = packets[(kind == ENHANCED_PACKET) | (kind == OBSOLETE_PACKET)]
        first = int(places[0]) if len(places) else len(state)

        numbers = self._number(stretch, attributed, places, first)
        stay, added, is_changed = self._options(stretch, places, numbers)
        places, stay, added = places[is_changed], stay.of(is_changed), added.of(is_changed)
        state[places] = _EDITED
        gaps = _gaps(batch.data, origin, state, first, self._processes.take())
        write_pieces(self._sink, _pieces(stretch, places, gaps, stay, added))
        return len(packets)

    def _number(self, stretch: _Stretch, attributed: AttributedBatch, places: Column, first: int) -> Column:
        """Return the number of the annotation of each packet, which blocks `places` hold.

        New process blocks go before block `first`, so the input's own ones from there on get a number after them.
        """
        own = np.flatnonzero(stretch.origin.block_type == DARWIN_PROCESS)
        self._keep(stretch, own[own < first])
        numbers = self._annotator.numbers(attributed, attributed.flow_of[stretch.origin.block_row[places]])
        self._keep(stretch, own[own >= first])
        return numbers

    def _keep(self, stretch: _Stretch, places: Column) -> None:
        """Count process blocks of the input."""
        begins, lengths = stretch.origin.block_offset[places].tolist(), stretch.origin.block_bytes[places].tolist()
        for begin, length in zip(begins, lengths, strict=True):
            self._processes.keep(stretch.batch.data[begin : begin + length].tobytes())

    def _options(self, stretch: _Stretch, places: Column, numbers: Column) -> tuple[_Choice, _Choice, Column]:
        """Return the options that stay with each packet, those that are added, and whether that changes its block."""
        sets = [*self._option_sets.of(stretch.option_sets), NO_OPTIONS]
        set_of = stretch.options[stretch.origin.block_row[places]]
        set_of[set_of < 0] = len(sets) - 1
        caveats = np.array([one.caveats for one in sets], np.int64)[set_of]
        caveats[stretch.origin.block_type[places] == OBSOLETE_PACKET] |= HAS_PID | HAS_DARWIN

        added = self._added(caveats, numbers)
        is_annotated = added.lengths > 0
        which = 2 * set_of + is_annotated
        pieces = [piece for one in sets for piece in (one.alone, one.before)]
        stay = _Choice(pieces, which, np.fromiter(map(len, pieces), np.int64, len(pieces))[which])
        is_changed = np.array([one.is_changed for one in sets], bool)[set_of] | is_annotated
        return stay, added, is_changed

    def _added(self, caveats: Column, numbers: Column) -> _Choice:
        """Return the annotation of each packet as far as the options that it has permit."""
        if not caveats.any():
            table = self._annotator.table()
            return _Choice(table.pieces, numbers, table.lengths[numbers])
        base = np.zeros(CAVEATS, np.int64)
        pieces: list[bytes] = []
        lengths: list[Column] = []
        for caveat in np.unique(caveats).tolist():
            table = self._annotator.table(_UNWANTED[caveat])
            base[caveat] = len(pieces)
            pieces += table.pieces
            lengths.append(table.lengths)
        index = base[caveats] + numbers
        return _Choice(pieces, index, np.concatenate(lengths)[index])


def _gaps(data: Bytes, origin: Origin, state: Column, first: int, inserted: bytes) -> dict[int, list[Buffer]]:
    """Return the bytes that come before each edited block, by its number among them, or behind the last.

    They are those of the blocks that are kept, and `inserted` before block `first`, which no edited one precedes.
    """
    kept = state == _KEPT
    is_first = np.arange(len(state) + 1) == first
    begins = np.flatnonzero(kept & (~np.concatenate(([False], kept[:-1])) | is_first[:-1]))
    lasts = np.flatnonzero(kept & (~np.concatenate((kept[1:], [False])) | is_first[1:]))
    edited = np.cumsum(state == _EDITED)[begins].tolist()
    start = origin.block_offset[begins].tolist()
    end = (origin.block_offset[lasts] + origin.block_bytes[lasts]).tolist()
    view = data.data
    runs: list[tuple[int, Buffer]] = [(number, view[i:j]) for number, i, j in zip(edited, start, end, strict=True)]
    if inserted:
        runs.insert(int(np.searchsorted(begins, first)), (0, inserted))
    gaps: dict[int, list[Buffer]] = {}
    for number, piece in runs:
        gaps.setdefault(number, []).append(piece)
    return gaps


def _pieces(stretch: _Stretch, places: Column, gaps: dict[int, list[Buffer]], stay: _Choice, added: _Choice) -> Pieces:
    """Return the pieces of the edited blocks: what is between total length and options stays as it is."""
    batch, origin = stretch.batch, stretch.origin
    rows, begin = origin.block_row[places], origin.block_offset[places]
    end = batch.offset[rows] + ((batch.captured_bytes[rows] + 3) & ~3)
    end = np.minimum(end, begin + origin.block_bytes[places] - BLOCK_TAIL_BYTES)
    total_bytes = end - begin + stay.lengths + added.lengths + BLOCK_TAIL_BYTES
    words = np.zeros((len(places) + 1, _JOINT_WORDS), f"{origin.order}u4")
    words[1:, 0] = total_bytes
    words[:-1, 1] = origin.block_type[places]
    words[:-1, 2] = total_bytes
    joints: list[bytes] = words.view(f"V{words.itemsize * _JOINT_WORDS}").reshape(-1).tolist()
    start = begin + BLOCK_HEAD_BYTES
    return Pieces(joints, batch.data, start, end, stay.pieces, stay.index, added.pieces, added.index, gaps)
