"""The options that packets of an input file carry, taken apart so that annotations can be put in their place."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from pktproc.errors import FormatError
from pktproc.output.process_blocks import ProcessBlocks
from pktproc.packets.annotations import PREFIX
from pktproc.packets.pcapng import (
    EPB_DARWIN_EFFECTIVE_PROCESS,
    EPB_DARWIN_PROCESS,
    EPB_PROCESSID_THREADID,
    OPT_COMMENT,
    OPT_END,
    ByteOrder,
    option,
    read_options,
)

HAS_PID, HAS_DARWIN, IS_BROKEN = 1, 2, 4
"""Why a packet is not given an annotation: it has a foreign one of that form, or options that cannot be read."""
CAVEATS = 8

_OURS = PREFIX.encode()
_DARWIN = frozenset({EPB_DARWIN_PROCESS, EPB_DARWIN_EFFECTIVE_PROCESS})
_REPLACED = frozenset({EPB_PROCESSID_THREADID, *_DARWIN})
_INDEX_BYTES = 4

# Files annotated before have as many sets as owners; 4 MiB of the usual ones.
_MAX_KNOWN = 1 << 14
_MAX_KNOWN_BYTES = 1 << 10


class OptionSet(NamedTuple):
    """The options of a packet that stay.

    `alone` is how they are written without an annotation, `before` what comes before one. `caveats` are some of
    `HAS_PID`, `HAS_DARWIN` and `IS_BROKEN`; `is_changed` says that `alone` is not what the input has.
    """

    alone: bytes
    before: bytes
    caveats: int
    is_changed: bool


NO_OPTIONS = OptionSet(b"", b"", 0, is_changed=False)


class OptionSets:
    """Take sets of options apart for one section, of which `processes` numbers the process blocks.

    Of a packet with a comment of pktproc's, that comment and the pid and process references are left out; everything
    else stays as it is, but for the numbers of process blocks that moved.
    """

    def __init__(self, order: ByteOrder, processes: ProcessBlocks) -> None:
        self._order: ByteOrder = order
        self._processes = processes
        self._known: dict[bytes, OptionSet] = {}

    def of(self, sets: Sequence[bytes]) -> list[OptionSet]:
        """Return what stays of each set."""
        return [self._known.get(raw) or self._part(raw) for raw in sets]

    def _part(self, raw: bytes) -> OptionSet:
        try:
            options = list(read_options(raw, self._order))
        except FormatError:
            return OptionSet(raw, raw, IS_BROKEN, is_changed=False)
        ours = any(code == OPT_COMMENT and value.startswith(_OURS) for code, value in options)
        if ours:
            options = [one for one in options if one[0] not in _REPLACED and not _is_our_comment(*one)]
        codes = {code for code, _ in options}
        before = b"".join(option(code, self._moved(code, value), self._order) for code, value in options)
        caveats = (HAS_PID if EPB_PROCESSID_THREADID in codes else 0) | (HAS_DARWIN if codes & _DARWIN else 0)
        is_changed = ours or (self._processes.moved and bool(codes & _DARWIN))
        alone = raw if not is_changed else before + option(OPT_END, b"", self._order) if before else b""
        made = OptionSet(alone, before, caveats, is_changed)
        if not codes & _DARWIN and len(raw) <= _MAX_KNOWN_BYTES:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[raw] = made
        return made

    def _moved(self, code: int, value: bytes) -> bytes:
        """Return an option's value, with the number that a process block has now."""
        if code not in _DARWIN or len(value) != _INDEX_BYTES:
            return value
        (number,) = struct.unpack(f"{self._order}I", value)
        return struct.pack(f"{self._order}I", self._processes.renumbered(number) & 0xFFFFFFFF)


def _is_our_comment(code: int, value: bytes) -> bool:
    return code == OPT_COMMENT and value.startswith(_OURS)
