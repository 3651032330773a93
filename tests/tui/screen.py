"""The screen under test: keys are pressed by Textual's pilot, what is shown is read as text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from textual.pilot import Pilot
from textual.widget import Widget

from pktproc.tui.app import TopApp
from pktproc.tui.band import Band
from pktproc.tui.remote_names import RemoteNames
from pktproc.tui.table import Table
from tui.frozen import FrozenSource

TIMEOUT_S = 10.0
_LOOK_S = 0.01
NAMES = {"93.184.216.34": "example.org", "10.77.0.53": "dns.lan", "192.0.2.111": "mirror.example.net"}


def written_names() -> RemoteNames:
    """Names of remote hosts without a resolver."""
    return RemoteNames(NAMES.get)


def top(source: FrozenSource | None = None, *, names: RemoteNames | None = None, refresh_s: float = 60) -> TopApp:
    """The screen on a source; it looks again by itself only where that is tested."""
    return TopApp(source or FrozenSource(), names=names or written_names(), refresh_s=refresh_s)


@dataclass
class Screen:
    """A running screen."""

    app: TopApp
    pilot: Pilot[Exception | None]

    @property
    def head(self) -> str:
        """What stands above the table, details of a page included."""
        return "\n".join(band.text for band in list(self.app.screen_stack[0].query(Band))[:2] if band.display)

    @property
    def footer(self) -> str:
        return self.app.screen_stack[0].query(Band).last().text

    @property
    def table(self) -> Table[object]:
        return next(table for table in self.app.screen_stack[0].query(Table) if table.display)

    @property
    def titles(self) -> str:
        return self.table.lines[0]

    @property
    def lines(self) -> list[str]:
        """The lines of the table that are not blank, without the titles."""
        return [line for line in self.table.lines[1:] if line]

    @property
    def names(self) -> list[str]:
        """The first words of these lines."""
        return [line.split()[0] for line in self.lines]

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def click(self, target: type[Widget] | Widget, offset: tuple[int, int]) -> None:
        """Click on a place in a widget, once everything stands where it belongs."""
        await self.until(lambda: self.table.region.y == self.head.count("\n") + 1)
        await self.pilot.pause()
        await self.pilot.click(target, offset=offset)

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        """Wait for a condition; AssertionError with the screen's text if it does not come true."""
        waited_s = 0.0
        while not condition():
            assert waited_s < TIMEOUT_S, f"{what}\n{self.head}\n" + "\n".join(self.table.lines) + f"\n{self.footer}"
            await self.pilot.pause(_LOOK_S)
            waited_s += _LOOK_S


@asynccontextmanager
async def running(app: TopApp, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Screen]:
    """Run a screen without a terminal until it has shown something."""
    async with app.run_test(size=size) as pilot:
        screen = Screen(app, pilot)
        await screen.until(lambda: app.sight is not None)
        yield screen
