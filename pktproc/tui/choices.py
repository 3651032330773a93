"""What the user has chosen to see, and how keys change it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pktproc.bandwidth.views import Connection, Row
from pktproc.tui.arrange import Order
from pktproc.tui.columns import Column, Look
from pktproc.tui.connection_columns import CONNECTION_COLUMNS, wanted_connection_columns
from pktproc.tui.row_columns import BUSIEST, GROUPS, ROW_COLUMNS, TOTAL, wanted_columns

REFRESH_STEPS_S = (0.25, 0.5, 1, 2, 5, 10, 30, 60)

_LIST, _PAGE = False, True
_RATES, _TOTALS = False, True


def _first_orders() -> dict[tuple[bool, bool], Order]:
    rates, totals = Order(BUSIEST.title), Order(TOTAL.title)
    return {(place, figures): totals if figures else rates for place in (_LIST, _PAGE) for figures in (_RATES, _TOTALS)}


@dataclass(slots=True)
class Choices:
    """Hold what is chosen; list and page, rates and totals are each sorted in their own way.

    `opened` is the key of the group whose page is shown, None for the list of all groups.
    """

    look: Look
    group: str = "process"
    refresh_s: float = 1.0
    paused: bool = False
    cumulative: bool = False
    opened: tuple[str, ...] | None = None
    _orders: dict[tuple[bool, bool], Order] = field(default_factory=_first_orders)
    _contained: dict[bool, str] = field(default_factory=lambda: {_LIST: "", _PAGE: ""})

    @property
    def order(self) -> Order:
        """Return what the table is sorted by."""
        return self._orders[self.opened is not None, self.cumulative]

    @order.setter
    def order(self, order: Order) -> None:
        self._orders[self.opened is not None, self.cumulative] = order

    @property
    def contains(self) -> str:
        """Return the words that lines have to contain."""
        return self._contained[self.opened is not None]

    @contains.setter
    def contains(self, words: str) -> None:
        self._contained[self.opened is not None] = words

    def sort_by(self, title: str) -> None:
        """Sort by a column, the other way round if it is sorted by already."""
        self.order = Order(title, self.order.title == title and not self.order.reversed)

    def sort_by_letter(self, letter: str, titles: Sequence[str]) -> bool:
        """Sort by the one of the shown columns that has a letter; return whether there is one."""
        columns: tuple[Column[Any], ...] = ROW_COLUMNS if self.opened is None else CONNECTION_COLUMNS
        found = [
            column.title for column in columns if column.letter == letter and column.title in (*titles, BUSIEST.title)
        ]
        if not found:
            return False
        self.sort_by(self.order.title if self.order.title in found else found[0])
        return True

    def sort_beside(self, step: int, titles: Sequence[str]) -> None:
        """Sort by the column that stands `step` columns to the right of the present one."""
        every = [*titles, *(title for title in (self.order.title,) if title not in titles)]
        self.order = Order(every[(every.index(self.order.title) + step) % len(every)])

    def next_group(self) -> None:
        """Group by the next of what can be grouped by."""
        groups = list(GROUPS)
        self.group = groups[(groups.index(self.group) + 1) % len(groups)]

    def refresh_step(self, step: int) -> None:
        """Refresh less often, or more often where `step` is negative."""
        nearest = min(range(len(REFRESH_STEPS_S)), key=lambda at: abs(REFRESH_STEPS_S[at] - self.refresh_s))
        self.refresh_s = REFRESH_STEPS_S[max(0, min(nearest + step, len(REFRESH_STEPS_S) - 1))]

    def row_columns(self, width: int) -> tuple[Column[Row], ...]:
        """Return the columns of the list, the most wanted first."""
        del width
        return wanted_columns(self.group, cumulative=self.cumulative)

    def connection_columns(self, width: int) -> tuple[Column[Connection], ...]:
        """Return the columns of a page for a width, the most wanted first."""
        return wanted_connection_columns(width, cumulative=self.cumulative)
