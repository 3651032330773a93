"""Many processes and connections: keys are answered at once, and only what is seen is made."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace

import pytest
from textual import events
from textual.geometry import Region

from pktproc.bandwidth.views import Connection, Row, View
from pktproc.model import V4_MAPPED_PREFIX
from pktproc.tui.arrange import Order, arrange_connections
from pktproc.tui.columns import Look
from pktproc.tui.row_columns import NAME, row_name
from pktproc.tui.table import Table
from tui.frozen import NOW_NS, FrozenSource, amount, process, process_row
from tui.screen import running, top, written_names

PROCESSES = 2_000
CONNECTIONS = 100_000
ANSWER_S = 0.2


def many_rows(shift: int = 0) -> tuple[Row, ...]:
    return tuple(
        process_row(process(1000 + at, f"program{at}"), amount(at + shift, 2 * at), amount(99 * at, 98 * at), at % 50)
        for at in range(PROCESSES)
    )


def many_connections() -> tuple[Connection, ...]:
    some, more = amount(1, 2), amount(3, 4)
    return tuple(
        Connection(
            1,
            6,
            V4_MAPPED_PREFIX + bytes((10, 77, 0, 1)),
            1024 + at % 60_000,
            V4_MAPPED_PREFIX + bytes((10, 78, at >> 8 & 255, at & 255)),
            at % 65_536,
            "ESTABLISHED",
            more._replace(sent_bytes=at),
            some,
            NOW_NS - at,
            NOW_NS,
        )
        for at in range(CONNECTIONS)
    )


@dataclass
class LargeSource(FrozenSource):
    """Rates that change with every look."""

    looks: list[tuple[Row, ...]] = field(default_factory=lambda: [many_rows(shift) for shift in range(3)])

    def view(self, by: tuple[str, ...], rate_s: float) -> View:
        self.rows = self.looks[len(self.asked) % len(self.looks)]
        return super().view(by, rate_s)


@pytest.mark.parametrize("opened", [False, True], ids=["list", "page"])
def test_a_key_is_answered_within_200_ms(opened: bool) -> None:
    source = LargeSource(shown=many_connections())
    answers: dict[str, float] = {}

    async def run() -> None:
        async with running(top(source, refresh_s=1), (120, 40)) as screen:
            if opened:
                await screen.press("enter")
                await screen.until(lambda: len(screen.lines) > 10)
            for key in ("u", "down", "pagedown", "end", "home", "c") * 3:
                before = screen.table.lines, screen.table.cursor_item
                begin = time.perf_counter()
                screen.app.post_message(events.Key(key, key if len(key) == 1 else None))
                while (screen.table.lines, screen.table.cursor_item) == before:
                    await asyncio.sleep(0.001)
                    assert time.perf_counter() - begin < 10
                answers[key] = min(answers.get(key, 10), time.perf_counter() - begin)

    asyncio.run(run())
    assert max(answers.values()) < ANSWER_S, answers


def test_only_lines_that_are_seen_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Row] = []

    def text(row: Row, look: Look, width: int) -> str:
        made.append(row)
        return row_name(row, look)[:width]

    column = replace(NAME, text=text)
    monkeypatch.setattr("pktproc.tui.choices.wanted_columns", lambda *_, **__: (column,))

    async def run() -> None:
        app = top(LargeSource())
        app._rows._columns = (column,)  # noqa: SLF001
        async with running(app, (80, 24)) as screen:
            await screen.until(lambda: len(screen.lines) > 10)
            await screen.pilot.pause()
            made.clear()
            await screen.press("r")
            await screen.until(lambda: made)
            await screen.pilot.pause()
            assert len(made) <= 4 * 24

    asyncio.run(run())


def test_a_hundred_thousand_connections_are_sorted_in_a_fraction_of_a_second() -> None:
    connections = many_connections()
    look = Look("iec", written_names())
    begin = time.perf_counter()
    found = arrange_connections(connections, Order("Sent"), "", look)
    assert time.perf_counter() - begin < 2
    assert found[0].total.sent_bytes == CONNECTIONS - 1


def test_lines_that_did_not_change_are_not_drawn_again() -> None:
    source = FrozenSource()
    drawn: list[object] = []

    async def run() -> None:
        async with running(top(source)) as screen:
            await screen.until(lambda: len(screen.lines) == 6 and len(source.asked) > 1)
            await screen.pilot.pause()
            refresh = screen.table.refresh

            def note(*regions: Region, **options: bool) -> Table[object]:
                drawn.extend(regions)
                return refresh(*regions, **options)

            screen.table.refresh = note  # type: ignore[method-assign]
            looks = len(source.asked)
            await screen.press("r")
            await screen.until(lambda: len(source.asked) > looks)
            await screen.pilot.pause()
            assert drawn == []
            await screen.press("down")
            assert len(drawn) == 2

    asyncio.run(run())
