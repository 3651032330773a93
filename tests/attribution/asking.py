"""Blocks of queries, put to an index the way a block of packets puts them."""

from __future__ import annotations

from collections.abc import Sequence

from attribution.host import Clock
from pktproc.attribution.engine import Query
from pktproc.attribution.index import ConnectionIndex
from pktproc.model import Attribution, Match, Process, Reason


def ask_block(
    index: ConnectionIndex, queries: Sequence[Query], *, opened: Sequence[Query] = (), at_ns: int = 0
) -> list[Attribution]:
    """Ask a block of queries; those `opened` began with a SYN at `at_ns`."""
    index.drain()
    answers = index.resolve(queries, dict.fromkeys(opened, at_ns))
    return [answer.attribution for answer in answers]


def ask(index: ConnectionIndex, query: Query) -> Attribution:
    """Ask one query in a block of its own."""
    return ask_block(index, [query])[0]


def ask_opening(index: ConnectionIndex, query: Query, clock: Clock) -> Attribution:
    """Ask a query whose flow begins with a SYN right now."""
    return ask_block(index, [query], opened=[query], at_ns=clock())[0]


def named(attribution: Attribution | None) -> tuple[Process | None, Match | None]:
    """Return who an answer names and how; fail if it has a reason for not naming anybody."""
    assert attribution is not None
    assert attribution.reason is None, attribution
    return attribution.process, attribution.match


def reason(attribution: Attribution | None) -> tuple[Reason | None, bool]:
    """Return why an answer names nobody, and whether that is final; fail if it names somebody."""
    assert attribution is not None
    assert attribution.process is None, attribution
    return attribution.reason, attribution.final


def until_settled(index: ConnectionIndex, query: Query, clock: Clock, *, within_ms: float = 1000) -> Attribution:
    """Ask again every 5 ms until the answer is final."""
    limit_ns = clock() + int(within_ms * 1_000_000)
    while not (answer := ask(index, query)).final and clock() < limit_ns:
        clock.advance(5)
    return answer
