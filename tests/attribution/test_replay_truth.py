"""Random histories of a host, recorded once a second: what is named was so, and what lived long is named."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest

from attribution.host import NS_PER_S
from attribution.recorded import Record, Timed, at, replay, span, tcp, udp
from attribution.recorded import process as make_process
from attribution.traffic import OURS, THEIRS
from pktproc.attribution.history import Coverage
from pktproc.model import Process, Protocol

SECONDS = 40
PORTS = (5000, 5001)
SERVER = (THEIRS, 80)


class Life(NamedTuple):
    """A socket as it really was."""

    owner: Process
    port: int
    begin: float
    end: float


def lives(chance: random.Random) -> list[Life]:
    """Return sockets on a few ports, one after another on each, by ever new processes."""
    found: list[Life] = []
    for port in PORTS:
        now = chance.uniform(0, 3)
        while now < SECONDS:
            end = now + chance.choice([0.01, 0.3, 1.5, 6]) * chance.uniform(0.5, 1.5)
            owner = make_process(f"p{len(found)}", 100 + len(found), len(found))
            found.append(Life(owner, port, now, min(end, SECONDS)))
            now = end + chance.choice([0.001, 0.2, 3])
    return found


def record(found: list[Life], protocol: int, *, hears: bool, chance: random.Random) -> Record:
    """Return what a recorder knows of them that looks once a second; ends are heard a moment late."""
    kept = Record(covered=[Coverage(at(0), at(SECONDS), "netlink", hears_ends=hears, interval_ns=NS_PER_S)])
    kept.has(OURS)
    for life in found:
        looks = [look for look in range(SECONDS + 1) if life.begin <= look <= life.end]
        heard = life.end + chance.uniform(0, 0.01) if hears else None
        local = (OURS, life.port)
        remote = SERVER if protocol == Protocol.TCP else None
        if looks:
            before = heard if heard is not None else looks[-1] + 1
            when = span(looks[0], looks[-1], after=looks[0] - 1, before=before)
            kept.saw(life.owner, when, local, remote, protocol=protocol)
        elif heard is not None:
            kept.saw(None, span(heard, heard, after=int(life.begin), before=heard), local, remote, protocol=protocol)
    return kept


def traffic(found: list[Life], protocol: int, chance: random.Random) -> list[tuple[Timed, Life]]:
    """Return packets of the sockets, in order of time; those of TCP begin with a SYN."""
    packets: list[tuple[Timed, Life]] = []
    for life in found:
        here = (OURS, life.port)
        times = sorted(chance.uniform(life.begin, life.end) for _ in range(6))
        if protocol == Protocol.TCP:
            packets.append(((life.begin, tcp(here, SERVER, "S", 1 + len(packets))), life))
            packets += [((t, chance.choice([tcp(here, SERVER), tcp(SERVER, here)])), life) for t in times]
        else:
            packets += [((t, chance.choice([udp(here, SERVER), udp(SERVER, here)])), life) for t in times]
    return sorted(packets, key=lambda packet: packet[0][0])


@pytest.mark.parametrize("hears", [True, False])
@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP])
@pytest.mark.parametrize("seed", range(12))
def test_nobody_is_named_wrongly(protocol: Protocol, seed: int, *, hears: bool) -> None:
    chance = random.Random(seed)
    found = lives(chance)
    packets = traffic(found, protocol, chance)
    answers = replay(record(found, protocol, hears=hears, chance=chance), [packet for packet, _ in packets])
    right = wrong = 0
    unknown_of_long = []
    for (source, destination), ((time, _), life) in zip(answers, packets, strict=True):
        end = source or destination
        assert end is not None
        if end.process is not None:
            right += end.process == life.owner
            wrong += end.process != life.owner
        elif life.end - life.begin > 1:
            unknown_of_long.append((time, life, end.reason))
    assert wrong == 0
    assert right > 0
    if protocol == Protocol.TCP:
        assert unknown_of_long == []
