"""Blocks wait for a better answer, in order, for a short and stated time."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, UDP

from attribution.host import Clock
from attribution.traffic import OURS, THEIRS, Walk
from pktproc.attribution.answers import AttributedBatch
from pktproc.attribution.backlog import GRACE_NS, MAX_WAITING_PACKETS, RETRY_NS, Backlog
from pktproc.model import Protocol, Reason

GRACE_MS, RETRY_MS = GRACE_NS / 1_000_000, RETRY_NS / 1_000_000
IDLE_MS = 200.0


@pytest.fixture
def backlog(walk: Walk) -> Backlog:
    return Backlog(walk.attributor, walk.clock)


def block(walk: Walk, port: int, count: int = 1) -> AttributedBatch:
    """A block of packets from one port; only port 5000 has an owner."""
    frame = walk.block([IP(src=OURS, dst=THEIRS) / UDP(sport=port, dport=53)]).packet(0)
    return walk.attributor.attribute(walk.frames([frame] * count))


def push(backlog: Backlog, walk: Walk, port: int, count: int = 1) -> AttributedBatch:
    attributed = block(walk, port, count)
    backlog.push(attributed, settled=not attributed.pending)
    return attributed


def open_port(walk: Walk, port: int) -> None:
    walk.host.open(walk.host.start(f"owner-of-{port}"), (OURS, port), (THEIRS, 53), protocol=Protocol.UDP)


def test_a_settled_block_goes_at_once(walk: Walk, backlog: Backlog) -> None:
    open_port(walk, 5000)
    pushed = push(backlog, walk, 5000)
    assert backlog.wait_ms(IDLE_MS) == 0
    assert list(backlog.ready()) == [pushed]
    assert list(backlog.ready()) == []
    assert backlog.wait_ms(IDLE_MS) == IDLE_MS


def test_an_open_block_waits_for_the_grace_time_and_no_longer(walk: Walk, backlog: Backlog, clock: Clock) -> None:
    pushed = push(backlog, walk, 5001)
    begin_ns = clock()
    while not (ready := list(backlog.ready())):
        wait_ms = backlog.wait_ms(IDLE_MS)
        assert 0 < wait_ms <= RETRY_MS
        clock.advance(wait_ms)
    assert ready == [pushed]
    assert clock() - begin_ns == GRACE_NS
    (answer,) = pushed.source
    assert answer is not None
    assert answer.reason is Reason.NO_SOCKET


def test_an_open_block_goes_as_soon_as_it_has_its_answer(walk: Walk, backlog: Backlog, clock: Clock) -> None:
    """An incoming packet is tapped a moment before its socket is there."""
    pushed = push(backlog, walk, 5001)
    assert list(backlog.ready()) == []
    clock.advance(RETRY_MS + 1)
    open_port(walk, 5001)
    clock.advance(RETRY_MS + 1)
    assert list(backlog.ready()) == [pushed]
    (answer,) = pushed.source
    assert answer is not None
    assert answer.process is not None


def test_order_is_kept(walk: Walk, backlog: Backlog, clock: Clock) -> None:
    open_port(walk, 5000)
    first = push(backlog, walk, 5000)
    waiting = push(backlog, walk, 5001)
    clock.advance(GRACE_MS / 2)
    behind = push(backlog, walk, 5000)
    also_waiting = push(backlog, walk, 5002)
    assert list(backlog.ready()) == [first]
    clock.advance(GRACE_MS / 2)
    assert list(backlog.ready()) == [waiting, behind]
    clock.advance(GRACE_MS / 2)
    assert list(backlog.ready()) == [also_waiting]


def test_a_backlog_knows_how_many_blocks_wait(walk: Walk, backlog: Backlog, clock: Clock) -> None:
    for port in (5001, 5002):
        push(backlog, walk, port)
    assert (list(backlog.ready()), len(backlog)) == ([], 2)
    clock.advance(GRACE_MS)
    assert (len(list(backlog.ready())), len(backlog)) == (2, 0)


def test_too_many_packets_do_not_wait(walk: Walk, backlog: Backlog) -> None:
    count = MAX_WAITING_PACKETS // 4
    pushed = [push(backlog, walk, 5001 + number, count) for number in range(4)]
    assert list(backlog.ready()) == []
    pushed.append(push(backlog, walk, 5010, 1))
    assert list(backlog.ready()) == pushed[:1]


def test_the_engine_is_not_asked_at_each_turn(walk: Walk, backlog: Backlog) -> None:
    push(backlog, walk, 5001)
    before = walk.host.asked
    for _ in range(100):
        list(backlog.ready())
    assert walk.host.asked == before
