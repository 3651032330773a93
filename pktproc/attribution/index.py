"""The index connection -> inode -> process: caches with a time to live, refreshed on a miss.

Every time in here is the injected clock's, integer nanoseconds, monotonic.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from cachetools import LRUCache

from pktproc.attribution.absence import Absence
from pktproc.attribution.answers import Answer
from pktproc.attribution.endings import NS_PER_MS, RECENT_NS, Endings, Exit
from pktproc.attribution.engine import Ends, Engine, Query, asked_ends, both_ways, ends_of, possible_ends
from pktproc.attribution.lifetimes import MAX_NEGATIVE_TTL_NS, MAX_TTL_NS, MIN_TTL_NS, longest_ttl_ns
from pktproc.attribution.lookahead import Sighting
from pktproc.attribution.matching import Selection, accepted
from pktproc.attribution.owners import Owners
from pktproc.attribution.staleness import Staleness
from pktproc.attribution.successions import CLOCK_ERROR_NS, Successions
from pktproc.model import DATAGRAM, Attribution, Match, Protocol, Reason, Socket

# Bounds: an answer costs about 0.6 kB, so these two stay below 60 MB.
MAX_ANSWERS = 1 << 15
MAX_PAST = 1 << 15
# What has had no better answer for so long is not waited for any more.
SETTLED_NS = 50 * NS_PER_MS
# How long the owner of a datagram socket is taken for its owner at its end, of which the notice comes late.
HELD_NS = 500 * NS_PER_MS
# The kernel tells of ends from a work queue (sock_diag_broadcast_destroy in net/core/sock_diag.c), so those of sockets
# that came and went before a packet was looked up may take so long to be heard.
NOTICES_NS = 30 * NS_PER_MS
# How long one process must have been the only one with a raw ICMP socket before echoes are taken for its own.
STEADY_NS = 300 * NS_PER_MS

_LIVE = frozenset({1, 2, 3})  # ESTABLISHED, SYN_SENT, SYN_RECV


class ConnectionIndex:
    """Answer which process an end of a flow belongs to, from caches where they hold, from the engine where not.

    `clock` returns monotonic nanoseconds, `wall_clock` those since the epoch. `counts` tells how the index worked:
    `hits`, `misses`, `overruns` (lost notices of closed sockets, after which everything is asked anew).
    """

    def __init__(self, engine: Engine, clock: Callable[[], int], wall_clock: Callable[[], int]) -> None:
        self._engine = engine
        self._clock = clock
        self.owners = Owners(engine, clock)
        self._answers: LRUCache[Query, Answer] = LRUCache(MAX_ANSWERS)
        self._previous: LRUCache[Ends, Answer] = LRUCache(MAX_PAST)
        self._successions = Successions(clock, wall_clock)
        self.endings = Endings(clock)
        self._absence = Absence(clock, hears_ends=engine.hears_ends)
        self.counts: Counter[str] = Counter()
        self.staleness = Staleness()

    def warm(self, namespaces: Iterable[int]) -> None:
        """Learn all sockets of the namespaces and their holders, so that those that end soon are known afterwards."""
        self.owners.warm(namespaces)

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
        self._absence.note(ended)

    def learn(self, sighting: Sighting) -> None:
        """Take in what was found out elsewhere about a query, as if it had been asked here then."""
        self.owners.take(sighting.holdings)
        if sighting.query.protocol == Protocol.TCP:
            self._forget_before(sighting.query, sighting.packet_ns)
            self._successions.opens(sighting.query)
            self._successions.changed(asked_ends(sighting.query), sighting.packet_ns - CLOCK_ERROR_NS)
        if not sighting.sockets:
            return
        self._forget_unknown(sighting.query)
        selection = accepted(sighting.query, sighting.sockets)
        self._answer(sighting.query, selection, opens=True, packet_ns=sighting.packet_ns, asked_ns=sighting.asked_ns)

    def _forget_unknown(self, query: Query) -> None:
        """Let go of answers without an owner, which was asked for too late: a better one has come."""
        for way in both_ways(query):
            answer = self._answers.get(way)
            if answer and not answer.attribution.process:
                del self._answers[way]
                self.staleness.port(query.protocol, query.local_port)

    def note_exits(self, exits: Iterable[Exit]) -> None:
        """Take note of processes that ended: what they held may have passed to others."""
        for ended in exits:
            self.endings.note_exit(ended)
            self.owners.forget(ended.process)
            self.staleness.process(ended.process)

    def resolve(
        self,
        queries: Sequence[Query],
        opened: Mapping[Query, int] = MappingProxyType({}),
        first_ns: Sequence[int] = (),
        reset: Mapping[Ends, int] = MappingProxyType({}),
        mixed: frozenset[Ends] = frozenset(),
    ) -> list[Answer]:
        """Return an answer for each query.

        Those in `opened` began a connection at that time, so what was asked for them before is void. `first_ns` are
        the times of the first packets that the answers are for, now by default. `reset` has the times at which
        connections between ends were reset meanwhile, `mixed` those ends of which packets of an earlier connection are
        among the same packets.
        """
        answers: dict[Query, Answer] = {}
        misses: dict[Query, int] = {}
        for query, opened_ns in opened.items():
            self.staleness.port(query.protocol, query.local_port)
            self._forget_before(query, opened_ns)
            self._successions.changed(asked_ends(query), opened_ns - CLOCK_ERROR_NS)
            if query.outgoing:
                self._successions.opens(query)
        for query, packet_ns in zip(queries, first_ns or [self._clock()] * len(queries), strict=True):
            answer = self._cached(query)
            if answer and self._successions.comes_later(answer.attribution.process, query, packet_ns):
                answer = self._ambiguous(answer.attribution)
            if answer is not None:
                answers[query] = answer
            elif query not in answers:
                answers[query] = _NOT_ASKED
                misses[query] = packet_ns
        self.counts["hits"] += len(queries) - len(misses)
        if misses:
            self.counts["misses"] += len(misses)
            answers |= self._asked(misses, opened, reset)
        if mixed:
            answers |= {q: self._ambiguous(a.attribution) for q, a in answers.items() if asked_ends(q) in mixed}
        return [answers[query] for query in queries]

    def _forget_before(self, query: Query, opened_ns: int) -> None:
        for way in both_ways(query):
            answer = self._answers.get(way)
            if answer and answer.asked_ns < opened_ns:
                del self._answers[way]
        previous = self._previous.get(asked_ends(query))
        if previous and previous.asked_ns < opened_ns:
            del self._previous[asked_ends(query)]

    def _cached(self, query: Query) -> Answer | None:
        answer = self._answers.get(query)
        if answer is None or answer.until_ns <= self._clock():
            return None
        # The last packets of a TCP connection come after its socket ended; a UDP port may have a new owner at once.
        if query.protocol in DATAGRAM and any(self.endings.has_ended(socket) for socket in answer.sockets):
            return None
        if not self.endings.recent(asked_ends(query)) <= set(answer.sockets):
            return None
        if answer.attribution.reason is Reason.NO_SOCKET and self._absence.is_refuted(query, answer.confirmed_ns):
            return None
        process = answer.attribution.process
        if process and self.endings.exit_ns(process.id) and not all(map(self.endings.has_ended, answer.sockets)):
            return None
        return answer

    def _asked(
        self, misses: Mapping[Query, int], opened: Mapping[Query, int], reset: Mapping[Ends, int]
    ) -> dict[Query, Answer]:
        """Ask the engine; a connection that is open after a reset is another one than the one that was reset."""
        answers = dict(zip(misses, self._ask(misses, opened), strict=True))
        for query, answer in answers.items():
            ends = asked_ends(query)
            if ends in reset and answer.is_live:
                self._successions.changed(ends, reset[ends] + 1)
        return {
            query: self._ambiguous(answer.attribution)
            if self._successions.mixes_owners(query, misses[query])
            else answer
            for query, answer in answers.items()
        }

    def _ask(self, asked: Mapping[Query, int], opened: Mapping[Query, int]) -> list[Answer]:
        queries = list(asked)
        asked_ns = self._clock()
        found = self._engine.candidates(queries)
        selections = [accepted(query, sockets) for query, sockets in zip(queries, found, strict=True)]
        self.owners.learn([socket for selection in selections for socket in selection.sockets if socket.inode])
        return [
            self._answer(query, selection, opens=query in opened, packet_ns=asked[query], asked_ns=asked_ns)
            for query, selection in zip(queries, selections, strict=True)
        ]

    def _answer(self, query: Query, selection: Selection, *, opens: bool, packet_ns: int, asked_ns: int) -> Answer:
        previous = self._previous.get(asked_ends(query))
        steady = self._is_steady(selection, previous)
        attribution = self.owners.attribute(query, selection, opens=opens, steady=steady)
        if attribution.process is None and previous and previous.attribution.process:
            if self._still_theirs(query, selection, previous):
                return self._prolong(query, previous, packet_ns)
            if self._closes_now(query, selection, previous):
                why = Reason.CLOSED if attribution.reason is Reason.NO_SOCKET else attribution.reason
                return Answer(replace(attribution, reason=why, final=False), (), asked_ns, asked_ns, 0)
        owner = attribution.process
        if owner and self._successions.may_be_younger(owner, query, packet_ns):
            return self._ambiguous(attribution)
        if self._changed_hands(selection, attribution):
            return self._ambiguous(attribution)
        self._note_change(query, selection, attribution, previous, packet_ns)
        if attribution.reason is Reason.NO_SOCKET:
            if previous and previous.sockets:
                refused = previous.attribution.reason is Reason.PERMISSION
                attribution = replace(attribution, reason=Reason.PERMISSION if refused else Reason.CLOSED)
            elif asked_ns > packet_ns and not self._absence.is_proven(query, packet_ns):
                attribution = replace(attribution, reason=Reason.CLOSED)
        return self._remember(query, attribution, selection, asked_ns)

    def _is_steady(self, selection: Selection, previous: Answer | None) -> bool:
        """Say whether the very same sockets have fitted for a while."""
        return (
            previous is not None
            and previous.sockets == tuple(socket.id for socket in selection.sockets)
            and self._clock() - previous.asked_ns > STEADY_NS
        )

    def _still_theirs(self, query: Query, selection: Selection, previous: Answer) -> bool:
        """Say whether packets after the end of a socket still belong to its last owner.

        TCP's do until a SYN begins something new. A datagram's do for a moment after the end, if nothing else came and
        went on its ports, which only an engine that hears of ends can tell.
        """
        former = previous.attribution
        if former.process is None or former.match is Match.LISTENER:
            return False
        if any(socket.inode or _is_another(socket, previous) for socket in selection.sockets):
            return False
        if query.protocol not in DATAGRAM:
            return self.endings.recent(asked_ends(query)) <= set(previous.sockets)
        gone = {socket for ends in possible_ends(query) for socket in self.endings.recent(ends)}
        exit_ns, former_ns = self.endings.exit_ns(former.process.id), self._clock() - previous.confirmed_ns
        if exit_ns and self._clock() - exit_ns > 2 * RECENT_NS:
            return False
        known_ns = HELD_NS if gone else RECENT_NS
        held = former_ns <= known_ns or self.endings.at_once(former.process.id, gone)
        return self._engine.hears_ends and gone <= set(previous.sockets) and held

    def _closes_now(self, query: Query, selection: Selection, previous: Answer) -> bool:
        """Say whether a socket may have lost its last holder while it was looked at; the next look will tell."""
        age_ns = self._clock() - previous.confirmed_ns
        if selection.sockets or query.protocol not in DATAGRAM or not self._engine.hears_ends:
            return age_ns < RECENT_NS and any(s.inode and s.id in previous.sockets for s in selection.sockets)
        return age_ns < MAX_TTL_NS + HELD_NS and not any(map(self.endings.has_ended, previous.sockets))

    def _changed_hands(self, selection: Selection, attribution: Attribution) -> bool:
        """Say whether a block may hold packets of an ended socket and of a successor of another owner."""
        owners = attribution.holders or (attribution.process,)
        return any(
            self.owners.last(former) != owners
            for socket in selection.sockets
            if socket.inode  # in TIME_WAIT a socket that was never asked for has another cookie than at its end
            for former in self.endings.recent(ends_of(socket)) - {socket.id}
        )

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
        self._successions.changed(asked_ends(query), exit_ns if known and exit_ns else self._clock())

    def _ambiguous(self, attribution: Attribution) -> Answer:
        holders = attribution.holders or ((attribution.process,) if attribution.process else ())
        return Answer(Attribution(reason=Reason.AMBIGUOUS, evidence=self._engine.name, holders=holders), (), 0, 0, 0)

    def _prolong(self, query: Query, previous: Answer, packet_ns: int) -> Answer:
        """Answer as before; what was known stays as it was confirmed then.

        A datagram's port may have had another owner since, of whose end the notice is still to come.
        """
        now = self._clock()
        attribution = replace(
            previous.attribution, final=query.protocol not in DATAGRAM or now - packet_ns > NOTICES_NS
        )
        until_ns = now + (MIN_TTL_NS if query.protocol in DATAGRAM else MAX_NEGATIVE_TTL_NS)
        answer = replace(previous, attribution=attribution, until_ns=until_ns, is_live=False)
        self._answers[query] = answer
        return answer

    def _remember(self, query: Query, attribution: Attribution, selection: Selection, asked_ns: int) -> Answer:
        sockets = tuple(socket.id for socket in selection.sockets)
        previous = self._previous.get(asked_ends(query))
        first = previous.asked_ns if previous and previous.sockets == sockets else asked_ns
        age = asked_ns - first
        if age > SETTLED_NS and not attribution.final:
            attribution = replace(attribution, final=True)
        until_ns = self._clock() + max(
            MIN_TTL_NS, min(longest_ttl_ns(query, attribution, hears_ends=self._engine.hears_ends), age)
        )
        live = any(socket.inode and socket.state in _LIVE for socket in selection.sockets)
        answer = Answer(attribution, sockets, first, asked_ns, until_ns, live)
        self._answers[query] = answer
        self._previous[asked_ends(query)] = answer
        if attribution.match in (Match.EXACT, Match.LISTENER) and attribution.process:
            self.owners.note_user(query.netns, query.protocol, query.local_port, attribution.process)
        return answer


_NOT_ASKED = Answer(Attribution(reason=Reason.NOT_COVERED, final=False), (), 0, 0, 0)


def _is_another(socket: Socket, previous: Answer) -> bool:
    """Say whether a socket that no file holds is another one than before, as far as it has an identity left."""
    return bool(socket.cookie) and socket.id not in previous.sockets
