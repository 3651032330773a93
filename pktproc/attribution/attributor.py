"""Flows in, owners out: find out which ends are on this host and ask the index for them, once per block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from pktproc.attribution.answers import Answer, AttributedBatch, Reply, Weights, only_resets, undivided
from pktproc.attribution.clocks import monotonic_offset_ns
from pktproc.attribution.endings import Exit
from pktproc.attribution.ends import FORWARDED, NOT_IP, destination_end, sent_by_kernel, source_end
from pktproc.attribution.engine import Ends, Engine, Query, Witness, asked_ends
from pktproc.attribution.index import ConnectionIndex
from pktproc.attribution.locality import REFRESH_NS, AddressBook, is_multicast
from pktproc.attribution.lookahead import Sighting
from pktproc.attribution.resets import path_of, path_of_query, resets
from pktproc.attribution.turns import Period
from pktproc.attribution.witnessed import Witnessed
from pktproc.model import Attribution, Direction, Flow, Interface, PacketType, Protocol, Reason
from pktproc.packets.batch import Column, PacketBatch, one_packet
from pktproc.packets.columns import unseen
from pktproc.packets.decode import decode
from pktproc.packets.flows import FlowTable, KnownFlows, distinct_flows
from pktproc.packets.fragments import FragmentTable
from pktproc.packets.linktypes import LINKTYPE_ETHERNET
from pktproc.packets.openings import Opening, openings

MAX_KNOWN_FLOWS = 1 << 15

# Ethernet, IPv4 and TCP headers with all addresses and ports zero, flag SYN.
_BLANK_SYN = bytes(12) + bytes.fromhex("0800 45000028 00000000 4006") + bytes(23) + b"\x02" + bytes(6)

_LOOPBACK = int(Direction.LOOPBACK)
_period = partial(tuple.__new__, Period)  # a third of what the constructor costs
_OTHER_NAMESPACE = Attribution(reason=Reason.OTHER_NAMESPACE)
_AMBIGUOUS = Attribution(reason=Reason.AMBIGUOUS)


class _Ends(NamedTuple):
    """What is known of a flow's ends without asking for sockets: an answer, a query to ask, or None for not here."""

    source: Attribution | Query | None
    destination: Attribution | Query | None


@dataclass(slots=True)
class _Known:
    """The answers for a flow, good until a time if nothing changed that they rest on since change `checked_at`."""

    source: Attribution | None
    destination: Attribution | None
    final: bool
    until_ns: int
    checked_at: int


