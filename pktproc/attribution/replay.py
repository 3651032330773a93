"""Name the ends of recorded packets by saved evidence, at each packet's own time. The live tables are never asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pktproc.attribution.answers import AttributedBatch, only_resets
from pktproc.attribution.ends import sent_by_kernel
from pktproc.attribution.eras import End, Eras, Pair, pair_of
from pktproc.attribution.history import History, Span
from pktproc.attribution.merged import together
from pktproc.attribution.recorded_ends import Ends, EndSearch
from pktproc.attribution.recorded_host import RecordedHost
from pktproc.attribution.skew import SkewGauge
from pktproc.attribution.steps import Step
from pktproc.model import Attribution, Direction, Flow, Interface, Protocol, Reason
from pktproc.packets.batch import Column, PacketBatch
from pktproc.packets.decode import decode
from pktproc.packets.flows import KnownFlows, distinct_flows
from pktproc.packets.fragments import FragmentTable

NS_PER_S = 1_000_000_000
DEFAULT_TOLERANCE_NS = 2 * NS_PER_S
MAX_KNOWN_FLOWS = 1 << 15

_OPPOSITE: dict[int, int] = {Direction.INCOMING: Direction.OUTGOING, Direction.OUTGOING: Direction.INCOMING}
_LONG_AGO, _FAR_OFF = -(1 << 63), 1 << 63


@dataclass(slots=True)
class _Known:
    """The answers for a flow, good from a time until just before another.

    `connections` are the times of the recorded sockets that are connected with its ends.
    """

    source: Attribution | None
    destination: Attribution | None
    from_ns: int
    until_ns: int
    connections: list[Span]

    def void(self) -> None:
        """Be good for no time any more."""
        self.until_ns = self.from_ns


class ReplayAttributor:
    """Name the ends of blocks of recorded packets.

    `histories` are the saved evidence; those of one host are taken together. `skew_ns` is added to the time of a packet
    to get that of the record. A fact whose beginning or end nobody saw is taken to have held for `tolerance_ns` more.
    `skew` tells whether the clocks seem to be off yet.
    """

    def __init__(
        self, histories: Iterable[History], *, skew_ns: int = 0, tolerance_ns: int = DEFAULT_TOLERANCE_NS
    ) -> None:
        self._hosts = [RecordedHost(history, tolerance_ns) for history in together(histories)]
        self._is_witnessed = any(host.is_witnessed for host in self._hosts)
        self._skew_ns = skew_ns
        self._fragments = FragmentTable()
        self._eras = Eras()
        self._seen = KnownFlows()
        self._read_ns = _LONG_AGO
        self.skew = SkewGauge()
        self._flows: dict[Flow, _Known] = {}
        self._by_key: dict[bytes, _Known] = {}  # by keys of `FlowTable`, as long as interfaces begin alike
        self._interfaces: tuple[Interface, ...] = ()
        self._between: dict[Pair, set[Flow]] = {}

    def attribute(self, batch: PacketBatch) -> AttributedBatch:
        """Decode a block and answer for both ends of each of its flows.

        A flow whose owners change within the block stands in it once for each of them.
        """
        columns = decode(batch, self._fragments)
        table = distinct_flows(batch, columns, known=self._seen)
        attributed = AttributedBatch(
            batch=batch,
            columns=columns,
            flow_of=table.flow_of,
            flows=table.flows,
            first=table.first,
            source=[None] * len(table),
            destination=[None] * len(table),
        )
        if not len(table):
            return attributed
        if batch.interfaces[: len(self._interfaces)] != self._interfaces:
            self._by_key.clear()
        self._interfaces = batch.interfaces
        time_ns = batch.time_ns + self._skew_ns
        self._read_ns = max(self._read_ns, int(time_ns.max()))
        if not table.syn.any():
            return self._fill(attributed, time_ns, table.keys)
        for pair in self._eras.note(time_ns, batch, columns, table):
            for flow in self._between.pop(pair, ()):
                if flow in self._flows:
                    self._flows.pop(flow).void()
        attributed = self._fill(attributed, time_ns, table.keys)
        for position in np.flatnonzero(table.syn).tolist():
            self._compare_clocks(table.flows[position])
        return attributed

    def _compare_clocks(self, flow: Flow) -> None:
        """Compare when a flow's connection began here and in the record; where there were several, nothing tells."""
        begins, known = self._eras.of(flow), self._flows.get(flow)
        if known and len(begins) == 1 == len(known.connections):
            self.skew.note(begins[0][0], known.connections[0])

    def _fill(self, attributed: AttributedBatch, time_ns: Column, keys: Sequence[bytes]) -> AttributedBatch:
        first_ns, last_ns = int(time_ns.min()), int(time_ns.max())
        source, destination = attributed.source, attributed.destination
        changing: list[int] = []
        for position, known in enumerate(map(self._by_key.get, keys)):
            if known is None:
                known = self._flows.get(attributed.flows[position])  # noqa: PLW2901 - the slower way to the same
            if known is not None and known.from_ns <= first_ns and last_ns < known.until_ns:
                source[position], destination[position] = known.source, known.destination
            else:
                changing.append(position)
        if changing:
            attributed = self._split(attributed, changing, time_ns)
            self._by_key |= {keys[position]: self._flows[attributed.flows[position]] for position in changing}
            self._by_key.pop(b"", None)
        self._give_resets_to_the_kernel(attributed)
        while len(self._flows) > MAX_KNOWN_FLOWS:
            self._forget(next(iter(self._flows)))
        if len(self._by_key) > MAX_KNOWN_FLOWS:
            self._by_key.clear()
        return attributed

    def _forget(self, flow: Flow) -> None:
        self._flows.pop(flow).void()
        pair = pair_of(flow.quoted or flow)
        flows = self._between.get(pair)
        if flows is not None:
            flows.discard(flow)
            if not flows:
                del self._between[pair]

    def _give_resets_to_the_kernel(self, attributed: AttributedBatch) -> None:
        """Correct the senders of flows that are nothing but resets in a block."""
        source = attributed.source
        for position in only_resets(attributed):
            answer = source[position]
            if answer is not None and answer.process is None:
                source[position] = _or_kernel(attributed.flows[position], answer, only_resets=True)

    def _split(self, attributed: AttributedBatch, positions: Sequence[int], time_ns: Column) -> AttributedBatch:
        """Answer for flows stretch by stretch; all but the first of each become flows of their own in the block."""
        order = np.lexsort((time_ns, attributed.flow_of))
        wanted = np.array(positions, np.int64)
        begin = np.searchsorted(attributed.flow_of, wanted, sorter=order).tolist()
        end = np.searchsorted(attributed.flow_of, wanted + 1, sorter=order).tolist()
        split = _Split(attributed)
        for position, rows in zip(positions, map(order.__getitem__, map(slice, begin, end)), strict=True):
            for ends, part in self._stretches(attributed.flows[position], rows, time_ns[rows]):
                split.add(position, ends, part)
        attributed = split.renumbered()
        for position, ends in split.answers.items():
            attributed.source[position], attributed.destination[position] = ends
        return attributed

    def _stretches(self, flow: Flow, rows: Column, times: Column) -> Iterator[tuple[Ends, Column]]:
        """Yield the answers for the packets of a flow, which are in order of time, with the rows that they are for."""
        done = 0
        while done < len(rows):
            answers = self._answers(flow, int(times[done]))
            until_ns = answers.until_ns
            upto = len(rows) if until_ns is None else max(done + 1, int(np.searchsorted(times, until_ns)))
            yield answers.value, rows[done:upto]
            done = upto

    def _answers(self, flow: Flow, time_ns: int) -> Step[Ends]:
        subject = flow.quoted or flow
        begins: list[tuple[int, End]] = []
        if subject.protocol == Protocol.TCP:
            begins = self._eras.of(subject)
            self._between.setdefault(pair_of(subject), set()).add(flow)
            # A connection is the same both ways, but a witness tells one who sends from one who receives.
            back = self._flows.get(_way_back(flow)) if flow is subject and not self._is_witnessed else None
            if back is not None and back.from_ns <= time_ns < back.until_ns:
                self._flows[flow] = replace(back, source=back.destination, destination=back.source)
                return Step(back.from_ns, back.until_ns, Ends(back.destination, back.source))
        search = EndSearch(self._hosts, time_ns, begins, self._read_ns)
        found = search.ends(flow)
        source, destination = found.value
        if source is not None and flow.protocol != Protocol.TCP:
            source = _or_kernel(flow, source, only_resets=False)
        self._flows[flow] = _Known(
            source,
            destination,
            _LONG_AGO if found.from_ns is None else found.from_ns,
            _FAR_OFF if found.until_ns is None else found.until_ns,
            search.connections,
        )
        return found._replace(value=Ends(source, destination))


