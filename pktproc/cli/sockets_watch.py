"""`pktproc sockets --watch`: the table again and again; what opened, closed or changed stands out."""

from __future__ import annotations

import shutil
import sys
import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pktproc.cli.signals import StopFlag, ended_by_signals
from pktproc.cli.sockets_options import SocketsOptions
from pktproc.cli.sockets_session import cgroup_names, ends_of, look_of
from pktproc.inventory.changes import Changes, Course
from pktproc.inventory.rows import Entry, Key, Listing
from pktproc.listing import Looker
from pktproc.output.socket_table import table
from pktproc.output.stream import write_all

_OPENED, _CLOSED, _ALTERED = "32", "31", "33"


def run(looker: Looker, options: SocketsOptions, interval_s: float) -> None:
    """Show a table every `interval_s` seconds until a signal comes; one below the other where there is no terminal."""
    stopped = StopFlag()
    course = Course()
    with ended_by_signals(stopped.set):
        first = looker.look()
        course.take(first.entries)
        if not sys.stdout.isatty():
            _write(first, options, {})
            while not stopped.wait(interval_s):
                listing, marks = _next(looker, course)
                _write(listing, options, marks)
            return
        console = Console()
        with Live(console=console, screen=True, auto_refresh=False) as live:
            live.update(_screen(first, options, {}), refresh=True)
            while not stopped.wait(interval_s):
                listing, marks = _next(looker, course)
                live.update(_screen(listing, options, marks), refresh=True)


def _next(looker: Looker, course: Course) -> tuple[Listing, dict[Key, str]]:
    """Return the sockets of now with those that just closed, and how they are marked."""
    listing = looker.look()
    changes = course.take(listing.entries)
    entries: list[Entry] = [*listing.entries, *_closed(changes, listing)]
    return listing._replace(entries=entries), _marks(changes)


def _closed(changes: Changes, listing: Listing) -> list[Entry]:
    """Return the sockets that closed, those apart that are still listed in TIME_WAIT."""
    present = {entry.row.key for entry in listing.entries}
    return [entry for entry in changes.closed if entry.row.key not in present]


def _marks(changes: Changes) -> dict[Key, str]:
    styles = ((_OPENED, changes.opened), (_CLOSED, changes.closed), (_ALTERED, changes.altered))
    return {entry.row.key: style for style, entries in styles for entry in entries}


def _write(listing: Listing, options: SocketsOptions, marks: dict[Key, str]) -> None:
    look = look_of(listing, options, cgroup_names(options))._replace(marks=marks)
    text = table(listing, ends_of(listing, options), look)
    write_all(sys.stdout.fileno(), f"{time.strftime('%H:%M:%S')}\n{text}\n")


def _screen(listing: Listing, options: SocketsOptions, marks: dict[Key, str]) -> Text:
    """Return what fits on the screen: the first lines, and how many more there are."""
    width, height = shutil.get_terminal_size()
    look = look_of(listing, options, cgroup_names(options))._replace(marks=marks, width=width)
    lines = table(listing, ends_of(listing, options), look).splitlines()
    shown = lines[: height - 2]
    rest = len(lines) - len(shown)
    about = f"{time.strftime('%H:%M:%S')}  {len(listing.entries)} sockets{f', {rest} lines more' if rest else ''}"
    return Text.from_ansi("\n".join([about, *shown]), no_wrap=True, overflow="crop")
