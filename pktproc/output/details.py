"""The part of each line that differs from packet to packet, worked out for a whole block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pktproc.attribution.answers import AttributedBatch
from pktproc.model import Flow, Protocol
from pktproc.output import wording
from pktproc.output.tcp import CUT, TCP_HEADER, Conversation, tcp_texts
from pktproc.packets.batch import Column
from pktproc.packets.headers import Layout, gather
from pktproc.packets.linktypes import ETHERTYPE_ARP

_FRAGMENT_NOTES = ("", " (first fragment)", " (later fragment)")
_LATER_FRAGMENT = 2


@dataclass(frozen=True, slots=True)
class FlowText:
    """What every line of a flow has in common.

    `family` is `IP `, `IP6 `, `ARP, ` or empty, `between` is both ends with their owners and a colon. It is empty for
    packets that are not IP, for which `owners` is what to say of them at the end of the line.
    """

    flow: Flow
    family: str
    between: str
    owners: str
    conversation: tuple[Conversation, int]


@dataclass(frozen=True, slots=True)
class Head:
    """What the lines have in common of packets of a flow that came the same way on the same interface.

    `where` is the interface and the way, `text` all up to the details, `label` the protocol with what is constant of
    it, `sized` the same up to where the length follows.
    """

    where: str
    text: str
    label: str
    sized: str
    flow: FlowText


class Details:
    """Word the details of chosen packets of a block: `rows` are row numbers, `heads` has one entry for each of them."""

    def __init__(self, attributed: AttributedBatch, rows: Column, heads: Sequence[Head]) -> None:
        self._batch = attributed.batch
        self._columns = attributed.columns
        self._rows = rows
        self._heads = heads
        self._texts = [""] * len(rows)

    def texts(self, *, quiet: bool) -> list[str]:
        """Return what follows the colon of each line; `quiet` gives no more of TCP than the length."""
        protocol, fragment = self._columns.protocol[self._rows], self._columns.fragment[self._rows]
        others = np.arange(len(self._rows))
        if not quiet:
            is_tcp = (protocol == Protocol.TCP) & (fragment != _LATER_FRAGMENT)
            self._put_tcp(np.flatnonzero(is_tcp))
            others = np.flatnonzero(~is_tcp)
        if len(others):
            self._put_others(others)
        if fragment.any():
            for at in np.flatnonzero(fragment).tolist():
                self._texts[at] += _FRAGMENT_NOTES[fragment[at]]
        return self._texts

    def _gather(self, places: Column, position: Column, layout: Layout) -> tuple[Column, Column]:
        chosen = self._rows[places]
        end = self._batch.offset[chosen] + self._batch.captured_bytes[chosen]
        return gather(self._batch.data, position[chosen], end, layout)

    def _put_tcp(self, places: Column) -> None:
        if not len(places):
            return
        headers, ok = self._gather(places, self._columns.transport_offset, TCP_HEADER)
        if not ok.all():
            for at in places[~ok].tolist():
                self._texts[at] = CUT
            places, headers = places[ok], headers[ok]
        chosen, numbers = self._rows[places], places.tolist()
        flags, lengths = self._columns.tcp_flags[chosen], self._columns.payload_bytes[chosen]
        texts = tcp_texts(headers, flags, lengths, [self._heads[at].flow.conversation for at in numbers])
        if len(texts) == len(self._texts):
            self._texts = texts
            return
        for at, text in zip(numbers, texts, strict=True):
            self._texts[at] = text

    def _put_others(self, places: Column) -> None:
        chosen = self._rows[places]
        protocol, icmp_type = self._columns.protocol[chosen], self._columns.icmp_type[chosen]
        lengths = wording.lengths(protocol, self._columns.payload_bytes[chosen], self._columns.fragment[chosen])
        for at, length in zip(places.tolist(), lengths.tolist(), strict=True):
            self._texts[at] = f"{self._heads[at].sized}{length}"
        is_echo = wording.is_echo(protocol, icmp_type)
        self._put_echoes(places[is_echo], lengths[is_echo])
        self._put_frames(places[protocol < 0])

    def _put_echoes(self, places: Column, lengths: Column) -> None:
        if not len(places):
            return
        headers, ok = self._gather(places, self._columns.transport_offset, wording.ECHO_HEADER)
        rows = zip(places[ok].tolist(), headers["sequence"][ok].tolist(), lengths[ok].tolist(), strict=True)
        for at, sequence, length in rows:
            self._texts[at] = f"{self._heads[at].label}, seq {sequence}, length {length}"

    def _put_frames(self, places: Column) -> None:
        """Word packets that are not IP; their length is that of all that the link layer carries."""
        if not len(places):
            return
        chosen = self._rows[places]
        start = self._columns.network_offset[chosen]
        carried = self._batch.wire_bytes[chosen] - np.where(start < 0, 0, start - self._batch.offset[chosen])
        headers, ok = self._gather(places, self._columns.network_offset, wording.ARP_HEADER)
        is_arp = ok & (self._columns.ethertype[chosen] == ETHERTYPE_ARP)
        for index, (at, length) in enumerate(zip(places.tolist(), carried.tolist(), strict=True)):
            head = self._heads[at]
            text = wording.arp(headers[index], length) if is_arp[index] else f"{head.sized}{length}"
            self._texts[at] = text + head.flow.owners
