"""When the connections between two TCP ends began, as the SYNs of a capture tell."""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import NamedTuple

from cachetools import LRUCache

from pktproc.model import Flow
from pktproc.packets.batch import Column, PacketBatch
from pktproc.packets.columns import Columns
from pktproc.packets.flows import FlowTable
from pktproc.packets.openings import syns

MAX_PAIRS = 1 << 16
MAX_ERAS = 1 << 10

End = tuple[bytes, int]
Pair = frozenset[End]


class Era(NamedTuple):
    """The time of one connection between two ends: from its SYN to the next one, None where a capture shows none.

    `initiator` is the end that sent the SYN.
    """

    begin_ns: int | None
    end_ns: int | None
    initiator: End | None = None


WHOLE = Era(None, None)


class Eras:
    """Remember the SYNs between pairs of TCP ends, the latest `MAX_ERAS` of each of the latest `MAX_PAIRS` pairs."""

    def __init__(self) -> None:
        self._begins: LRUCache[Pair, list[tuple[int, End]]] = LRUCache(MAX_PAIRS)
        self._sequences: LRUCache[tuple[End, End], int] = LRUCache(MAX_PAIRS)

    def note(self, time_ns: Column, batch: PacketBatch, columns: Columns, table: FlowTable) -> set[Pair]:
        """Take note of the SYNs of a block; return the pairs between which a connection begins in it.

        `time_ns` is the column of times by which eras are told apart.

        A SYN with the sequence number of the one before it is that one again (RFC 9293 section 3.8.1).
        """
        begun: set[Pair] = set()
        for syn in syns(batch, columns, table):
            way = _way(table.flows[syn.position])
            if self._sequences.get(way) == syn.sequence:
                continue
            self._sequences[way] = syn.sequence
            pair = frozenset(way)
            begins = self._begins.setdefault(pair, [])
            insort(begins, (int(time_ns[syn.row]), way[0]))
            del begins[:-MAX_ERAS]
            begun.add(pair)
        return begun

    def of(self, flow: Flow) -> list[tuple[int, End]]:
        """Return the beginnings of the connections between a flow's ends, in order of time, each with its initiator."""
        return self._begins.get(pair_of(flow), [])


def pair_of(flow: Flow) -> Pair:
    """Return the two ends of a flow, whichever way it goes."""
    return frozenset(_way(flow))


def era_at(begins: list[tuple[int, End]], time_ns: int) -> Era:
    """Return the era that a time lies in."""
    after = bisect_right(begins, time_ns, key=_time)
    end_ns = begins[after][0] if after < len(begins) else None
    return Era(*begins[after - 1][:1], end_ns, begins[after - 1][1]) if after else Era(None, end_ns)


def _time(begin: tuple[int, End]) -> int:
    return begin[0]


def _way(flow: Flow) -> tuple[End, End]:
    return (flow.source_address, flow.source_port), (flow.destination_address, flow.destination_port)