class BatchAttributor:
    """Name the ends of whole blocks of packets.

    `clock` returns monotonic nanoseconds and `wall_clock` those since the epoch, as packets have them; `namespaces`
    are those in which packets are captured, whose sockets are learnt at the start. A `witness` is asked first.
    """

    def __init__(
        self,
        engine: Engine,
        namespaces: Iterable[int],
        clock: Callable[[], int],
        wall_clock: Callable[[], int],
        witness: Witness | None = None,
    ) -> None:
        self.index = ConnectionIndex(engine, clock, wall_clock)
        self._witnessed = Witnessed(witness, self.index, clock) if witness else None
        self.addresses = AddressBook(engine, clock)
        self.fragments = FragmentTable()
        self._flows = KnownFlows()
        self._known: dict[Flow, _Known] = {}
        self._told_changes = 0
        self._engine = engine
        self._clock = clock
        self._wall_clock = wall_clock
        self.index.warm(namespaces)

    def attribute(
        self, batch: PacketBatch, table: FlowTable | None = None, weights: Weights | None = None
    ) -> AttributedBatch:
        """Decode a block and answer for both ends of each of its distinct flows.

        Of packets that the kernel has counted the flows are known: the `table` comes with the `weights` of its rows.
        """
        if table is None:
            columns = decode(batch, self.fragments)
            table = distinct_flows(batch, columns, known=self._flows)
        else:
            columns = unseen(len(batch))
        self.hear()
        self.index.drain()
        attributed = AttributedBatch(
            batch=batch,
            columns=columns,
            flow_of=table.flow_of,
            flows=table.flows,
            first=table.first,
            source=[None] * len(table),
            destination=[None] * len(table),
            weights=weights,
        )
        for position in np.flatnonzero(table.syn).tolist():  # the other directions of these flows begin anew, too
            flow = table.flows[position]
            self.index.staleness.port(flow.protocol, flow.source_port)
        unknown = self._fill_known(attributed, table)
        if unknown:
            ends = [self._ends(table.flows[position]) for position in unknown]
            if _has_stranger(ends) and self.addresses.refresh_if_old():
                ends = [self._ends(table.flows[position]) for position in unknown]
            found = list(zip(unknown, ends, strict=True))
            self._fill(attributed, found, openings(batch, columns, table))
        return attributed

    def rehearse(self, netns: int) -> None:
        """Handle a packet that never was, so that nothing has to be loaded or set up when the first one comes."""
        nowhere = Interface("", 0, netns)
        self.attribute(one_packet(_BLANK_SYN, LINKTYPE_ETHERNET, nowhere, PacketType.OUTGOING, self._wall_clock()))

    def hear(self) -> None:
        """Take in what the witness has seen; to be called now and then while there are no packets, too."""
        if self._witnessed:
            self._witnessed.hear()

    def changed_ports(self) -> list[tuple[int, int]] | None:
        """Return the protocols and ports where sockets began or ended since the last call, None for perhaps any."""
        self.hear()
        self.index.drain()
        since, self._told_changes = self._told_changes, self.index.staleness.now
        return self.index.staleness.ports_since(since) if since < self._told_changes else []

    def learn(self, sightings: Iterable[Sighting], exits: Iterable[Exit] = ()) -> None:
        """Take in what was found out about flows that just began, and which processes ended."""
        self.index.note_exits(exits)
        for sighting in sightings:
            self.index.learn(sighting)

    def revise(self, attributed: AttributedBatch, sightings: Sequence[Sighting]) -> None:
        """Take in what was found out while a block was handled, and ask again for its ends that it is about.

        Another connection of the same ends may have been looked up for packets of the one before.
        """
        if not sightings:
            return
        self.learn(sightings)
        begun = {path_of_query(seen.query) for seen in sightings if seen.query.protocol == Protocol.TCP}
        positions = [
            position
            for position, flow in enumerate(attributed.flows)
            if flow.protocol == Protocol.TCP and path_of(flow) in begun
        ]
        if positions:
            self._fill(attributed, [(position, self._ends(attributed.flows[position])) for position in positions])

    def again(self, attributed: AttributedBatch) -> bool:
        """Ask again for the ends whose answer is not final; return whether all are now."""
        if attributed.pending:
            self._fill(attributed, [(p, self._ends(attributed.flows[p])) for p in sorted(attributed.pending)])
        return not attributed.pending

    def _fill_known(self, attributed: AttributedBatch, table: FlowTable) -> list[int]:
        """Fill in what is still good from earlier blocks; return the positions of the other flows."""
        now, syn = self._clock(), table.syn.tolist()
        staleness = self.index.staleness
        unknown: list[int] = []
        for position, flow in enumerate(table.flows):
            known = self._known.get(flow)
            if (
                known is None
                or known.until_ns <= now
                or syn[position]
                or (
                    known.checked_at != staleness.now
                    and staleness.touches(known.checked_at, flow, known.source, known.destination)
                )
            ):
                unknown.append(position)
            else:
                known.checked_at = staleness.now
                attributed.source[position] = known.source
                attributed.destination[position] = known.destination
                if not known.final:
                    attributed.pending.add(position)
        while len(self._known) > MAX_KNOWN_FLOWS:
            del self._known[next(iter(self._known))]
        self.index.counts["known"] += len(table) - len(unknown)
        return unknown

    def _fill(
        self,
        attributed: AttributedBatch,
        ends: list[tuple[int, _Ends]],
        begun: Sequence[Opening] = (),
    ) -> None:
        now = self._clock()
        asked = [(end, position) for position, pair in ends for end in pair if isinstance(end, Query)]
        offset_ns = monotonic_offset_ns(self._clock, self._wall_clock)
        first = attributed.first[[position for _, position in asked]]
        first_ns = (attributed.batch.time_ns[first] + offset_ns).tolist()
        opened, mixed = _opened(ends, begun, offset_ns)
        reset = resets(attributed, asked, offset_ns)
        nothing_but_resets = only_resets(attributed)
        queries = [query for query, _ in asked]
        found_answers: Sequence[Answer | Reply]
        if self._witnessed:
            last_ns = (_last_ns(attributed)[[position for _, position in asked]] + offset_ns).tolist()
            periods = list(map(_period, zip(first_ns, last_ns, strict=True)))
            found_answers = self._witnessed.resolve(queries, opened, periods, reset, mixed)
        else:
            found_answers = self.index.resolve(queries, opened, first_ns, reset, mixed)
        answers: Iterator[Answer | Reply] = iter(found_answers)
        for position, pair in ends:
            flow = attributed.flows[position]
            until_ns = now + REFRESH_NS
            found: list[Attribution | None] = []
            for end in pair:
                if isinstance(end, Query):
                    answer = next(answers)
                    until_ns = min(until_ns, answer.until_ns)
                    found.append(answer.attribution)
                else:
                    found.append(end)
            source, destination = found
            if source is not None:
                source = sent_by_kernel(flow, source, only_resets=position in nothing_but_resets)
            if attributed.weights is not None:
                source, destination = undivided(source), undivided(destination)
            attributed.source[position], attributed.destination[position] = source, destination
            final = (source is None or source.final) and (destination is None or destination.final)
            (attributed.pending.discard if final else attributed.pending.add)(position)
            self._known[flow] = _Known(source, destination, final, until_ns, self.index.staleness.now)

    def _ends(self, flow: Flow) -> _Ends:
        source_here, destination_here = _HERE[flow.direction]
        if flow.protocol < 0:
            return _Ends(NOT_IP if source_here else None, NOT_IP if destination_here else None)
        source = self._source(flow, here=source_here)
        destination = self._destination(flow, here=destination_here)
        if source is None and destination is None:
            return _Ends(FORWARDED, FORWARDED)
        return _Ends(source, destination)

    def _source(self, flow: Flow, *, here: bool) -> Attribution | Query | None:
        home = self._home(flow, flow.source_address, here=here)
        if not isinstance(home, int):
            return home
        return source_end(flow, home, flow.ifindex if home == flow.netns else 0)

    def _destination(self, flow: Flow, *, here: bool) -> Attribution | Query | None:
        address = flow.destination_address
        fan_out = here and (is_multicast(address) or self.addresses.is_broadcast(flow.netns, address))
        home = flow.netns if fan_out else self._home(flow, address, here=here)
        if not isinstance(home, int):
            return home
        return destination_end(flow, home, flow.ifindex if home == flow.netns else 0, fan_out=fan_out)

    def _home(self, flow: Flow, address: bytes, *, here: bool) -> Attribution | int | None:
        """Return the namespace in which an end lives, None if it is not on this host."""
        if here and (flow.direction == _LOOPBACK or self.addresses.is_local(flow.netns, address)):
            return flow.netns
        homes = self.addresses.elsewhere(flow.netns, address)
        if not homes:
            return None
        if len(homes) > 1:
            return _AMBIGUOUS
        return homes[0] if self._engine.readable(homes[0]) else _OTHER_NAMESPACE