def _or_kernel(flow: Flow, answer: Attribution, *, only_resets: bool) -> Attribution:
    """Return the answer for a sender, or `kernel` for what the kernel sends by itself; see `ends.sent_by_kernel`."""
    if answer.reason is Reason.NOT_COVERED and answer.evidence:  # it was recorded then, and no look found a socket
        found = sent_by_kernel(flow, replace(answer, reason=Reason.NO_SOCKET), only_resets=only_resets)
        return found if found.reason is Reason.KERNEL else answer
    return sent_by_kernel(flow, answer, only_resets=only_resets)


def _way_back(flow: Flow) -> Flow:
    return flow._replace(
        direction=_OPPOSITE.get(flow.direction, flow.direction),
        source_address=flow.destination_address,
        source_port=flow.destination_port,
        destination_address=flow.source_address,
        destination_port=flow.source_port,
    )


class _Split:
    """Number the packets of a block anew where the answers for a flow change; `answers` are those by flow."""

    def __init__(self, attributed: AttributedBatch) -> None:
        self.answers: dict[int, Ends] = {}
        self._attributed = attributed
        self._flow_of = attributed.flow_of.copy()
        self._first = attributed.first.tolist()

    def add(self, position: int, ends: Ends, rows: Column) -> None:
        """Add the answers for some packets of a flow; the first ones keep its number."""
        if position in self.answers:
            flow = self._attributed.flows[position]
            position = len(self._attributed.flows)
            self._attributed.flows.append(flow)
            self._attributed.source.append(None)
            self._attributed.destination.append(None)
            self._first.append(int(rows.min()))
            self._flow_of[rows] = position
        self.answers[position] = ends

    def renumbered(self) -> AttributedBatch:
        """Return the block with the new numbers."""
        return replace(self._attributed, flow_of=self._flow_of, first=np.array(self._first, np.int64))
