"""A table of which only the lines that are seen are made, and only those drawn that changed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, ClassVar, Generic

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from pktproc.tui.arrange import Order
from pktproc.tui.band import BOLD, DIM, PLAIN, REVERSE
from pktproc.tui.columns import GAP, Column, Item, Look, Placed, place
from pktproc.tui.figures import amount_width

_HEAD = 1
_WHEEL_LINES = 3


class Table(ScrollView, Generic[Item], can_focus=True):
    """Show items in lines, under a line with the titles of the columns, with a cursor.

    The cursor stays with its item wherever that goes, once it was moved; before, it stays in the first line.
    `identify` tells items apart, `dim` says which are of less interest.
    """

    DEFAULT_CSS = """
    Table { height: 1fr; overflow-x: hidden; overflow-y: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", show=False),
        Binding("down,j", "move(1)", show=False),
        Binding("pageup", "page(-1)", show=False),
        Binding("pagedown", "page(1)", show=False),
        Binding("home", "first", show=False),
        Binding("end", "last", show=False),
        Binding("enter", "open", show=False),
    ]

    class Opened(Message):
        """An item was chosen."""

        def __init__(self, item: Any) -> None:
            super().__init__()
            self.item = item

    class TitleClicked(Message):
        """A column is to be sorted by."""

        def __init__(self, title: str) -> None:
            super().__init__()
            self.title = title

    def __init__(
        self,
        columns: Sequence[Column[Item]],
        look: Look,
        identify: Callable[[Item], Hashable],
        dim: Callable[[Item], bool] = lambda _: False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._columns = columns
        self._look = look
        self._identify = identify
        self._dim = dim
        self._items: Sequence[Item] = ()
        self._wanted: Callable[[int], Sequence[Column[Item]]] = lambda _: columns
        self._order = Order("")
        self._placed: list[Placed[Item]] = []
        self._drawn: dict[int, Strip] = {}
        self._at = 0
        self._followed: Hashable | None = None

    def show(self, items: Sequence[Item], wanted: Callable[[int], Sequence[Column[Item]]], order: Order) -> None:
        """Show items; `wanted` gives the columns for a width, the most wanted first."""
        self._items, self._wanted, self._order = items, wanted, order
        self._at = min(self._place_of_followed(), max(len(items) - 1, 0))
        self.virtual_size = Size(self.size.width, len(items) + _HEAD)
        self._keep_in_sight()
        self.redraw()

    def redraw(self) -> None:
        """Make the lines that are seen anew, and draw those that have changed."""
        self._placed = place(self._columns, self._wanted(self.size.width), self._width, amount_width(self._look.units))
        before, self._drawn = self._drawn, {}
        for y in range(self.size.height):
            if self.render_line(y) != before.get(y):
                self.refresh(Region(0, y, self.size.width, 1))

    @property
    def cursor_item(self) -> Item | None:
        """Return the item under the cursor, None if there is none."""
        return self._items[self._at] if self._items else None

    @property
    def titles(self) -> list[str]:
        """Return the titles of the columns that are shown and can be sorted by, from left to right."""
        return [placed.column.title for placed in self._placed if placed.column.sortable]

    @property
    def lines(self) -> list[str]:
        """Return the text of the lines that are seen."""
        return [self.render_line(y).text.rstrip() for y in range(self.size.height)]

    @property
    def _width(self) -> int:
        return max(self.scrollable_content_region.width, 1)

    def _place_of_followed(self) -> int:
        if self._followed is None:
            return 0
        for at, item in enumerate(self._items):
            if self._identify(item) == self._followed:
                return at
        return self._at

    def render_line(self, y: int) -> Strip:
        """Return a line as it is seen; the first has the titles, wherever the rest was scrolled to."""
        strip = self._drawn.get(y)
        if strip is None:
            strip = self._drawn[y] = self._titles() if y < _HEAD else self._line(self._top + y - _HEAD)
        return strip

    @property
    def _top(self) -> int:
        return round(self.scroll_y)

    def _titles(self) -> Strip:
        segments = []
        for placed in self._placed:
            title = placed.column.title
            style = BOLD + REVERSE if title == self._order.title else BOLD
            blank = " " * (placed.width - len(title))
            parts = [Segment(title, style), Segment(blank, PLAIN)]
            segments += [*(parts if placed.to_the_left else reversed(parts)), Segment(GAP, PLAIN)]
        return Strip(segments).adjust_cell_length(self._width, PLAIN).simplify()

    def _line(self, at: int) -> Strip:
        if at >= len(self._items):
            return Strip.blank(self._width)
        item = self._items[at]
        cells = [placed.cell(placed.column.text(item, self._look, placed.width)) for placed in self._placed]
        style = DIM if self._dim(item) else PLAIN
        if at == self._at:
            style += REVERSE
        return Strip([Segment(GAP.join(cells), style)]).adjust_cell_length(self._width, style)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Forget the lines that have moved."""
        self._drawn = {}
        super().watch_scroll_y(old_value, new_value)

    def on_resize(self) -> None:
        """Place the columns anew."""
        self._drawn = {}
        self.virtual_size = Size(self.size.width, len(self._items) + _HEAD)
        self._keep_in_sight()
        self.redraw()

    def _keep_in_sight(self) -> None:
        room = max(self.size.height - _HEAD, 1)
        top = min(max(self._top, self._at - room + 1), self._at)
        top = max(min(top, len(self._items) - room), 0)
        if top != self._top:
            self.scroll_to(y=top, animate=False, force=True)

    def _go(self, at: int) -> None:
        self._at = max(min(at, len(self._items) - 1), 0)
        item = self.cursor_item
        self._followed = None if item is None or at <= 0 else self._identify(item)
        self._keep_in_sight()
        self.redraw()

    def action_move(self, lines: int) -> None:
        """Move the cursor."""
        self._go(self._at + lines)

    def action_page(self, pages: int) -> None:
        """Move the cursor by as many lines as there are."""
        self._go(self._at + pages * max(self.size.height - _HEAD - 1, 1))

    def action_first(self) -> None:
        """Move the cursor to the first line, where it stays."""
        self._go(0)

    def action_last(self) -> None:
        """Move the cursor to the last line."""
        self._go(len(self._items) - 1)

    def action_open(self) -> None:
        """Open what is under the cursor."""
        if self.cursor_item is not None:
            self.post_message(self.Opened(self.cursor_item))

    def on_click(self, event: events.Click) -> None:
        """Sort by the column whose title is clicked; move the cursor to a line, and open the one where it is."""
        if event.y < _HEAD:
            for placed in self._placed:
                if placed.start <= event.x < placed.start + placed.width and placed.column.sortable:
                    self.post_message(self.TitleClicked(placed.column.title))
            return
        at = self._top + event.y - _HEAD
        if at >= len(self._items):
            return
        if at == self._at:
            self.action_open()
        else:
            self._go(at)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Move the cursor with the wheel."""
        event.stop()
        event.prevent_default()
        self.action_move(_WHEEL_LINES)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Move the cursor with the wheel."""
        event.stop()
        event.prevent_default()
        self.action_move(-_WHEEL_LINES)
