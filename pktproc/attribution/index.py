"""The index connection -> inode -> process: caches with a time to live, refreshed on a miss.

Every time in here is the injected clock's, integer nanoseconds, monotonic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from cachetools import LRUCache, TLRUCache, TTLCache

from pktproc.attribution.engine import Engine, Query
from pktproc.attribution.matching import TCP_LISTEN, Selection, select, select_listeners
from pktproc.attribution.ownership import HolderIndex
from pktproc.model import Attribution, Match, Process, ProcessId, Protocol, Reason, Socket, SocketId

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

# Bounds: an answer costs about 0.6 kB, so these two stay below 60 MB.
MAX_ANSWERS = 1 << 16
MAX_PAST = 1 << 15
# A socket's owners are asked again after its age has doubled, between these: forking servers hand a connection on
# within milliseconds, long-lived ones hardly ever.
MIN_TTL_NS = 5 * NS_PER_MS
MAX_TTL_NS = 2 * NS_PER_S
# Without notice of closed sockets a UDP port may have changed hands unseen.
MAX_TTL_UNHEARD_UDP_NS = 100 * NS_PER_MS
# What was not found is soon asked for again, but not at each block for ever.
MAX_NEGATIVE_TTL_NS = 250 * NS_PER_MS
# TIME_WAIT lasts 60 s (TCP_TIMEWAIT_LEN, include/net/tcp.h); late packets come within it.
PAST_TTL_NS = 90 * NS_PER_S
# How long one process must have been the only one with a raw ICMP socket before echoes are taken for its own.
STEADY_NS = 300 * NS_PER_MS

_ICMP = frozenset({Protocol.ICMP, Protocol.ICMPV6})
_DATAGRAM = frozenset({Protocol.UDP, Protocol.UDPLITE})
_SETTLED = frozenset({Reason.KERNEL, Reason.PERMISSION})
_HALF_OPEN = frozenset({1, 3})  # ESTABLISHED, SYN_RECV with inode 0: not accepted yet (net/tcp_states.h)


@dataclass(frozen=True, slots=True)
class Answer:
    """Hold an attribution with the sockets it rests on, when they were first asked for, and until when it is good."""

    attribution: Attribution
    sockets: tuple[SocketId, ...]
    asked_ns: int
    until_ns: int


class ConnectionIndex:
    """Answer which process an end of a flow belongs to, from caches where they hold, from the engine where not.

    `clock` returns monotonic nanoseconds. `counts` tells how the index worked: `hits`, `misses`, `overruns` (lost
    notices of closed sockets, after which everything is asked anew).
    """

    def __init__(self, engine: Engine, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._clock = clock
        self._holders = HolderIndex(engine, clock)
        self._answers: TLRUCache[Query, Answer] = TLRUCache(
            MAX_ANSWERS, ttu=lambda _, answer, now: max(now, answer.until_ns), timer=clock
        )
        self._previous: LRUCache[Query, Answer] = LRUCache(MAX_PAST)
        self._owners: TTLCache[SocketId, tuple[Process, ...]] = TTLCache(MAX_PAST, PAST_TTL_NS, timer=clock)
        self._ended: TTLCache[SocketId, bool] = TTLCache(MAX_PAST, PAST_TTL_NS, timer=clock)
        self._users: LRUCache[tuple[int, int, int], set[ProcessId]] = LRUCache(MAX_PAST)
        self._just_ended: dict[tuple[object, ...], SocketId] = {}
        self.counts: Counter[str] = Counter()
        self.epoch = 0

    @property
    def denied(self) -> int:
        """Return how many processes the last look at everyone could not inspect."""
        return self._holders.denied

    def warm(self, namespaces: Iterable[int]) -> None:
        """Learn all sockets of the namespaces and their holders, so that those that end soon are known afterwards."""
        sockets = [socket for netns in namespaces for socket in self._engine.sockets(netns) if socket.inode]
        self._holders.learn_all(sockets)
        for socket in sockets:
            if held := self._holders.known(socket.inode):
                self._owners[socket.id] = held

    def drain(self) -> None:
        """Take note of the sockets that ended since the last call; to be called before anything is resolved."""
        ended = self._engine.ended()
        self.epoch += bool(ended.lost or ended.sockets)
        if ended.lost:
            self.counts["overruns"] += 1
            self._answers.clear()
            self._previous.clear()
        for socket in ended.sockets:
            self._ended[socket.id] = True
            self._just_ended[_tuple(socket)] = socket.id

    def forget_just_ended(self) -> None:
        """Begin a new block: what ended until now cannot have sent packets of later ones."""
        self._just_ended = {}

    def resolve(
        self, queries: Sequence[Query], opened: Mapping[Query, int] = MappingProxyType({}), *, hurry: bool = False
    ) -> list[Answer]:
        """Return an answer for each query.

        Those in `opened` began a connection at that time, so what was asked for them before is void. In a `hurry`
        nothing is checked again that can wait.
        """
        answers: dict[Query, Answer] = {}
        misses: list[Query] = []
        for query in queries:
            if query in opened:
                self._forget_before(query, opened[query])
            answer = self._cached(query)
            if answer is not None:
                answers[query] = answer
            elif query not in answers:
                answers[query] = _NOT_ASKED
                misses.append(query)
        self.counts["hits"] += len(queries) - len(misses)
        if misses:
            self.counts["misses"] += len(misses)
            answers.update(zip(misses, self._ask(misses, opened, hurry=hurry), strict=True))
        return [answers[query] for query in queries]

    def _forget_before(self, query: Query, opened_ns: int) -> None:
        for answers in (self._answers, self._previous):
            answer = answers.get(query)
            if answer and answer.asked_ns < opened_ns:
                del answers[query]

    def _cached(self, query: Query) -> Answer | None:
        try:
            answer = self._answers[query]
        except KeyError:
            return None
        # The last packets of a TCP connection come after its socket ended; a UDP port may have a new owner at once.
        if query.protocol in _DATAGRAM and any(socket in self._ended for socket in answer.sockets):
            return None
        return answer

    def _ask(self, queries: list[Query], opened: Mapping[Query, int], *, hurry: bool) -> list[Answer]:
        found = self._engine.candidates(queries)
        selections = [_accepted(query, sockets) for query, sockets in zip(queries, found, strict=True)]
        self._holders.learn(
            [socket for selection in selections for socket in selection.sockets if socket.inode], hurry=hurry
        )
        return [
            self._answer(query, selection, opens=query in opened)
            for query, selection in zip(queries, selections, strict=True)
        ]

    def _answer(self, query: Query, selection: Selection, *, opens: bool) -> Answer:
        if selection.match is Match.LISTENER:
            attribution = self._attribute_accepted(query, selection, opens=opens)
        elif selection.sockets and selection.sockets[0].raw:
            attribution = self._attribute_raw(query, selection)
        else:
            attribution = self._attribute(selection, fan_out=query.fan_out)
        previous = self._previous.get(query)
        if attribution.process is None and previous and self._still_theirs(query, selection, previous):
            attribution = replace(previous.attribution, final=True)
        elif self._changed_hands(selection, attribution):
            changed = Attribution(reason=Reason.AMBIGUOUS, evidence=self._engine.name, holders=attribution.holders)
            return Answer(changed, (), 0, 0)
        elif attribution.reason is Reason.NO_SOCKET and previous and previous.sockets:
            attribution = replace(attribution, reason=Reason.CLOSED)
        return self._remember(query, attribution, selection)

    def _still_theirs(self, query: Query, selection: Selection, previous: Answer) -> bool:
        """Say whether packets after the end of a socket still belong to its last owner.

        TCP's do until a SYN begins something new. A datagram's do within the block in which the end was heard.
        """
        if previous.attribution.process is None or previous.attribution.match is Match.LISTENER:
            return False
        if any(socket.inode or socket.id not in previous.sockets for socket in selection.sockets):
            return False
        if query.protocol not in _DATAGRAM:
            return True
        return any(socket in self._just_ended.values() for socket in previous.sockets)

    def _changed_hands(self, selection: Selection, attribution: Attribution) -> bool:
        """Say whether the block may hold packets of an ended socket and of a successor of another owner.

        The successor has the same addresses and ports; the end was heard since the last block.
        """
        for socket in selection.sockets:
            former = self._just_ended.get(_tuple(socket))
            if (
                former
                and former != socket.id
                and self._owners.get(former, ()) != (attribution.holders or (attribution.process,))
            ):
                return True
        return False

    def _longest_ttl_ns(self, query: Query, attribution: Attribution) -> int:
        if attribution.process is None and attribution.reason not in _SETTLED:
            return MAX_NEGATIVE_TTL_NS
        if attribution.match is Match.LISTENER or not attribution.final:
            return MIN_TTL_NS
        if query.protocol in _DATAGRAM and not self._engine.hears_ends:
            return MAX_TTL_UNHEARD_UDP_NS
        return MAX_TTL_NS

    def _remember(self, query: Query, attribution: Attribution, selection: Selection) -> Answer:
        now = self._clock()
        sockets = tuple(socket.id for socket in selection.sockets)
        previous = self._previous.get(query)
        first = previous.asked_ns if previous and previous.sockets == sockets else now
        ttl = max(MIN_TTL_NS, min(self._longest_ttl_ns(query, attribution), now - first))
        answer = Answer(attribution, sockets, first, now + ttl)
        self._answers[query] = answer
        self._previous[query] = answer
        if attribution.match is Match.EXACT and attribution.process:
            self._users.setdefault((query.netns, query.protocol, query.local_port), set()).add(attribution.process.id)
        return answer

    def _attribute_accepted(self, query: Query, selection: Selection, *, opens: bool) -> Attribution:
        """Name the owner of a connection that nobody has accepted yet, or that was over before it could be asked for.

        It is the listener's while it opens. Once it is over, it is that of the only process that could accept it,
        unless connections on this port are known to belong to others: a server that hands each one to a child.
        """
        connections = [socket for socket in selection.sockets if socket.state != TCP_LISTEN]
        if any(self._owners_of(socket) for socket in connections):
            return self._attribute(Selection(Match.EXACT, connections), fan_out=False)
        listeners = [socket for socket in selection.sockets if socket.state == TCP_LISTEN]
        attribution = self._attribute(Selection(Match.LISTENER, listeners), fan_out=False)
        if opens or any(socket.state in _HALF_OPEN for socket in connections):
            return attribution
        process = attribution.process
        users = self._users.get((query.netns, query.protocol, query.local_port), set())
        if process and attribution.match is Match.LISTENER and users <= {process.id}:
            return attribution
        return Attribution(reason=Reason.CLOSED, evidence=self._engine.name, holders=attribution.holders, final=False)

    def _attribute(self, selection: Selection, *, fan_out: bool) -> Attribution:
        evidence = self._engine.name
        if selection.match is None:
            return Attribution(reason=Reason.NO_SOCKET, evidence=evidence, final=False)
        owners = [self._owners_of(socket) for socket in selection.sockets]
        known = [owner for owner in owners if owner]
        if not known:
            reason, final = self._holders.why_not(selection.sockets)
            return Attribution(reason=reason, evidence=evidence, final=final)
        holders = tuple(dict.fromkeys(process for owner in known for process in owner))
        if len(known) < len(owners) or (len({frozenset(o) for o in known}) > 1 and not fan_out):
            waits = selection.match is Match.LISTENER
            return Attribution(reason=Reason.AMBIGUOUS, evidence=evidence, holders=holders, final=not waits)
        if len(holders) > 1:
            settled = selection.match is not Match.LISTENER
            return Attribution(holders[0], Match.SHARED, evidence, holders=holders, final=settled)
        return Attribution(holders[0], selection.match, evidence, holders=holders)

    def _attribute_raw(self, query: Query, selection: Selection) -> Attribution:
        """Name the user of a raw socket, which nothing ties to a packet but its protocol.

        For ICMP echo that is not enough, since programs like ping come and go: its id must be the pid, as ping has it
        where it uses raw sockets (iputils ping.c), or the same process must have been the only candidate for a while.
        """
        owners = dict.fromkeys(process for socket in selection.sockets for process in self._owners_of(socket))
        if query.protocol not in _ICMP:
            candidates = tuple(owners)
        else:
            port = query.local_port
            candidates = tuple(process for process in owners if process.pid & 0xFFFF == port) or tuple(owners)
            previous = self._previous.get(query)
            steady = previous and self._clock() - previous.asked_ns > STEADY_NS and len(owners) == 1
            if candidates and candidates[0].pid & 0xFFFF != port and not steady:
                return Attribution(reason=Reason.AMBIGUOUS, evidence=self._engine.name, holders=candidates, final=False)
        if len(candidates) == 1:
            return Attribution(candidates[0], Match.BOUND, self._engine.name, holders=candidates)
        if not candidates:
            reason, final = self._holders.why_not(selection.sockets)
            return Attribution(reason=reason, evidence=self._engine.name, final=final)
        return Attribution(reason=Reason.AMBIGUOUS, evidence=self._engine.name, holders=candidates)

    def _owners_of(self, socket: Socket) -> tuple[Process, ...]:
        """Return who holds a socket now, or who held it last if no file holds it any more."""
        held = self._holders.known(socket.inode) if socket.inode else ()
        if held:
            self._owners[socket.id] = held
            return held
        return self._owners.get(socket.id, ())


_NOT_ASKED = Answer(Attribution(reason=Reason.NOT_COVERED, final=False), (), 0, 0)


def _tuple(socket: Socket) -> tuple[object, ...]:
    return (
        socket.netns,
        socket.protocol,
        socket.local_address,
        socket.local_port,
        socket.remote_address,
        socket.remote_port,
    )


def _accepted(query: Query, sockets: list[Socket]) -> Selection:
    """Return what fits; a connection that no file holds may belong to the listener that it came through."""
    selection = select(query, sockets)
    if selection.match is Match.EXACT and not any(socket.inode for socket in selection.sockets):
        listeners = select_listeners(query, sockets)
        if listeners.sockets:
            return Selection(Match.LISTENER, [*selection.sockets, *listeners.sockets])
    return selection
