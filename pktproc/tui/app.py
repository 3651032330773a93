"""The live screen: what `pktproc top` shows, and what its keys do."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from typing import Any, ClassVar

from textual import on
from textual.actions import SkipAction
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.timer import Timer
from textual.widgets import Input, Label

from pktproc.bandwidth.views import Row
from pktproc.output.amounts import Units
from pktproc.tui import keys
from pktproc.tui.band import Band
from pktproc.tui.choices import Choices
from pktproc.tui.columns import Look
from pktproc.tui.connection_columns import CONNECTION_COLUMNS, connection_key
from pktproc.tui.details import details
from pktproc.tui.figures import following
from pktproc.tui.headline import headline
from pktproc.tui.help_screen import HelpScreen
from pktproc.tui.looker import Looker, Sight, Wish
from pktproc.tui.messages import Failed, Named, Saw
from pktproc.tui.remote_names import RemoteNames
from pktproc.tui.row_columns import ROW_COLUMNS
from pktproc.tui.source import Source
from pktproc.tui.table import Table

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# The first interval is over a little after a second; those who look every second should look then.
_FIRST_S = 0.25
# With its terminal gone, the screen may not come to its end: writing blocks. The alarm, which nothing handles, does it.
_LAST_RESORT_S = 3
_LETTERS = sorted({column.letter for column in (*ROW_COLUMNS, *CONNECTION_COLUMNS)} - {""})


class TopApp(App[Exception | None], inherit_bindings=False):
    """Show what a source tells; `run` returns what the source raised, None after a normal end.

    `TopApp` never captures, and asks the source in a thread of its own.
    """

    TITLE = "pktproc top"
    ENABLE_COMMAND_PALETTE = False
    AUTO_FOCUS = None
    CSS = """
    Screen { layout: vertical; }
    Table, VerticalScroll {
        scrollbar-size-vertical: 1;
        scrollbar-background: ansi_default; scrollbar-background-hover: ansi_default;
        scrollbar-background-active: ansi_default;
        scrollbar-color: ansi_bright_black; scrollbar-color-hover: ansi_white; scrollbar-color-active: ansi_white;
    }
    Horizontal { height: 1; }
    Label { width: auto; text-style: bold; }
    Input, Input:focus { border: none; height: 1; width: 1fr; padding: 0; background: ansi_default; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *keys.bindings(keys.EVERYWHERE),
        Binding("ctrl+c,ctrl+q", "leave", show=False, priority=True),
        # Before the focused widget gets it, so that what is typed right after it is no key of the screen.
        Binding("slash", "filter", show=False, priority=True),
        *(Binding(letter, f"sort_by('{letter}')", show=False) for letter in _LETTERS),
    ]

    def __init__(
        self,
        source: Source,
        *,
        group: str = "process",
        refresh_s: float = 1.0,
        units: Units = "iec",
        names: RemoteNames | None = None,
    ) -> None:
        super().__init__(ansi_color=True)
        self.animation_level = "none"
        self.choices = Choices(Look(units, names or RemoteNames()), group=group, refresh_s=refresh_s)
        self.sight: Sight | None = None
        self._place = source.place
        self._opened_row: Row | None = None
        self._looker = Looker(source, self.choices.look, self._saw, self._failed)
        self._timer: Timer | None = None
        self._headline, self._details, self._footer = Band(), Band(), Band()
        look = self.choices.look
        self._rows = Table(ROW_COLUMNS, look, lambda row: row.key, lambda row: row.reason is not None)
        self._connections = Table(CONNECTION_COLUMNS, look, connection_key)
        self._filter_box = Input(placeholder="words that lines have to contain", compact=True)
        self._filter_line = Horizontal()

    def compose(self) -> ComposeResult:
        """Lay out: what is read first comes first."""
        yield self._headline
        yield self._details
        yield self._rows
        yield self._connections
        with self._filter_line:
            yield Label("Filter ")
            yield self._filter_box
        yield self._footer

    def on_mount(self) -> None:
        """Begin to look."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._end, number)
        self._filter_box.cursor_blink = False
        self._turn_to_page(self.choices.opened)
        self.choices.look.names.found = self._named
        self._looker.start()
        self._ask()
        self.set_timer(_FIRST_S, self._set_timer)

    def on_unmount(self) -> None:
        """Let go of the source and of the signals."""
        self._looker.stop()
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    def _end(self, number: int) -> None:
        if number == signal.SIGHUP:
            signal.alarm(_LAST_RESORT_S)
        self.exit()

    def _saw(self, sight: Sight) -> None:
        self.post_message(Saw(sight))

    def _named(self) -> None:
        self.post_message(Named())

    def _failed(self, error: Exception) -> None:
        self.post_message(Failed(error))

    @property
    def _table(self) -> Table[Any]:
        return self._rows if self.choices.opened is None else self._connections

    def _ask(self, *, fresh: bool = True, reset: bool = False) -> None:
        chosen = self.choices
        wish = Wish(chosen.group, chosen.order, chosen.contains, chosen.opened, chosen.refresh_s)
        self._looker.ask(replace(wish, fresh=fresh, reset=reset))

    def _set_timer(self) -> None:
        self._tick()
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_interval(self.choices.refresh_s, self._tick)

    def _tick(self) -> None:
        if self.choices.paused:
            self._table.redraw()
        else:
            self._ask()

    @on(Saw)
    def _show_sight(self, message: Saw) -> None:
        wish = message.sight.wish
        if (wish.group, wish.opened) == (self.choices.group, self.choices.opened):
            self.sight = message.sight
            self._draw()

    @on(Named)
    def _show_names(self) -> None:
        self._table.redraw()

    @on(Failed)
    def _give_up(self, message: Failed) -> None:
        self.exit(message.error, return_code=1)

    def _draw(self) -> None:
        """Show the latest sight as it is to be shown now."""
        with self.batch_update():
            self._headline.show(headline(self._place, self.choices, self.sight, self.size.width))
            named = keys.IN_LIST if self.choices.opened is None else keys.IN_PAGE
            self._footer.show(keys.footer(named, self.size.width))
            if self.sight is not None and self.sight.wish.opened == self.choices.opened:
                self._draw_table(self.sight)

    def _draw_table(self, sight: Sight) -> None:
        if sight.wish.opened is None:
            self._rows.show(sight.rows, self.choices.row_columns, sight.wish.order)
            return
        self._opened_row = sight.row or self._opened_row
        if self._opened_row is not None:
            lines = details(self._opened_row, sight.ancestors, self.choices.look, self.size.width)
            self._details.show(lines)
        self._connections.show(sight.connections, self.choices.connection_columns, sight.wish.order)

    def on_resize(self) -> None:
        """Wrap what was made for another width."""
        self._draw()

    def _turn_to_page(self, opened: tuple[str, ...] | None) -> None:
        self.choices.opened = opened
        self._rows.display = opened is None
        self._connections.display = opened is not None
        self._details.display = opened is not None
        self._show_filter()
        self.screen.set_focus(self._table)

    def _show_filter(self) -> None:
        """Show the words that are filtered by, where there are any."""
        with self.prevent(Input.Changed):
            self._filter_box.value = self.choices.contains
        self._filter_line.display = bool(self.choices.contains)

    def _change(self) -> None:
        """Show what was changed at once, as far as it is known, and the rest as soon as it is."""
        self._draw()
        self._ask(fresh=not self.choices.paused)

    @on(Table.Opened)
    def _open(self, message: Table.Opened) -> None:
        if self.choices.opened is None:
            self._opened_row = message.item
            self._connections.show((), self.choices.connection_columns, self.choices.order)
            self._turn_to_page(message.item.key)
            self._change()

    @on(Table.TitleClicked)
    def _sort_by_title(self, message: Table.TitleClicked) -> None:
        self.choices.sort_by(message.title)
        self._change()

    def action_sort_by(self, letter: str) -> None:
        """Sort by the column with a letter, the other way round if it is sorted by already."""
        if self.choices.sort_by_letter(letter, self._table.titles):
            self._change()

    def action_sort(self, step: int) -> None:
        """Sort by a column further to the right."""
        self.choices.sort_beside(step, self._table.titles)
        self._change()

    def action_invert(self) -> None:
        """Turn the order round."""
        self.choices.sort_by(self.choices.order.title)
        self._change()

    def action_open(self) -> None:
        """Open what is under the cursor."""
        self._table.action_open()

    def action_close(self) -> None:
        """Clear the filter where there is one; leave the page where there is none."""
        if self.choices.contains or self.focused is self._filter_box:
            self.choices.contains = ""
            self._show_filter()
            self.screen.set_focus(self._table)
            self._ask(fresh=False)
        elif self.choices.opened is not None:
            self._turn_to_page(None)
            self._change()

    def action_filter(self) -> None:
        """Let the user type what lines have to contain."""
        if self.focused is self._filter_box or self.screen.is_modal:
            raise SkipAction
        self._filter_line.display = True
        self.screen.set_focus(self._filter_box)  # `focus` would do so later

    @on(Input.Changed)
    def _filter_changed(self, message: Input.Changed) -> None:
        self.choices.contains = message.value
        self._ask(fresh=False)

    @on(Input.Submitted)
    def _keep_filter(self) -> None:
        self._show_filter()
        self.screen.set_focus(self._table)

    def action_group(self) -> None:
        """Group by the next of what can be grouped by."""
        if self.choices.opened is None:
            self.choices.next_group()
            self._rows.action_first()
            self._ask()

    def action_pause(self) -> None:
        """Hold the figures, or go on."""
        self.choices.paused = not self.choices.paused
        self._change()

    def action_units(self) -> None:
        """Show amounts in the next units."""
        self.choices.look.units = following(self.choices.look.units)
        self._draw()

    def action_cumulative(self) -> None:
        """Show totals and means instead of rates, or the other way round."""
        self.choices.cumulative = not self.choices.cumulative
        self._change()

    def action_names(self) -> None:
        """Show the names of remote hosts, or their addresses."""
        self.choices.look.names.on = not self.choices.look.names.on
        self._change()

    def action_reset(self) -> None:
        """Count from now on."""
        self._ask(reset=True)

    def action_refresh_step(self, step: int) -> None:
        """Refresh less often, or more often where `step` is negative."""
        self.choices.refresh_step(step)
        self._set_timer()
        self._draw()

    def action_help(self) -> None:
        """Show the help."""
        self.push_screen(HelpScreen(self.sight.view.notes if self.sight is not None else ()))

    def action_leave(self) -> None:
        """End."""
        self.exit()
