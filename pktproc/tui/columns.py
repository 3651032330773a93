"""What a column is, and which of them a line has room for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.cells import cell_len, set_cell_size

from pktproc.output.amounts import Units
from pktproc.output.escape import escape
from pktproc.tui.remote_names import RemoteNames

Item = TypeVar("Item")
Rank = tuple[float, str]

GAP = "  "
_ELLIPSIS = "…"
# No terminal is wider; the rest of a name or a command line is not even looked at.
_MOST_CHARACTERS = 1024


@dataclass(slots=True)
class Look:
    """How figures and addresses are shown at present; the screen's keys change it."""

    units: Units
    names: RemoteNames


@dataclass(frozen=True, slots=True)
class Column(Generic[Item]):
    """A column: `text` is what it shows of an item in at most `width` cells, `rank` what it sorts by.

    `letter` is the key that sorts by it. `least` is the width it needs, 0 for that of an amount of bytes; where others
    leave room, it is made wider, up to `most`. `descends` says that the largest come first.
    """

    title: str
    letter: str
    text: Callable[[Item, Look, int], str]
    rank: Callable[[Item], Rank]
    least: int = 0
    most: int = 0
    descends: bool = True
    sortable: bool = True


@dataclass(frozen=True, slots=True)
class Placed(Generic[Item]):
    """A column with the place that it has in a line."""

    column: Column[Item]
    start: int
    width: int

    @property
    def to_the_left(self) -> bool:
        """Say whether its text begins where it begins; figures end where it ends."""
        return not self.column.descends

    def cell(self, text: str) -> str:
        """Return a text in the width of the column, cut where it is too wide."""
        wide = cell_len(text)
        if wide > self.width:
            return set_cell_size(set_cell_size(text, self.width - 1).rstrip() + _ELLIPSIS, self.width)
        blank = " " * (self.width - wide)
        return text + blank if self.to_the_left else blank + text


def place(
    columns: Sequence[Column[Item]], wanted: Sequence[Column[Item]], width: int, amount_width: int
) -> list[Placed[Item]]:
    """Return the columns that fit into a width, in the order of `columns`; `wanted` has the most wanted ones first."""
    sizes = _sizes(wanted, width, amount_width)
    placed, start = [], 0
    for column in columns:
        if column.title in sizes:
            size = max(min(sizes[column.title], width - start), 1)
            placed.append(Placed(column, start, size))
            start += size + len(GAP)
    return placed


def _sizes(wanted: Sequence[Column[Item]], width: int, amount_width: int) -> dict[str, int]:
    sizes: dict[str, int] = {}
    room = width + len(GAP)
    for column in wanted:
        need = column.least or max(amount_width, len(column.title))
        if sizes and need + len(GAP) > room:
            break
        sizes[column.title] = need
        room -= need + len(GAP)
    for column in wanted:
        if column.title in sizes and room > 0 and column.most:
            more = min(room, max(column.most - sizes[column.title], 0))
            sizes[column.title] += more
            room -= more
    if room > 0:
        sizes[wanted[0].title] += room
    return sizes


def plain(text: str) -> str:
    """Return text of a program as it may stand on the screen."""
    return escape(text[:_MOST_CHARACTERS])


def shorten_middle(text: str, tail: str, width: int) -> str:
    """Return a text with its tail whole, the text cut if both do not fit."""
    room = width - cell_len(tail)
    if cell_len(text) <= room or room < 2:
        return text + tail
    return set_cell_size(text, room - 1).rstrip() + _ELLIPSIS + tail
