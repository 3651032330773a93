"""A stretch of a capture file: its packets as a batch, and what a rewriter needs to keep all the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pktproc.packets.batch import Column, PacketBatch
from pktproc.packets.pcapng import ByteOrder

DEFAULT_TSRESOL = 6
MAX_RECORD_BYTES = 1 << 24
"""The largest block or packet that is taken for one; a corrupt length must not make the reader wait for gigabytes."""


class SectionInterface(NamedTuple):
    """An interface description of a pcapng section.

    `name` is empty where the file gives none; `tsresol` the raw byte of if_tsresol (with its top bit a power of two,
    without it a power of ten); `tsoffset` if_tsoffset in seconds; `snaplen` 0 for no limit.
    """

    linktype: int
    snaplen: int = 0
    name: str = ""
    tsresol: int = DEFAULT_TSRESOL
    tsoffset: int = 0


@dataclass(frozen=True, slots=True)
class Origin:
    """Hold the pcapng blocks of a batch, in the order of the file; a section header begins a batch.

    The columns are int64 with one entry for every block, packet or not: `block_offset` its position within the batch's
    `data`, `block_bytes` its whole length, `block_type` its type, and `block_row` the batch's row of its packet, -1 for
    a block that is no packet. The blocks lie one behind the other and fill `data`. `section_interfaces` are those of
    the section that were described up to the end of the batch, `process_blocks` the number of Darwin process blocks
    that the section had before the batch.
    """

    order: ByteOrder
    block_offset: Column
    block_bytes: Column
    block_type: Column
    block_row: Column
    section_interfaces: tuple[SectionInterface, ...]
    process_blocks: int


@dataclass(frozen=True, slots=True)
class FileBatch:
    """Hold a stretch of a capture file.

    The batch's `interfaces` are all that were met up to its end, over all sections. `origin` is None for pcap.
    `options` is int64 for each packet, an index into `option_sets`, -1 for a packet without options; `option_sets` are
    the distinct bytes of options as they stand in the file, in its byte order, with opt_endofopt where it was written.
    """

    batch: PacketBatch
    origin: Origin | None
    options: Column
    option_sets: list[bytes]
