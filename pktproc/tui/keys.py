"""The keys, stated once: for bindings, for the line at the bottom, and for the help."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from rich.segment import Segment
from rich.style import Style
from textual.binding import Binding

from pktproc.tui.band import BOLD, PLAIN


class Key(NamedTuple):
    """A key: as Textual names it, its action, how it is called on the screen, and what help says of it."""

    keys: str
    action: str
    cap: str
    label: str
    about: str


HELP = Key("question_mark,h,f1", "help", "?", "Help", "this page")
QUIT = Key("q,ctrl+c", "leave", "q", "Quit", "end (Ctrl-C as well)")
OPEN = Key("enter", "open", "Enter", "Open", "connections and details of the line; a click on it as well")
BACK = Key("escape", "close", "Esc", "Back", "back to the list")
FILTER = Key("slash", "filter", "/", "Filter", "show only lines with these words, as you type; Esc clears, Enter keeps")
GROUP = Key("g", "group", "g", "Group", "group by process, program, user, container, remote")
SORT_LEFT = Key("less_than_sign,comma", "sort(-1)", "<", "", "sort by the column to the left")
SORT_RIGHT = Key("greater_than_sign,full_stop", "sort(1)", ">", "Sort", "sort by the column to the right")
INVERT = Key("i", "invert", "i", "Invert", "turn the order round")
PAUSE = Key("p,space", "pause", "p", "Pause", "hold the figures, or go on (the space bar as well)")
UNITS = Key("u", "units", "u", "Units", "KiB, MiB (1024), kB, MB (1000), or kbit, Mbit")
CUMULATIVE = Key("c", "cumulative", "c", "Totals", "totals and means instead of rates")
RESET = Key("r", "reset", "r", "Reset", "count from now on")
SLOWER = Key("plus,equals_sign", "refresh_step(1)", "+", "", "refresh less often")
FASTER = Key("minus", "refresh_step(-1)", "-", "Refresh", "refresh more often")
NAMES = Key("n", "names", "n", "Names", "names of remote hosts, or their addresses")
SUSPEND = Key("ctrl+z", "suspend_process", "Ctrl-Z", "", "to the shell; fg comes back")

EVERYWHERE = (
    HELP, QUIT, BACK, FILTER, GROUP, SORT_LEFT, SORT_RIGHT, INVERT, PAUSE, UNITS, CUMULATIVE, RESET, SLOWER, FASTER,
    NAMES, SUSPEND,
)  # fmt: skip
IN_LIST = (
    HELP, QUIT, OPEN, FILTER, GROUP, SORT_LEFT, SORT_RIGHT, INVERT, PAUSE, UNITS, CUMULATIVE, RESET, SLOWER, FASTER,
    NAMES,
)  # fmt: skip
IN_PAGE = tuple(BACK if key is OPEN else key for key in IN_LIST if key is not GROUP)

_GAP = "  "


def bindings(keys: Iterable[Key]) -> list[Binding]:
    """Return keys as Textual binds them."""
    return [Binding(key.keys, key.action, key.label or key.about, show=False) for key in keys]


def footer(keys: Iterable[Key], width: int) -> list[list[Segment]]:
    """Return the lines that name keys, as many as it takes; a click on a name does what its key does."""
    lines: list[list[Segment]] = [[]]
    left = width
    cap: list[Segment] = []
    for key in keys:
        click = Style(meta={"@click": f"app.{key.action}"})
        cap += [Segment(f"{key.cap} ", BOLD + click)]
        if not key.label:
            continue
        item = [*cap, Segment(key.label, PLAIN + click)]
        cap = []
        size = sum(len(segment.text) for segment in item)
        if size > left and lines[-1]:
            lines.append([])
            left = width
        lines[-1] += [*item, Segment(_GAP, PLAIN)]
        left -= size + len(_GAP)
    return lines
