"""The answers for a block of packets, and those that are kept for the next ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from pktproc.model import Attribution, Flow, Match, Reason, SocketId
from pktproc.packets.batch import Column, PacketBatch
from pktproc.packets.columns import Columns
from pktproc.packets.headers import TCP_RST


class Weights(NamedTuple):
    """How many packets each row of a block stands for, and their bytes at the layer that is counted, int64."""

    packets: Column
    bytes: Column


@dataclass(frozen=True, slots=True)
class AttributedBatch:
    """Hold a block of packets with the owners of their ends.

    `flow_of` (int64, one entry for each packet) indexes `flows`, `source` and `destination`, which have one entry for
    each distinct flow, as has `first` (int64), the row of its first packet. An end that is not on this host is None.
    `pending` are the indices of the flows with an answer that may still change. With `weights`, rows stand for packets
    that nobody has but the kernel, which counted them.
    """

    batch: PacketBatch
    columns: Columns
    flow_of: Column
    flows: list[Flow]
    first: Column
    source: list[Attribution | None]
    destination: list[Attribution | None]
    pending: set[int] = field(default_factory=set)
    weights: Weights | None = None

    @property
    def packets(self) -> int:
        """Return how many packets the block stands for."""
        return len(self.batch) if self.weights is None else int(self.weights.packets.sum())


def only_resets(attributed: AttributedBatch) -> frozenset[int]:
    """Return which flows of a block are nothing but RSTs, by their index."""
    flow_of = attributed.flow_of
    resets = flow_of[(attributed.columns.tcp_flags & TCP_RST) != 0]
    if not len(resets):
        return frozenset()
    flows = len(attributed.source)
    only = np.bincount(resets, minlength=flows) == np.bincount(flow_of, minlength=flows)
    return frozenset(np.flatnonzero(only).tolist())


def undivided(end: Attribution | None) -> Attribution | None:
    """Return the answer for packets that were counted together: whose they are is not known if they are of several."""
    if end is None or end.match is not Match.SHARED:
        return end
    return Attribution(reason=Reason.AMBIGUOUS, evidence=end.evidence, holders=end.holders, final=end.final)


class Reply(NamedTuple):
    """What is answered for an end, and until when that is good."""

    attribution: Attribution
    until_ns: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold an attribution with the sockets it rests on.

    They were first asked for at `asked_ns`, last found at `confirmed_ns`, and the answer is good until `until_ns`.
    `is_live` says that a connection was open then.
    """

    attribution: Attribution
    sockets: tuple[SocketId, ...]
    asked_ns: int
    confirmed_ns: int
    until_ns: int
    is_live: bool = False
