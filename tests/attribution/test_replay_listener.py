"""Connections that no look found: the listener's, where nothing else can have been."""

from __future__ import annotations

import pytest

from attribution.host import NS_PER_S
from attribution.recorded import Record, at, name_of, names, process, replay, span, tcp
from attribution.traffic import OURS, THEIRS
from pktproc.attribution.history import Coverage

A, B = process("a", 10), process("b", 11)
WILD, HERE = ("0.0.0.0", 80), (OURS, 80)
CLIENT = (THEIRS, 5)


@pytest.fixture
def record() -> Record:
    record = Record()
    record.has(OURS)
    return record


def kept(record: Record, who: object, first: float = 50) -> None:
    """Let a process be seen with a connection of the port."""
    record.saw(who, span(first, first + 1, after=first - 1, before=first + 2), HERE, (THEIRS, 7))  # type: ignore[arg-type]


def accepted(record: Record, *times: float, begin: float = 5.5) -> list[str | None]:
    """Return who took packets of a short connection that begins with a SYN."""
    packets = [(begin, tcp(CLIENT, HERE, "S", 1)), *((time, tcp(CLIENT, HERE)) for time in times)]
    return [destination for _, destination in names(replay(record, packets))]


def test_a_certain_wildcard_and_a_possible_specific_listener_leave_it_open(record: Record) -> None:
    record.saw(A, span(0, 100), WILD)
    record.saw(B, span(8, 9, after=5, before=10), HERE)
    kept(record, A)
    kept(record, B, 8)
    ((_, destination),) = replay(record, [(5.5, tcp(CLIENT, HERE, "S"))])
    assert destination is not None
    assert (name_of(destination), set(destination.holders)) == ("?closed", {A, B})


def test_where_ends_are_not_heard_only_a_listener_that_was_certainly_there_is_named(record: Record) -> None:
    record.covered = [Coverage(at(0), at(100), "procfs", hears_ends=False, interval_ns=NS_PER_S)]
    record.saw(A, span(6, 60, after=5, before=61), WILD)
    kept(record, A)
    assert accepted(record) == ["?not-covered"]
    assert accepted(record, begin=7.5) == ["a"]


def test_a_connection_that_a_look_should_have_found_is_not_the_listener_s(record: Record) -> None:
    """As one that the host hands on to a container, while a proxy listens on its port."""
    record.saw(A, span(0, 100), WILD)
    kept(record, A)
    assert accepted(record, 5.9, 7) == ["a", "a", "?closed"]


def test_a_connection_without_a_syn_is_not_the_listener_s(record: Record) -> None:
    record.saw(A, span(0, 100), WILD)
    kept(record, A)
    assert names(replay(record, [(5.5, tcp(CLIENT, HERE))])) == [(None, "?closed")]


def test_the_first_and_the_last_look_would_have_found_a_connection(record: Record) -> None:
    record.covered = [Coverage(at(10), at(20), "netlink", hears_ends=True, interval_ns=60 * NS_PER_S)]
    record.saw(A, span(10, 20), WILD)
    kept(record, A, 12)
    assert accepted(record, 9.9, 10.1, begin=9.5) == ["a", "a", "?closed"]
    assert accepted(record, 19.9, 20.1, begin=19.5) == ["a", "a", "?closed"]


def test_the_late_packets_of_a_connection_whose_end_was_heard_are_the_listener_s(record: Record) -> None:
    record.saw(A, span(0, 100), WILD)
    kept(record, A)
    record.saw(None, span(5.7, 5.7, after=5, before=5.7), HERE, CLIENT)
    assert accepted(record, 5.6, 8) == ["a", "a", "a"]


def test_after_a_restart_the_new_service_is_named(record: Record) -> None:
    record.saw(A, span(0, 20, before=20.5), WILD)
    record.saw(B, span(30, 100, after=29), WILD)
    kept(record, A, 10)
    kept(record, B, 50)
    assert accepted(record, begin=5.5) == ["a"]
    assert accepted(record, begin=40.5) == ["b"]


def test_who_kept_connections_in_another_recording_counts_for_the_same_process(record: Record) -> None:
    record.covered = [Coverage(at(t), at(t + 40), "netlink", True, NS_PER_S) for t in (0, 60)]
    record.saw(A, span(0, 40), WILD)
    record.saw(A, span(60, 100), WILD)
    kept(record, A, 10)
    assert accepted(record, begin=70.5) == ["a"]
    kept(record, B, 20)
    assert accepted(record, begin=70.5) == ["?closed"]
