"""The help: every key, what the figures mean, and all that the capture has to say."""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen

from pktproc.output.escape import escape
from pktproc.tui.band import BOLD, PLAIN, WARNING, Band, Line
from pktproc.tui.connection_columns import CONNECTION_COLUMNS
from pktproc.tui.headline import wrapped
from pktproc.tui.keys import BACK, EVERYWHERE, OPEN, Key
from pktproc.tui.row_columns import ROW_COLUMNS

_ABOUT = """\
Sent/s and Recv/s are over the time that stands at the top ("over 1 s"), which follows the refresh rate; Avg is over \
all the time, Peak over the busiest second. Conns counts connections. History has the latest seconds (or what -d made \
shorter or longer), the newest at the right; each line has a scale of its own. Internal is what stayed on this host \
(loopback, or between its namespaces); it counts at both of its ends.

Dim lines with a question mark are traffic that nobody is known for, and why: kernel (the kernel's own), no-socket \
(nothing has such an address and port), closed (before it could be asked), forwarded (neither end is here), \
permission, ambiguous (several fit), other-namespace, not-covered, not-ip (ARP and the like).
"""


class HelpScreen(ModalScreen[None]):
    """Show the help; any of the keys that close things closes it."""

    DEFAULT_CSS = "HelpScreen { background: ansi_default; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,h,f1,enter", "dismiss", show=False, priority=True)
    ]

    def __init__(self, notes: tuple[str, ...]) -> None:
        super().__init__()
        self._notes = notes

    def compose(self) -> ComposeResult:
        """Lay out."""
        with VerticalScroll():
            yield Band()

    def on_mount(self) -> None:
        """Show the text, and let the arrow keys scroll it."""
        self.query_one(VerticalScroll).focus()
        self.on_resize()

    def on_resize(self) -> None:
        """Wrap the text anew."""
        self.query_one(Band).show(_lines(self._notes, max(self.size.width - 1, 20)))


def _lines(notes: tuple[str, ...], width: int) -> list[Line]:
    lines: list[Line] = [[Segment("pktproc top: keys", BOLD), Segment(" (Esc closes this page)", PLAIN)], []]
    keys = list(EVERYWHERE)
    keys.insert(keys.index(BACK), OPEN)
    for key in keys:
        lines += _key(key, width)
    for letter, titles in _letters().items():
        lines += _key(Key("", "", letter, "", f"sort by {' or '.join(titles)}"), width)
    for text in _ABOUT.strip().split("\n\n"):
        lines += [[], *([Segment(line, PLAIN)] for line in wrapped(text, width))]
    for note in notes:
        lines += [[], *([Segment(line, WARNING)] for line in wrapped(escape(note), width))]
    return lines


def _key(key: Key, width: int) -> list[Line]:
    first, *rest = wrapped(key.about, width - 9)
    return [
        [Segment(f"{key.cap:>7}  ", BOLD), Segment(first, PLAIN)],
        *([Segment(" " * 9 + line, PLAIN)] for line in rest),
    ]


def _letters() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    pairs = [(one.letter, one.title) for one in ROW_COLUMNS] + [(one.letter, one.title) for one in CONNECTION_COLUMNS]
    for letter, title in dict.fromkeys(pairs):
        if letter:
            found.setdefault(letter, []).append(title)
    return found
