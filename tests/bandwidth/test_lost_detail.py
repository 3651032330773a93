"""What was folded for want of room is told, by views that would show it otherwise and by no others."""

from __future__ import annotations

import pytest

from bandwidth.counted import NS_PER_S, START_NS, Seen, adds_up, block, by, tcp
from pktproc.bandwidth import folding, ledger
from pktproc.bandwidth.ledger import Ledger

COUNT = 40


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for few flows."""
    monkeypatch.setattr(ledger, "FOLD_ABOVE", 8)


def ended(number: int, owner: int = 1) -> list[Seen]:
    """A connection that begins and ends, some time after the one before."""
    time_ns = START_NS + 10 * number * NS_PER_S
    return [
        Seen(tcp(1000 + number, 80, flags), (by(owner), None), time_ns=time_ns + at, wire_bytes=100)
        for at, flags in enumerate(("S", "FA"))
    ]


def counted(keys: list[str], *, owners: int = 1) -> Ledger:
    book = Ledger(keys)
    for number in range(COUNT):
        book.add(block(ended(number, number % owners)))
    return book


def notes(book: Ledger, *keys: str) -> str:
    view = book.view(by=keys)
    adds_up(view)
    return "\n".join(view.notes)


def shown(book: Ledger, *keys: str) -> int:
    """The rows that stand for one connection each."""
    return sum(row.connections == 1 for row in book.view(by=keys).rows)


@pytest.mark.usefixtures("small")
def test_connections_that_lost_their_ports_are_told_where_connections_are_shown() -> None:
    book = counted(["process"])
    assert notes(book, "process") == notes(book, "remote") == notes(book, "remote-port") == ""
    folded = COUNT - shown(book, "connection")
    assert folded > 0
    assert f"{folded} connections that ended are shown by their remote ends alone" in notes(book, "connection")
    (row,) = book.view().rows
    assert book.connections_of(row.key).folded == folded


def test_nothing_is_told_where_there_is_room() -> None:
    book = counted(["process"])
    assert notes(book, "process", "connection", "remote") == ""
    (row,) = book.view().rows
    found = book.connections_of(row.key, most=5)
    assert (len(found.shown), found.known, found.folded) == (5, COUNT, 0)


@pytest.mark.usefixtures("small")
def test_connections_that_lost_their_remote_ends_are_told_where_these_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(folding, "MAX_SLOTS", 2)
    book = counted(["process"])
    several = next(row for row in book.view(by=["remote"]).rows if row.key == ("several",))
    assert f"{several.connections} connections that ended are shown as 'several' remote ends" in notes(book, "remote")
    assert notes(book, "remote-port") == notes(book, "remote")
    assert notes(book, "process") == ""


@pytest.mark.usefixtures("small")
def test_processes_that_were_not_kept_apart_are_told_where_owners_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "MAX_OWNERS", 4)
    book = counted(["process"], owners=COUNT)
    view = book.view()
    lost = COUNT - sum(row.process is not None for row in view.rows)
    assert lost > 0
    assert f"{lost} processes not seen for long are shown as 'other processes'" in notes(book, "name")
    assert "processes" not in notes(book, "protocol")
