"""The index connection -> inode -> process: caches with a time to live, refreshed on a miss.

Every time in here is the injected clock's, integer nanoseconds, monotonic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from cachetools import LRUCache, TLRUCache, TTLCache

from pktproc.attribution.clocks import monotonic_offset_ns
from pktproc.attribution.endings import PAST_TTL_NS, RECENT_NS, Endings, Ends, Exit, ends_of
from pktproc.attribution.engine import Engine, Query
from pktproc.attribution.lookahead import Sighting
from pktproc.attribution.matching import TCP_LISTEN, Selection, select, select_listeners
from pktproc.attribution.ownership import HolderIndex
from pktproc.attribution.staleness import Staleness
from pktproc.model import (
    UNSPECIFIED,
    UNSPECIFIED_V4,
    Attribution,
    Match,
    Process,
    ProcessId,
    Protocol,
    Reason,
    Socket,
    SocketId,
)

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

# Bounds: an answer costs about 0.6 kB, so these two stay below 60 MB.
MAX_ANSWERS = 1 << 16
MAX_PAST = 1 << 15
MAX_USERS = 8
# A socket's owners are asked again after its age has doubled, between these: forking servers hand a connection on
# within milliseconds, long-lived ones hardly ever.
MIN_TTL_NS = 5 * NS_PER_MS
MAX_TTL_NS = 2 * NS_PER_S
# Without notice of closed sockets a UDP port may have changed hands unseen.
MAX_TTL_UNHEARD_UDP_NS = 100 * NS_PER_MS
# What was not found is soon asked for again, but not at each block for ever.
MAX_NEGATIVE_TTL_NS = 250 * NS_PER_MS
# A block that holds packets of two owners of the same ends is handled within this time.
CHANGE_TTL_NS = NS_PER_S
# How far off the times of packets may be by the monotonic clock.
CLOCK_ERROR_NS = NS_PER_MS // 10
# How long one process must have been the only one with a raw ICMP socket before echoes are taken for its own.
STEADY_NS = 300 * NS_PER_MS

# The kernel tells when a process started in ticks of 10 ms (USER_HZ).
START_GRAIN_NS = 10 * NS_PER_MS
_EPHEMERAL_PORTS = range(32768, 61000)  # net.ipv4.ip_local_port_range by default; chosen at random, so never soon again
_ICMP = frozenset({Protocol.ICMP, Protocol.ICMPV6})
_DATAGRAM = frozenset({Protocol.UDP, Protocol.UDPLITE})
_SETTLED = frozenset({Reason.KERNEL, Reason.PERMISSION})
_LIVE = frozenset({1, 2, 3})  # ESTABLISHED, SYN_SENT, SYN_RECV
_HALF_OPEN = frozenset({1, 3})  # ESTABLISHED, SYN_RECV with inode 0: not accepted yet (net/tcp_states.h)


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


class ConnectionIndex:
    """Answer which process an end of a flow belongs to, from caches where they hold, from the engine where not.

    `clock` returns monotonic nanoseconds, `wall_clock` those since the epoch. `counts` tells how the index worked:
    `hits`, `misses`, `overruns` (lost notices of closed sockets, after which everything is asked anew).
    """

    def __init__(self, engine: Engine, clock: Callable[[], int], wall_clock: Callable[[], int]) -> None:
        self._engine = engine
        self._clock = clock
        self._wall_clock = wall_clock
        self._holders = HolderIndex(engine, clock)
        self._answers: TLRUCache[Query, Answer] = TLRUCache(
            MAX_ANSWERS, ttu=lambda _, answer, now: max(now, answer.until_ns), timer=clock
        )
        self._previous: LRUCache[Ends, Answer] = LRUCache(MAX_PAST)
        self._owners: TTLCache[SocketId, tuple[Process, ...]] = TTLCache(MAX_PAST, PAST_TTL_NS, timer=clock)
        self._users: LRUCache[tuple[int, int, int], dict[ProcessId, Process]] = LRUCache(MAX_PAST)
        self._changed: TTLCache[Ends, int] = TTLCache(MAX_PAST, CHANGE_TTL_NS, timer=clock)
        self.endings = Endings(clock)
        self.counts: Counter[str] = Counter()
        self.staleness = Staleness(clock)

    @property
    def denied(self) -> tuple[int, int]:
        """Return how many processes the last look at everyone could not inspect, and of how many."""
        return self._holders.denied, self._holders.looked_at

    def warm(self, namespaces: Iterable[int]) -> None:
        """Learn all sockets of the namespaces and their holders, so that those that end soon are known afterwards."""
        sockets = [socket for netns in namespaces for socket in self._engine.sockets(netns) if socket.inode]
        self._holders.learn_all(sockets)
        for socket in sockets:
            if held := self._holders.known(socket.inode):
                self._owners[socket.id] = held
                if socket.state == TCP_LISTEN:
                    for process in held[:MAX_USERS]:
                        self._note_user(socket.netns, socket.protocol, socket.local_port, process)

    def drain(self) -> None:
        """Take note of the sockets that ended since the last call; to be called before anything is resolved."""
        ended = self._engine.ended()
        for socket in ended.sockets:
            self.staleness.port(socket.protocol, socket.local_port)
        if ended.lost:
            self.counts["overruns"] += 1
            self.staleness.everything()
            self._answers.clear()
            self._previous.clear()
        self.endings.note(ended.sockets)

    def learn(self, sighting: Sighting) -> None:
        """Take in what was found out elsewhere about a query, as if it had been asked here then."""
        self._holders.take(sighting.holdings)
        if sighting.query.protocol not in _DATAGRAM:
            self._forget_before(sighting.query, sighting.packet_ns)
            self._changed[_key(sighting.query)] = sighting.packet_ns - CLOCK_ERROR_NS
        if not sighting.sockets:
            return
        selection = _accepted(sighting.query, sighting.sockets)
        self._answer(sighting.query, selection, opens=True, packet_ns=sighting.packet_ns)

    def note_exits(self, exits: Iterable[Exit]) -> None:
        """Take note of processes that ended: what they held may have passed to others."""
        for ended in exits:
            self.endings.note_exit(ended)
            self._holders.forget(ended.process)
            self.staleness.process(ended.process)

    def fresh_holders(self) -> list[Process]:
        """Return the processes that were found to hold sockets since the last call."""
        return self._holders.fresh()

    def resolve(
        self,
        queries: Sequence[Query],
        opened: Mapping[Query, int] = MappingProxyType({}),
        first_ns: Sequence[int] = (),
        reset: frozenset[Ends] = frozenset(),
    ) -> list[Answer]:
        """Return an answer for each query.

        Those in `opened` began a connection at that time, so what was asked for them before is void. `first_ns` are
        the times of the first packets that the answers are for, now by default.
        """
        answers: dict[Query, Answer] = {}
        misses: dict[Query, int] = {}
        for query, opened_ns in opened.items():
            self.staleness.port(query.protocol, query.local_port)
            self._forget_before(query, opened_ns)
        for query, packet_ns in zip(queries, first_ns or [self._clock()] * len(queries), strict=True):
            answer = self._cached(query)
            if answer and self._mixes_owners(query, packet_ns):
                answer = self._ambiguous(answer.attribution)
            if answer is not None:
                answers[query] = answer
            elif query not in answers:
                answers[query] = _NOT_ASKED
                misses[query] = packet_ns
        self.counts["hits"] += len(queries) - len(misses)
        if misses:
            self.counts["misses"] += len(misses)
            for query, answer in zip(misses, self._ask(misses, opened), strict=True):
                outlives = _key(query) in reset and answer.is_live
                answers[query] = self._ambiguous(answer.attribution) if outlives else answer
        return [answers[query] for query in queries]

    def _forget_before(self, query: Query, opened_ns: int) -> None:
        for way in (query, query._replace(outgoing=not query.outgoing)):
            answer = self._answers.get(way)
            if answer and answer.asked_ns < opened_ns:
                del self._answers[way]
        previous = self._previous.get(_key(query))
        if previous and previous.asked_ns < opened_ns:
            del self._previous[_key(query)]
            self._changed[_key(query)] = opened_ns

    def _cached(self, query: Query) -> Answer | None:
        try:
            answer = self._answers[query]
        except KeyError:
            return None
        # The last packets of a TCP connection come after its socket ended; a UDP port may have a new owner at once.
        if query.protocol in _DATAGRAM and any(self.endings.has_ended(socket) for socket in answer.sockets):
            return None
        if not self.endings.recent(_key(query)) <= set(answer.sockets):
            return None
        process = answer.attribution.process
        if process and self.endings.exit_ns(process.id) and not all(map(self.endings.has_ended, answer.sockets)):
            return None
        return answer

    def _ask(self, asked: Mapping[Query, int], opened: Mapping[Query, int]) -> list[Answer]:
        queries = list(asked)
        found = self._engine.candidates(queries)
        selections = [_accepted(query, sockets) for query, sockets in zip(queries, found, strict=True)]
        sockets = [socket for selection in selections for socket in selection.sockets if socket.inode]
        users = {socket.inode: self._users.get((*socket[:2], socket.local_port)) for socket in sockets}
        self._holders.learn(sockets, {inode: tuple(known.values()) for inode, known in users.items() if known})
        return [
            self._answer(query, selection, opens=query in opened, packet_ns=asked[query])
            for query, selection in zip(queries, selections, strict=True)
        ]

    def _answer(self, query: Query, selection: Selection, *, opens: bool, packet_ns: int) -> Answer:
        if selection.match is Match.LISTENER:
            attribution = self._attribute_accepted(query, selection, opens=opens)
        elif selection.sockets and selection.sockets[0].raw:
            attribution = self._attribute_raw(query, selection)
        else:
            attribution = self._attribute(selection, fan_out=query.fan_out)
        previous = self._previous.get(_key(query))
        if attribution.process is None and previous and self._still_theirs(query, selection, previous):
            return self._prolong(query, previous)
        if self._changed_hands(selection, attribution) or self._may_be_a_successor(query, attribution, packet_ns):
            return self._ambiguous(attribution)
        self._note_change(query, selection, attribution, previous, packet_ns)
        if attribution.reason is Reason.NO_SOCKET and previous and previous.sockets:
            refused = previous.attribution.reason is Reason.PERMISSION
            attribution = replace(attribution, reason=Reason.PERMISSION if refused else Reason.CLOSED)
        answer = self._remember(query, attribution, selection)
        return self._ambiguous(attribution) if self._mixes_owners(query, packet_ns) else answer

    def _still_theirs(self, query: Query, selection: Selection, previous: Answer) -> bool:
        """Say whether packets after the end of a socket still belong to its last owner.

        TCP's do until a SYN begins something new. A datagram's do for a moment, if nothing else came and went on its
        ports, which only an engine that hears of ends can tell.
        """
        former = previous.attribution
        if former.process is None or former.match is Match.LISTENER:
            return False
        if any(socket.inode or socket.id not in previous.sockets for socket in selection.sockets):
            return False
        if query.protocol not in _DATAGRAM:
            return self.endings.recent(_key(query)) <= set(previous.sockets)
        if not self._engine.hears_ends or self._clock() - previous.confirmed_ns > RECENT_NS:
            return False
        return all(self.endings.recent(ends) <= set(previous.sockets) for ends in _possible_ends(query))

    def _changed_hands(self, selection: Selection, attribution: Attribution) -> bool:
        """Say whether a block may hold packets of an ended socket and of a successor of another owner."""
        owners = attribution.holders or (attribution.process,)
        return any(
            self._owners.get(former, ()) != owners
            for socket in selection.sockets
            for former in self.endings.recent(ends_of(socket)) - {socket.id}
        )

    def _may_be_a_successor(self, query: Query, attribution: Attribution, packet_ns: int) -> bool:
        """Say whether a datagram may be older than the process that now has its port.

        Where ends of sockets are not heard of, a port of a program's own choice can have changed hands unseen.
        """
        process = attribution.process
        if self._engine.hears_ends or not process or query.protocol not in _DATAGRAM:
            return False
        sent_ns = packet_ns - monotonic_offset_ns(self._clock, self._wall_clock)
        return query.local_port not in _EPHEMERAL_PORTS and process.start_ns + START_GRAIN_NS > sent_ns

    def _note_change(
        self, query: Query, selection: Selection, attribution: Attribution, previous: Answer | None, packet_ns: int
    ) -> None:
        """Take note that the same ends have another owner, since when at the latest.

        A socket that was passed on has its new owner since the old one ended. On a port that was taken again,
        others may have come and gone in between, unless it was free for long.
        """
        former = previous.attribution.process if previous else None
        if previous is None or former is None or attribution.process is None or former.id == attribution.process.id:
            return
        exit_ns = self.endings.exit_ns(former.id)
        passed_on = any(socket.id in previous.sockets for socket in selection.sockets)
        known = exit_ns is not None and (passed_on or packet_ns - exit_ns > RECENT_NS)
        self._changed[_key(query)] = exit_ns if known and exit_ns else self._clock()

    def _mixes_owners(self, query: Query, packet_ns: int) -> bool:
        """Say whether a block may hold packets of an earlier owner of the same ends."""
        return packet_ns < self._changed.get(_key(query), 0)

    def _ambiguous(self, attribution: Attribution) -> Answer:
        holders = attribution.holders or ((attribution.process,) if attribution.process else ())
        return Answer(Attribution(reason=Reason.AMBIGUOUS, evidence=self._engine.name, holders=holders), (), 0, 0, 0)

    def _longest_ttl_ns(self, query: Query, attribution: Attribution) -> int:
        if attribution.process is None and attribution.reason not in _SETTLED:
            return MAX_NEGATIVE_TTL_NS
        if attribution.match is Match.LISTENER or not attribution.final:
            return MIN_TTL_NS
        if query.protocol in _DATAGRAM and not self._engine.hears_ends:
            return MAX_TTL_UNHEARD_UDP_NS
        return MAX_TTL_NS

    def _prolong(self, query: Query, previous: Answer) -> Answer:
        """Answer as before; what was known stays as it was confirmed then."""
        attribution = replace(previous.attribution, final=True)
        until_ns = self._clock() + (MIN_TTL_NS if query.protocol in _DATAGRAM else MAX_NEGATIVE_TTL_NS)
        answer = replace(previous, attribution=attribution, until_ns=until_ns)
        self._answers[query] = answer
        return answer

    def _note_user(self, netns: int, protocol: int, port: int, process: Process) -> None:
        """Take note of who uses a port: it is likely to hold the next connection there too."""
        users = self._users.setdefault((netns, protocol, port), {})
        users[process.id] = process
        if len(users) > MAX_USERS:
            del users[next(iter(users))]

    def _remember(self, query: Query, attribution: Attribution, selection: Selection) -> Answer:
        now = self._clock()
        sockets = tuple(socket.id for socket in selection.sockets)
        previous = self._previous.get(_key(query))
        first = previous.asked_ns if previous and previous.sockets == sockets else now
        ttl = max(MIN_TTL_NS, min(self._longest_ttl_ns(query, attribution), now - first))
        live = any(socket.inode and socket.state in _LIVE for socket in selection.sockets)
        answer = Answer(attribution, sockets, first, now, now + ttl, live)
        self._answers[query] = answer
        self._previous[_key(query)] = answer
        if attribution.match in (Match.EXACT, Match.LISTENER) and attribution.process:
            self._note_user(query.netns, query.protocol, query.local_port, attribution.process)
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
        users = self._users.get((query.netns, query.protocol, query.local_port), {})
        if process and attribution.match is Match.LISTENER and users.keys() <= {process.id}:
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
            previous = self._previous.get(_key(query))
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
        if not socket.inode:
            return self._owners.get(socket.id, ())
        held = self._holders.known(socket.inode)
        if held:
            self._owners[socket.id] = held
        return held


_NOT_ASKED = Answer(Attribution(reason=Reason.NOT_COVERED, final=False), (), 0, 0, 0)


def _key(query: Query) -> Ends:
    """Return what an answer is remembered by, whichever way the packet went."""
    return Ends(*query[:6])


def _possible_ends(query: Query) -> tuple[Ends, ...]:
    """Return the ends that a datagram socket which fits a query can have: connected, bound, or on the wildcard."""
    exact = _key(query)
    return (
        exact,
        *(
            exact._replace(local_address=local, remote_address=unspecified, remote_port=0)
            for unspecified in (UNSPECIFIED, UNSPECIFIED_V4)
            for local in (query.local_address, unspecified)
        ),
    )


def _accepted(query: Query, sockets: list[Socket]) -> Selection:
    """Return what fits; a connection that no file holds may belong to the listener that it came through."""
    selection = select(query, sockets)
    if selection.match is Match.EXACT and not any(socket.inode for socket in selection.sockets):
        listeners = select_listeners(query, sockets)
        if listeners.sockets:
            return Selection(Match.LISTENER, [*selection.sockets, *listeners.sockets])
    return selection