# Which ends can be in the namespace of the capture: (source, destination). A packet that comes in cannot have been sent
# here, whatever its source address claims.
_HERE: dict[int, tuple[bool, bool]] = {
    Direction.INCOMING: (False, True),
    Direction.OUTGOING: (True, False),
    Direction.LOOPBACK: (True, True),
    Direction.PASSING: (False, False),
    Direction.UNKNOWN: (True, True),
}


def _opened(
    ends: list[tuple[int, _Ends]], begun: Sequence[Opening], offset_ns: int
) -> tuple[dict[Query, int], frozenset[Ends]]:
    """Return when the ends of flows that begin in a block did so (monotonic), and those with earlier packets in it."""
    if not begun:
        return {}, frozenset()
    pairs = dict(ends)
    opened: dict[Query, int] = {}
    mixed: set[Ends] = set()
    for opening in begun:
        queries = [end for end in pairs[opening.position] if isinstance(end, Query)]
        opened |= dict.fromkeys(queries, opening.time_ns + offset_ns)
        if opening.mixed:
            mixed |= {asked_ends(query) for query in queries}
    return opened, frozenset(mixed)


def _has_stranger(ends: list[_Ends]) -> bool:
    """Say whether some flow has an end of which it is not known where it lives."""
    return any(end is None or end is FORWARDED for pair in ends for end in pair)


def _last_ns(attributed: AttributedBatch) -> Column:
    """Return the time of each flow's last packet in a block, int64."""
    last = np.zeros(len(attributed.flows), np.int64)
    np.maximum.at(last, attributed.flow_of, attributed.batch.time_ns)
    return last
