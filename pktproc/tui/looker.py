"""The thread that asks the source and makes its answers ready, so that keys never wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Condition, Thread

from pktproc.bandwidth.views import NO_CONNECTIONS, Connection, Connections, Row, View
from pktproc.model import Process
from pktproc.tui.arrange import Order, Sums, arrange_connections, arrange_rows, sums
from pktproc.tui.columns import Look
from pktproc.tui.row_columns import GROUPS
from pktproc.tui.source import Source


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be shown: `opened` is the key of the group whose conversations are wanted, None for all groups.

    `rate_s` is the time that rates are to be of. `fresh` asks for figures of now, without it those of the last time are
    arranged anew. `reset` begins anew first.
    """

    group: str
    order: Order
    contains: str
    opened: tuple[str, ...] | None = None
    rate_s: float = 1.0
    fresh: bool = True
    reset: bool = False


@dataclass(frozen=True, slots=True)
class Sight:
    """What a wish led to; `row` is the opened group, None if it has no traffic any more.

    `connections` are those of `found` that contain what is wanted.
    """

    wish: Wish
    view: View
    sums: Sums
    rows: tuple[Row, ...] = ()
    row: Row | None = None
    connections: tuple[Connection, ...] = ()
    found: Connections = NO_CONNECTIONS
    ancestors: tuple[Process, ...] = ()


class Looker:
    """Grant wishes one after the other, of several that came meanwhile the last.

    `show` and `fail` are called in the thread. It is a daemon: a source that hangs never keeps the program from ending.
    """

    def __init__(
        self, source: Source, look: Look, show: Callable[[Sight], None], fail: Callable[[Exception], None]
    ) -> None:
        self._source = source
        self._look = look
        self._show = show
        self._fail = fail
        self._wish: Wish | None = None
        self._ended = False
        self._changed = Condition()
        self._view: View | None = None
        self._sums = Sums(0, 0, 0, 0)
        self._opened: tuple[str, tuple[str, ...]] | None = None
        self._row: Row | None = None
        self._connections = NO_CONNECTIONS
        self._ancestors: tuple[Process, ...] = ()
        self._thread = Thread(target=self._run, name="looker", daemon=True)

    def start(self) -> None:
        """Begin to grant wishes."""
        self._thread.start()

    def stop(self) -> None:
        """End after the wish that is being granted, without waiting for it."""
        with self._changed:
            self._ended = True
            self._changed.notify()

    def ask(self, wish: Wish) -> None:
        """Have a wish granted, instead of one that still waits."""
        with self._changed:
            if self._wish is not None:
                wish = replace(wish, fresh=wish.fresh or self._wish.fresh, reset=wish.reset or self._wish.reset)
            self._wish = wish
            self._changed.notify()

    def _run(self) -> None:
        try:
            while (wish := self._next()) is not None:
                self._show(self.grant(wish))
        except Exception as error:  # noqa: BLE001 - whatever it is ends the screen, which raises it
            self._fail(error)

    def _next(self) -> Wish | None:
        with self._changed:
            self._changed.wait_for(lambda: self._wish is not None or self._ended)
            wish, self._wish = self._wish, None
            return None if self._ended else wish

    def grant(self, wish: Wish) -> Sight:
        """Return what a wish leads to."""
        if wish.reset:
            self._source.reset()
        by = GROUPS[wish.group]
        view = self._view
        if view is None or view.by != by or wish.fresh or wish.reset:
            view = self._view = self._source.view(by, wish.rate_s)
            self._sums = sums(view)
            self._opened = None
        if wish.opened is None:
            rows = arrange_rows(view.rows, wish.order, wish.contains, self._look)
            return Sight(wish, view, self._sums, rows)
        if self._opened != (wish.group, wish.opened):
            self._open(wish, view, wish.opened)
        return Sight(
            wish,
            view,
            self._sums,
            row=self._row,
            connections=arrange_connections(self._connections.shown, wish.order, wish.contains, self._look),
            found=self._connections,
            ancestors=self._ancestors,
        )

    def _open(self, wish: Wish, view: View, key: tuple[str, ...]) -> None:
        self._row = next((row for row in view.rows if row.key == key), None)
        self._connections = self._source.connections(view.by, key, wish.rate_s)
        process = self._row.process if self._row is not None else None
        self._ancestors = self._source.ancestors(process) if process is not None else ()
        self._opened = wish.group, key
