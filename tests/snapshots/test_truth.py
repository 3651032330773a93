"""Random lives of sockets and processes: what the store says was certain was so, and nothing that lasted is missing."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from attribution.host import INODE, NS_PER_S
from pktproc.attribution.history import Span
from pktproc.model import Process, Socket
from pktproc.snapshots.reader import StoreReader
from snapshots.bench import BEGIN_NS, Bench

LOOKS = 40
FOR_EVER = 1 << 62


@dataclass
class Life:
    """When something was true: from `begin` on, before `end`."""

    begin: int
    end: int = FOR_EVER

    def agrees_with(self, span: Span) -> bool:
        """Say whether what is recorded as certain was so."""
        begins_right = span.after_ns is None or span.after_ns <= self.begin <= span.first_ns
        ends_right = span.before_ns is None or self.end <= span.before_ns
        return begins_right and ends_right and self.begin <= span.first_ns <= span.last_ns <= self.end


@dataclass
class World:
    """Do random things to a host, and remember when what was true."""

    bench: Bench
    chance: random.Random
    sockets: dict[int, tuple[Socket, Life]] = field(default_factory=dict)
    holdings: dict[tuple[int, int], Life] = field(default_factory=dict)
    processes: dict[int, Process] = field(default_factory=dict)

    def act(self) -> None:
        self.chance.choice([self.start, self.open, self.open, self.open, self.close, self.give, self.drop, self.end])()

    @property
    def now(self) -> int:
        return self.bench.clock.wall_ns()

    def live(self) -> list[tuple[int, Socket]]:
        return [(key, socket) for key, (socket, life) in self.sockets.items() if life.end == FOR_EVER]

    def holders(self, key: int) -> list[int]:
        return [pid for (held, pid), life in self.holdings.items() if held == key and life.end == FOR_EVER]

    def start(self) -> None:
        process = self.bench.host.start(f"p{len(self.holdings)}")
        self.processes[process.pid] = process

    def open(self) -> None:
        if self.processes:
            process = self.chance.choice(list(self.processes.values()))
            port = self.chance.randrange(5000, 5004)
            opened = self.bench.bind(process, port) if self.chance.random() < 0.5 else self.bench.connect(process, port)
            key = opened.inode - INODE
            self.sockets[key] = opened, Life(self.now)
            self.holdings[key, process.pid] = Life(self.now)

    def close(self) -> None:
        if live := self.live():
            key, socket = self.chance.choice(live)
            self.bench.host.close(socket)
            self.ended(key)

    def ended(self, key: int) -> None:
        self.sockets[key][1].end = self.now
        for pid in self.holders(key):
            self.holdings[key, pid].end = self.now

    def give(self) -> None:
        if (live := self.live()) and self.processes:
            key, socket = self.chance.choice(live)
            process = self.chance.choice(list(self.processes.values()))
            if (key, process.pid) not in self.holdings:
                self.bench.host.give(socket, process)
                self.holdings[key, process.pid] = Life(self.now)

    def drop(self) -> None:
        if live := self.live():
            key, socket = self.chance.choice(live)
            self.let_go(key, socket, self.chance.choice(self.holders(key)))

    def let_go(self, key: int, socket: Socket, pid: int) -> None:
        self.bench.host.drop(socket, self.processes[pid])
        self.holdings[key, pid].end = self.now
        if not self.holders(key):
            self.ended(key)

    def end(self) -> None:
        if self.processes:
            process = self.processes.pop(self.chance.choice(list(self.processes)))
            self.bench.host.end(process)
            for key, _ in self.live():
                if process.pid in self.holders(key):
                    self.holdings[key, process.pid].end = self.now
                    if not self.holders(key):
                        self.ended(key)


def run(path: Path, seed: int, *, hears_ends: bool) -> World:
    """Let things happen at random times between looks; ends are heard a moment later."""
    bench = Bench(path, hears_ends=hears_ends)
    world = World(bench, random.Random(seed))
    for _ in range(5):
        world.start()
    bench.recorder.look()
    for number in range(1, LOOKS):
        look_ns = BEGIN_NS + number * NS_PER_S
        while world.now < look_ns - NS_PER_S // 50:
            bench.wait(world.chance.uniform(0, 0.02))
            if world.chance.random() < 0.5:
                bench.wait(world.chance.uniform(0, 0.3) if world.now < look_ns - NS_PER_S // 3 else 0)
            bench.recorder.hear()
            world.act()
        bench.look((look_ns - world.now) / NS_PER_S)
    bench.end()
    return world


@pytest.mark.parametrize("hears_ends", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_what_is_certain_was_so(tmp_path: Path, seed: int, *, hears_ends: bool) -> None:
    world = run(tmp_path / "store.db", seed, hears_ends=hears_ends)
    reader = StoreReader(world.bench.path)
    recorded = reader.sockets("1", ())
    reader.close()
    found = {}
    for one in recorded:
        key = one.socket.inode - INODE if one.socket.inode else one.socket.cookie
        assert key not in found
        found[key] = one
        _, life = world.sockets[key]
        if one.span.first_ns == one.span.before_ns:  # only its end was heard
            assert life.end <= one.span.first_ns
            assert one.span.after_ns is None or one.span.after_ns <= life.begin
        else:
            assert life.agrees_with(one.span), (one, life)
        for holder in one.holders:
            assert world.holdings[key, holder.process.pid].agrees_with(holder.span), (holder, key)
    looks = [BEGIN_NS + number * NS_PER_S for number in range(LOOKS)]
    seen = {key for key, (_, life) in world.sockets.items() if any(life.begin <= look < life.end for look in looks)}
    assert found.keys() >= seen
    assert {key for key, one in found.items() if one.holders} == seen
    if hears_ends:
        assert found.keys() == world.sockets.keys()
