"""`pktproc sockets --watch`: the table again and again; what opened, closed or changed stands out."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterable

from rich.console import Console
from rich.live import Live
from rich.text import Text

from pktproc.cli.garbage import RareLooks
from pktproc.cli.signals import StopFlag, ended_by_signals
from pktproc.cli.sockets_looks import cgroup_names, ends_of, look_of
from pktproc.cli.sockets_options import SocketsOptions
from pktproc.cli.talk import say
from pktproc.inventory.changes import Changes, Course
from pktproc.inventory.rows import Entry, Key, Listing
from pktproc.listing import Looker
from pktproc.output.counting import counted
from pktproc.output.socket_table import ALTERED, CLOSED, OPENED, Mark, table
from pktproc.output.stream import write_all
from pktproc.witnessing import SocketWitness, holders_of

# What a witness tells has to be fetched several times a second; so soon, too, a terminal's new size is noticed.
_PATIENCE_S = 0.1


def run(looker: Looker, witness: SocketWitness | None, options: SocketsOptions, interval_s: float) -> None:
    """Show a table every `interval_s` seconds until a signal comes; one below the other where there is no terminal."""
    watch = _Watch(looker, witness, options)
    with ended_by_signals(watch.stopped.set):
        if not sys.stdout.isatty():
            watch.write(interval_s)
            return
        with Live(console=Console(), screen=True, auto_refresh=False) as live:
            watch.show(live, interval_s)


class _Watch:
    """Look again and again, and keep what the looks have shown; `stopped` ends it."""

    def __init__(self, looker: Looker, witness: SocketWitness | None, options: SocketsOptions) -> None:
        self.stopped = StopFlag()
        self._garbage = RareLooks()
        self._looker = looker
        self._witness = witness
        self._options = options
        self._course = Course()
        self._listing = looker.look()
        self._course.take(self._listing.entries)
        self._marks: dict[Key, Mark] = {}
        self._lost = 0

    def write(self, interval_s: float) -> None:
        """Write one table below the other."""
        for note in self._listing.notes:
            say(note)
        while not self.stopped.is_set():
            write_all(sys.stdout.fileno(), f"{time.strftime('%H:%M:%S')}\n{self._table(self._listing, None)}\n")
            self._wait(interval_s)
            self._look()

    def show(self, live: Live, interval_s: float) -> None:
        """Show the tables in one place."""
        while not self.stopped.is_set():
            began_s = time.monotonic()
            while not self.stopped.is_set() and (left_s := began_s + interval_s - time.monotonic()) > 0:
                size = shutil.get_terminal_size()
                live.update(self._screen(*size), refresh=True)
                while left_s > 0 and shutil.get_terminal_size() == size and not self.stopped.is_set():
                    self._wait(min(left_s, _PATIENCE_S))
                    left_s = began_s + interval_s - time.monotonic()
            self._look()

    def _wait(self, timeout_s: float) -> None:
        """Wait for so long, or until it is to stop; take in meanwhile what is told."""
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            if self.stopped.wait(min(left_s, _PATIENCE_S) if self._witness else left_s):
                return
            self._take_in()

    def _take_in(self) -> None:
        """Remember who uses which socket; who held one that is in TIME_WAIT at the next look is known by that."""
        if self._witness is None:
            return
        sights, lost = self._witness.told()
        self._lost += lost
        for sight in sights:
            if self._looker.covers(sight.row.netns):
                self._looker.remembered.add(sight.row.key, holders_of(sight.process))

    def _look(self) -> None:
        """Look at the sockets of now; show those that just closed once more."""
        self._take_in()
        self._garbage.look_if_due()
        listing = self._looker.look()
        changes = self._course.take(listing.entries)
        notes = (f"{self._lost} uses of sockets were not told: too many at once",) if self._lost else ()
        entries = [*listing.entries, *_closed(changes, listing)]
        self._listing = listing._replace(entries=entries, notes=listing.notes + notes)
        self._marks = _marks(changes)

    def _table(self, listing: Listing, width: int | None) -> str:
        options = self._options
        look = look_of(listing, options, cgroup_names(options))._replace(marks=self._marks, width=width)
        return table(listing, ends_of(listing, options), look)

    def _screen(self, width: int, height: int) -> Text:
        """Return what fits on the screen: the first lines, changed ones before others, and how many more there are."""
        room = height - 2
        listing = self._listing
        lines = self._table(listing, width).splitlines()
        if len(lines) > room:
            changed_first = listing._replace(entries=self._changed_first(listing.entries))
            lines = self._table(changed_first, width).splitlines()
        rest = len(lines) - room
        parts = [time.strftime("%H:%M:%S"), counted(len(listing.entries), "socket")]
        parts += [counted(rest, "line more")] if rest > 0 else []
        parts += listing.notes
        about = Text("  ".join(parts)[:width])
        return Text("\n", no_wrap=True, overflow="crop").join([about, *map(Text.from_ansi, lines[:room])])

    def _changed_first(self, entries: Iterable[Entry]) -> list[Entry]:
        return sorted(entries, key=lambda entry: entry.row.key not in self._marks)


def _closed(changes: Changes, listing: Listing) -> list[Entry]:
    """Return the sockets that closed, those apart that are still listed in TIME_WAIT."""
    present = {entry.row.key for entry in listing.entries}
    return [entry for entry in changes.closed if entry.row.key not in present]


def _marks(changes: Changes) -> dict[Key, Mark]:
    marks = ((OPENED, changes.opened), (CLOSED, changes.closed), (ALTERED, changes.altered))
    return {entry.row.key: mark for mark, entries in marks for entry in entries}
