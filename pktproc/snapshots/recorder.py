"""Look at a host again and again, and keep in a store what was true when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pktproc.attribution.clocks import monotonic_offset_ns
from pktproc.attribution.engine import Engine, Witness
from pktproc.attribution.ownership import Pace
from pktproc.snapshots.census import Census, Heard, Look
from pktproc.snapshots.holders import HolderLog
from pktproc.snapshots.retention import Retention
from pktproc.snapshots.store import Store

NS_PER_S = 1_000_000_000
# The kernel frees UDP sockets and listeners after an RCU grace period and tells of them from a work queue
# (sock_diag_broadcast_destroy in net/core/sock_diag.c): what is not told yet may have ended so long ago.
NOTICE_DELAY_NS = 50_000_000
MAX_HEARD = 1 << 17
# On a host with very many namespaces not each of them is looked at each time, to stay within these shares.
NAMESPACES_SHARE = 0.05
DISCOVERY_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Counts:
    """How much was recorded: looks, sockets found by them, ends heard of sockets that none found, processes."""

    looks: int
    sockets: int
    unseen_sockets: int
    processes: int


class Recorder:
    """Keep in a store what an engine shows; call `look` every `interval_ns` and `hear` more often, then `close`.

    `clock` returns monotonic nanoseconds, `wall_clock` those since the epoch, by which facts are kept. A wall clock
    that is set back begins a new interval of recording. `retention` says what to drop, `namespaces` which
    namespaces there are, if not the engine, `cost_clock` what looks cost, if not time. `postponed` counts looks at
    single namespaces that were put off, `deaf_times` how often ends of sockets were missed. A `witness` tells what
    happens between looks; `untold` counts what it could not tell.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        clock: Callable[[], int],
        wall_clock: Callable[[], int],
        *,
        interval_ns: int = 0,
        retention: Retention | None = None,
        namespaces: Callable[[], frozenset[int]] | None = None,
        cost_clock: Callable[[], int] | None = None,
        witness: Witness | None = None,
    ) -> None:
        self._engine = engine
        self._witness = witness
        self._store = store
        self._clock = clock
        self._wall_clock = wall_clock
        self._cost_clock = cost_clock or clock
        self._interval_ns = interval_ns
        self._retention = retention
        # A shorter interval than a second was asked for by who is ready to pay for it.
        self._share = max(1.0, NS_PER_S / interval_ns) if interval_ns else 1.0
        self._namespaces_pace = Pace(NAMESPACES_SHARE * self._share)
        self._discovery_pace = Pace(DISCOVERY_SHARE * self._share)
        self._discover = namespaces or engine.namespaces
        self._namespaces: frozenset[int] = frozenset()
        self._coverage: int | None = None
        self._latest_ns = 0
        self._drained_ns = 0
        self._heard: list[Heard] = []
        self._deaf: list[tuple[int, int]] = []
        self._looks = 0
        self._past = Counts(0, 0, 0, 0)
        self.postponed = self.deaf_times = self.untold = 0
        self._start_anew()

    def _start_anew(self) -> None:
        self.holders = HolderLog(
            self._engine,
            self._store,
            self._clock,
            self._wall_clock,
            cost_clock=self._cost_clock,
            share=self._share,
        )
        self._census = Census(self._store, self.holders, self._witness)

    @property
    def counts(self) -> Counts:
        """Return how much was recorded so far."""
        past = self._past
        return Counts(
            looks=self._looks,
            sockets=past.sockets + self._census.count + self._census.uses.count,
            unseen_sockets=past.unseen_sockets + self._census.unseen_count,
            processes=past.processes + self.holders.descriptions.count,
        )

    def hear(self) -> None:
        """Take in the ends of sockets that the kernel told since the last call; the next look writes them down."""
        begin_ns = self._wall_clock()
        if self._coverage is not None and begin_ns < max(self._drained_ns, self._latest_ns):
            self._turn_back(self._coverage)
        self._hear_uses(begin_ns)
        ended = self._engine.ended()
        end_ns = self._wall_clock()
        if self._coverage is not None:
            if ended.lost or len(self._heard) + len(ended.sockets) > MAX_HEARD:
                self._deaf.append((self._drained_ns, end_ns))
                self.deaf_times += 1
            since_ns = self._drained_ns - NOTICE_DELAY_NS
            room = MAX_HEARD - len(self._heard)
            self._heard += [Heard(socket, since_ns, end_ns) for socket in ended.sockets[:room]]
        self._drained_ns = begin_ns

    def _hear_uses(self, now_ns: int) -> None:
        """Take in what the witness has told, before the ends of sockets, which it may have told of, too."""
        if self._witness is None:
            return
        self.untold += self._census.uses.hear(monotonic_offset_ns(self._clock, self._wall_clock), now_ns)
        if self._coverage is not None and self._census.uses.is_full:
            with self._store.transaction():
                self._census.write_uses()

    def heard_nothing(self, until_ns: int) -> None:
        """Take note that no end was told until a time of the wall clock."""
        self._hear_uses(until_ns)
        self._drained_ns = max(self._drained_ns, until_ns)

    def look(self) -> None:
        """Look at everything once and write down, all or nothing, what changed since the last look."""
        self.hear()
        begin_ns = self._wall_clock()
        with self._store.transaction():
            if self._coverage is None:
                self._coverage = self._store.begin_coverage(
                    begin_ns, self._engine.name, hears_ends=self._engine.hears_ends, interval_ns=self._interval_ns
                )
            self._write_heard()
            self._look_at_namespaces()
            self._latest_ns = self._wall_clock()
            self._census.uses.looked()
            self.holders.look()
            self._extend(self._coverage)
        self._looks += 1
        if self._retention:
            self._retention.apply(self._latest_ns)

    def close(self) -> None:
        """Write down what was heard since the last look, and the end of the recording."""
        self.hear()
        if self._coverage is not None:
            self.holders.verify()
            self._finish(self._coverage)

    def _finish(self, coverage: int) -> None:
        with self._store.transaction():
            self._write_heard()
            self._census.finish()
            self._extend(coverage)
            self._store.settle()
        self._coverage = None

    def _extend(self, coverage: int) -> None:
        self._store.extend_coverage(coverage, self._latest_ns, self.holders.verified_ns)

    def _turn_back(self, coverage: int) -> None:
        """End the interval of recording, since times from now on are of another clock, so to speak."""
        self._finish(coverage)
        self._past = self.counts
        self._start_anew()

    def _write_heard(self) -> None:
        self._census.write_uses()
        for heard in self._heard:
            self._census.hear(heard)
        for deaf in self._deaf:
            self._store.add_deafness(*deaf)
        self._heard.clear()
        self._deaf.clear()

    def _look_at_namespaces(self) -> None:
        if self._discovery_pace.allows(self._clock()):
            begin = self._cost_clock()
            self._namespaces = self._discover()
            self._discovery_pace.worked(begin, self._cost_clock())
        for netns in self._census.namespaces - self._namespaces:
            self._census.drop(netns)
        for netns in sorted(self._namespaces, key=self._census.looked_ns):
            if not self._namespaces_pace.allows(self._clock()):
                self.postponed += 1
            elif self._engine.readable(netns):
                begin = self._cost_clock()
                begin_ns = self._wall_clock()
                sockets = self._engine.sockets(netns)
                look = Look(begin_ns, self._wall_clock())
                self._census.look(netns, sockets, self._engine.addresses(netns), look)
                self._namespaces_pace.worked(begin, self._cost_clock())
