"""Views made ready to be shown: filtered, sorted, summed up. All that takes long where there are many rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pktproc.bandwidth.views import Amount, Connection, Row, View
from pktproc.output.usage_rows import is_rest
from pktproc.tui.columns import Column, Look
from pktproc.tui.connection_columns import CONNECTION_COLUMNS, connection_search
from pktproc.tui.row_columns import ROW_COLUMNS, both_ways, row_search

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Order:
    """Sorted by the column of a title, its larger figures or earlier texts first unless `reversed`."""

    title: str
    reversed: bool = False


@dataclass(frozen=True, slots=True)
class Sums:
    """Figures of all rows of a view, whatever is filtered.

    `sent`, `received` and `internal` are for each second, what stays on this host in the latter alone. Unattributed are
    bytes of the captured ones.
    """

    sent: float
    received: float
    internal: float
    unattributed: float


def sums(view: View) -> Sums:
    """Return the sums of a view."""
    return Sums(
        sent=sum(row.rate.sent_bytes - row.rate.local_sent_bytes for row in view.rows),
        received=sum(row.rate.received_bytes - row.rate.local_received_bytes for row in view.rows),
        internal=sum(row.rate.local_sent_bytes for row in view.rows),
        unattributed=sum(_captured_bytes(row.total) for row in view.rows if row.reason is not None),
    )


def _captured_bytes(amount: Amount) -> float:
    return amount.sent_bytes + amount.received_bytes - amount.local_received_bytes + amount.passed_bytes


def arrange_rows(rows: Sequence[Row], order: Order, wanted: str, look: Look) -> tuple[Row, ...]:
    """Return the rows that contain a text in the order that is asked for.

    The one that stands for what a view leaves out comes behind them, those without an owner come last.
    """
    found = _containing(rows, wanted, lambda row: row_search(row, look))
    named = [row for row in found if row.reason is None and not is_rest(row)]
    rest = [row for row in found if row.reason is None and is_rest(row)]
    others = [row for row in found if row.reason is not None]
    column = _column(ROW_COLUMNS, order.title)
    return (*_sorted(named, column, order, _row_tie), *rest, *_sorted(others, column, order, _row_tie))


def arrange_connections(
    connections: Sequence[Connection], order: Order, wanted: str, look: Look
) -> tuple[Connection, ...]:
    """Return the conversations that contain a text in the order that is asked for."""
    found = _containing(connections, wanted, lambda one: connection_search(one, look))
    return tuple(_sorted(found, _column(CONNECTION_COLUMNS, order.title), order, _connection_tie))


def _containing(items: Sequence[Item], wanted: str, text: Callable[[Item], str]) -> Sequence[Item]:
    words = wanted.lower().split()
    if not words:
        return items
    return [item for item in items if _has_all(text(item), words)]


def _has_all(text: str, words: Iterable[str]) -> bool:
    return all(word in text for word in words)


def _column(columns: Iterable[Column[Item]], title: str) -> Column[Item]:
    return next(column for column in columns if column.title == title)


def _sorted(
    items: Sequence[Item], column: Column[Item], order: Order, tie: Callable[[Item], tuple[float, object]]
) -> list[Item]:
    """Return the items in order; those alike stand as they did before, so that lines without traffic keep still."""
    settled = sorted(items, key=tie)
    return sorted(settled, key=column.rank, reverse=column.descends != order.reversed)


def _row_tie(row: Row) -> tuple[float, object]:
    return -both_ways(row.total), row.key


def _connection_tie(connection: Connection) -> tuple[float, object]:
    return -both_ways(connection.total), connection[:6]
