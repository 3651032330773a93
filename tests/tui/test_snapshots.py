"""The screen as pictures. `pytest --snapshot-update` draws them anew; look at them before they are committed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from textual.pilot import Pilot

from pktproc.tui.app import TopApp
from tui.frozen import FrozenSource
from tui.screen import Screen, top

Compare = Callable[..., bool]
SIZES = {"80x24": (80, 24), "160x40": (160, 40)}
NOTE = "5 of 207 processes may not be inspected, packets of theirs show ?permission: run as root"


def shows(*keys: str, text: str) -> Callable[[Pilot[Any]], Any]:
    """Press keys and wait until a text is shown and everything stands where it belongs."""

    async def prepare(pilot: Pilot[Any]) -> None:
        app = pilot.app
        assert isinstance(app, TopApp)
        screen = Screen(app, pilot)
        await screen.until(lambda: app.sight is not None)
        await screen.press(*keys)
        await screen.until(lambda: text in "\n".join((screen.head, *screen.table.lines, screen.footer)), text)
        await screen.until(lambda: app.screen.query("Band").first().region.height > 0)
        await pilot.pause()

    return prepare


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    ("keys", "text"),
    [
        pytest.param((), "?not-ip", id="processes"),
        pytest.param(("down",), "?not-ip", id="cursor"),
        pytest.param(("c",), "Avg recv", id="totals"),
        pytest.param(("g", "g", "g", "g"), "mirror.example.net", id="remotes"),
        pytest.param(("enter",), "dns.lan", id="page"),
        pytest.param(("question_mark",), "curl", id="help"),
        pytest.param(("slash", *"fire"), "1 of 6 lines", id="filter"),
        pytest.param(("p", "u"), "PAUSED", id="paused"),
    ],
)
def test_screens(snap_compare: Compare, keys: tuple[str, ...], text: str, size: tuple[int, int]) -> None:
    assert snap_compare(top(), terminal_size=size, run_before=shows(*keys, text=text))


def test_nothing_yet(snap_compare: Compare) -> None:
    assert snap_compare(top(FrozenSource(rows=())), run_before=shows(text="no traffic so far"))


def test_notes(snap_compare: Compare) -> None:
    assert snap_compare(top(FrozenSource(notes=(NOTE, "more"))), run_before=shows(text="? has all"))


def test_no_color(snap_compare: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(top(FrozenSource(notes=(NOTE,))), run_before=shows(text="? has all"))
