"""Where TCP connections begin in a block: the same addresses and ports can carry several within milliseconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pktproc.model import Flow, Protocol
from pktproc.packets.batch import PacketBatch
from pktproc.packets.columns import Columns
from pktproc.packets.flows import FlowTable
from pktproc.packets.headers import TCP_ACK, TCP_SEQUENCE, TCP_SYN, gather

_SEQUENCE_AT = 4

_Path = tuple[int, bytes, int, bytes, int]


class Opening(NamedTuple):
    """The last connection that a flow of a block begins.

    `position` is the flow's index in its table and `time_ns` the time of the connection's first SYN. `mixed` says that
    packets of an earlier connection between the same ends come before that SYN in the block, in either direction.
    """

    position: int
    time_ns: int
    mixed: bool


class Syn(NamedTuple):
    """A TCP SYN without ACK: its row, the index of its flow, and its sequence number."""

    row: int
    position: int
    sequence: int


def syns(batch: PacketBatch, columns: Columns, table: FlowTable) -> Iterator[Syn]:
    """Yield the SYNs of a block in order; one that does not show its sequence number has 0."""
    rows = np.flatnonzero((columns.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
    if not len(rows):
        return
    end = (batch.offset + batch.captured_bytes)[rows]
    position = np.where(columns.transport_offset[rows] < 0, -1, columns.transport_offset[rows] + _SEQUENCE_AT)
    headers, _ = gather(batch.data, position, end, TCP_SEQUENCE)
    yield from map(Syn, rows.tolist(), table.flow_of[rows].tolist(), headers["sequence"].tolist())


def openings(batch: PacketBatch, columns: Columns, table: FlowTable) -> list[Opening]:
    """Return the flows of a block that a SYN begins.

    A SYN with the sequence number of the one before it is that one again, sent again or seen on another interface; any
    other begins another connection (RFC 9293 sections 3.4 and 3.8).
    """
    begins: dict[_Path, Syn] = {}
    opened: dict[int, _Path] = {}
    for syn in syns(batch, columns, table):
        path = opened[syn.position] = _path(table.flows[syn.position])
        if path not in begins or begins[path].sequence != syn.sequence:
            begins[path] = syn
    if not opened:
        return []
    first = _first_rows(table)
    found = []
    for position, path in opened.items():
        row = begins[path].row
        earliest = min(first[path], first.get(_way_back(path), row))
        found.append(Opening(position, int(batch.time_ns[row]), earliest < row))
    return found


def _first_rows(table: FlowTable) -> dict[_Path, int]:
    """Return the first row of each TCP path, whichever interface it was seen on."""
    first: dict[_Path, int] = {}
    for flow, row in zip(table.flows, table.first.tolist(), strict=True):
        if flow.protocol == Protocol.TCP:
            first.setdefault(_path(flow), row)
    return first


def _path(flow: Flow) -> _Path:
    return flow.netns, flow.source_address, flow.source_port, flow.destination_address, flow.destination_port


def _way_back(path: _Path) -> _Path:
    netns, source_address, source_port, destination_address, destination_port = path
    return netns, destination_address, destination_port, source_address, source_port
