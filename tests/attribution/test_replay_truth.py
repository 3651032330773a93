"""Random histories of a host, recorded once a second: what is named was so, and what lived long is named."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest

from attribution.host import HOME, NS_PER_S, End
from attribution.recorded import Record, Timed, at, file_batch, span, tcp, udp
from attribution.recorded import process as make_process
from attribution.traffic import OURS, THEIRS, ends_of
from pktproc.attribution.history import Coverage, Span
from pktproc.attribution.replay import ReplayAttributor
from pktproc.model import Process, Protocol

SECONDS = 40
PORTS = (5000, 5001)
SERVICE = 80
PASSING_S = 0.002
ADDRESSES = {HOME: OURS, HOME + 1: "10.77.1.1"}
REMOTE = (THEIRS, 80)


class Life(NamedTuple):
    """A socket as it really was; `heir` is who holds it, too, from `passed` on, when the owner lets go of it."""

    owner: Process
    netns: int
    local: End
    remote: End | None
    begin: float
    end: float
    heir: Process | None = None
    passed: float = 0

    def users(self, time: float) -> set[Process]:
        """Return who the packets of a time may be said to be of."""
        if self.heir is None or time < self.passed:
            return {self.owner}
        return {self.heir}


class World(NamedTuple):
    """What really was, and whether recorded ends are heard."""

    lives: list[Life]
    protocol: int
    hears: bool


def processes() -> Iterator[Process]:
    for number in range(1, 1 << 20):
        yield make_process(f"p{number}", 100 + number, number)


def clients(chance: random.Random, protocol: int, new: Iterator[Process]) -> Iterator[Life]:
    """Yield sockets on a few ports, one after another on each, by ever new processes."""
    for netns, address in ADDRESSES.items():
        for port in PORTS:
            now = chance.uniform(0, 3)
            while now < SECONDS:
                end = now + chance.choice([0.01, 0.3, 1.5, 6]) * chance.uniform(0.5, 1.5)
                remote = REMOTE if protocol == Protocol.TCP else None
                yield Life(next(new), netns, (address, port), remote, now, min(end, SECONDS))
                now = end + chance.choice([0.001, 0.2, 3])


def services(chance: random.Random, new: Iterator[Process]) -> Iterator[Life]:
    """Yield listeners that are restarted now and then, and their connections, kept or handed to children."""
    for netns, address in ADDRESSES.items():
        now, number = chance.uniform(0, 2), 0
        while now < SECONDS:
            server, forks = next(new), chance.random() < 0.4
            stopped = min(now + chance.uniform(5, 15), SECONDS)
            yield Life(server, netns, (address, SERVICE), None, now, stopped)
            begin = now
            while (begin := begin + chance.uniform(0.01, 1.5)) < stopped:
                if math.ceil(begin) - begin < PASSING_S:
                    continue  # a look just then sees the parent alone, and nothing tells of the child
                number += 1
                end = min(begin + chance.choice([0.05, 0.4, 3]), stopped)
                heir = next(new) if forks else None
                remote = (THEIRS, 20000 + number)
                yield Life(server, netns, (address, SERVICE), remote, begin, end, heir, begin + PASSING_S)
            now = stopped + chance.choice([0.01, 0.5, 2])


def holders_of(life: Life, looks: Sequence[int], before: float) -> list[tuple[Process, Span]]:
    """Return what looks tell of the holders: the owner lets go when the heir has it."""
    after, first, last = looks[0] - 1, looks[0], looks[-1]
    if life.heir is None:
        return [(life.owner, span(first, last, after=after, before=before))]
    early = [look for look in looks if look < life.passed]
    late = [look for look in looks if look >= life.passed]
    found = []
    if early:
        found.append((life.owner, span(first, early[-1], after=after, before=late[0] if late else before)))
    if late:
        found.append((life.heir, span(late[0], last, after=early[-1] if early else after, before=before)))
    return found


def record(world: World, chance: random.Random) -> Record:
    """Return what a recorder knows that looks once a second; ends are heard a moment late."""
    kept = Record(covered=[Coverage(at(0), at(SECONDS), "netlink", hears_ends=world.hears, interval_ns=NS_PER_S)])
    for netns, address in ADDRESSES.items():
        kept.has(address, netns=netns)
    for life in world.lives:
        looks = [look for look in range(SECONDS + 1) if life.begin <= look <= life.end]
        heard = life.end + chance.uniform(0, 0.01)
        if looks:
            before = heard if world.hears else looks[-1] + 1
            when = span(looks[0], looks[-1], after=looks[0] - 1, before=before)
            holders = holders_of(life, looks, before)
            kept.saw(holders, when, life.local, life.remote, protocol=world.protocol, netns=life.netns)
        elif world.hears:
            when = span(heard, heard, after=int(life.begin), before=heard)
            kept.saw(None, when, life.local, life.remote, protocol=world.protocol, netns=life.netns)
    return kept


def traffic(world: World, chance: random.Random) -> list[tuple[Timed, Life]]:
    """Return packets of the sockets, in order of time; those of TCP begin with a SYN, and stray ones come in."""
    packets: list[tuple[Timed, Life]] = []
    for life in world.lives:
        if life.remote is None and world.protocol == Protocol.TCP:
            continue
        here, there = life.local, life.remote or REMOTE
        make = udp if world.protocol == Protocol.UDP else tcp
        times = sorted(chance.uniform(life.begin, life.end) for _ in range(6))
        packets += [((t, chance.choice([make(here, there), make(there, here)])), life) for t in times]
        if world.protocol == Protocol.TCP:
            opening = (here, there) if here[1] in PORTS else (there, here)
            packets.append(((life.begin, tcp(*opening, "S", 1 + len(packets))), life))
            if chance.random() < 0.2 and life.end - life.begin > 3:
                time = chance.uniform(life.begin + 1.1, life.end - 1.1)  # while looks have it before and after
                packets.append(((time, tcp(*opening, "S", 1 + len(packets))), life))
    return sorted(packets, key=lambda packet: packet[0][0])


def judge(world: World, packets: list[tuple[Timed, Life]], chance: random.Random) -> tuple[int, list[object]]:
    """Return how many packets are named rightly, and what is wrong or unknown of what lived long."""
    attributor = ReplayAttributor([record(world, chance)])
    bad: list[object] = []
    right = done = 0
    while done < len(packets):
        block = packets[done : done + chance.choice([1, 5, 50, 400])]
        done += len(block)
        answers = ends_of(attributor.attribute(file_batch([packet for packet, _ in block])))
        for (source, destination), ((time, _), life) in zip(answers, block, strict=True):
            end = source or destination
            assert end is not None
            if end.process is not None:
                holders = set(end.holders) if end.match == "shared" else {end.process}
                is_right = bool(holders & life.users(time)) or (life.heir is not None and time < life.passed + 0.01)
                right += is_right
                if not is_right:
                    bad.append((time, life, end))
            elif end.reason == "ambiguous" and time < (life.begin + 0.02 if world.hears else math.ceil(life.begin)):
                continue  # the end of what was there before is yet to be heard, or the next SYN to be read
            elif life.heir is None and life.end - life.begin > 1 and world.protocol == Protocol.TCP:
                bad.append((time, life, end.reason))
    return right, bad


@pytest.mark.parametrize("hears", [True, False])
@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP])
@pytest.mark.parametrize("seed", range(12))
def test_nobody_is_named_wrongly(protocol: Protocol, seed: int, *, hears: bool) -> None:
    chance = random.Random(seed)
    new = processes()
    lives = list(clients(chance, protocol, new))
    if protocol == Protocol.TCP:
        lives += services(chance, new)
    world = World(lives, protocol, hears)
    packets = traffic(world, chance)
    right, bad = judge(world, packets, chance)
    assert bad == []
    assert right > len(packets) / 10
