"""Names, command lines and host names of programs that mean no good: shown, never obeyed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from rich.cells import cell_len

from pktproc.tui.remote_names import RemoteNames
from tui.frozen import CONNECTIONS, FrozenSource, amount, process, process_row
from tui.screen import running, top

HOSTILE = {
    "escape sequence": "\x1b]0;owned\x07\x1b[2J",
    "markup": "[red]x[/red][@click=app.leave]quit[/]",
    "newline": "a\nb\r\nc\tc",
    "C1": "\x9b31mred",
    "bidi": "abc\u202egpj.exe",
    "wide": "进程进程进程进程进程进程进程进程",
    "combining": "e\u0301\u0301\u0301\u0301\u0301" * 30,
    "zero width": "ba\u200bsh\ufeff",
    "undecodable": "caf\udce9",
    "long": "x" * 10_000,
    "backslash": "a\\x1bb",
    "empty": "",
}


def shown(name: str, *, keys: Sequence[str] = (), size: tuple[int, int] = (80, 24)) -> str:
    """Everything that the screen shows, as the terminal would get it."""
    who = process(4711, name, 0, name, f"--{name}", parent=name)
    source = FrozenSource(
        rows=(process_row(who, amount(1, 2), amount(3, 4)),),
        above=(who, who),
        shown=CONNECTIONS[:1],
        notes=(f"note {name}",),
        place=f"if{name}",
    )
    names = RemoteNames(lambda _: name)

    async def run() -> str:
        async with running(top(source, names=names), size) as screen:
            await screen.press(*keys)
            await screen.until(lambda: "enter" not in keys or "[4711]" in screen.head)
            await screen.until(lambda: "enter" not in keys or names.known(CONNECTIONS[0].remote_address) == name)
            await screen.press("u", "u", "u")
            text = "\n".join((screen.head, *screen.table.lines, screen.footer))
            widths = {cell_len(line) for line in screen.table.lines}
            assert max(widths) <= size[0]
            compositor = screen.app.screen._compositor  # noqa: SLF001 - what goes to the terminal
            drawn = "\n".join(strip.text for strip in compositor.render_strips())
            assert all(cell_len(strip.text) == size[0] for strip in compositor.render_strips())
            return text + drawn

    return asyncio.run(run())


@pytest.mark.parametrize("size", [(80, 24), (200, 50)], ids=["80x24", "200x50"])
@pytest.mark.parametrize("keys", [(), ("enter",), ("question_mark",)], ids=["list", "page", "help"])
@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_hostile_names_are_spelled_out(name: str, keys: tuple[str, ...], size: tuple[int, int]) -> None:
    text = shown(name, keys=keys, size=size)
    assert all(character.isprintable() for character in text.replace("\n", ""))


def test_markup_is_text() -> None:
    assert HOSTILE["markup"][:12] in shown(HOSTILE["markup"])
    assert HOSTILE["markup"] in shown(HOSTILE["markup"], keys=("enter",), size=(200, 50))


def test_what_is_typed_into_the_filter_is_text() -> None:
    async def run() -> None:
        async with running(top()) as screen:
            await screen.press("slash", "left_square_bracket", *"red", "right_square_bracket")
            await screen.until(lambda: "0 of 6 lines" in screen.head)

    asyncio.run(run())


def test_a_command_line_of_10_kb_leaves_room_for_connections() -> None:
    who = process(1, "x", 0, *["argument"] * 1200)

    async def run() -> None:
        source = FrozenSource(rows=(process_row(who, amount(1, 2), amount(3, 4)),))
        async with running(top(source)) as screen:
            await screen.press("enter")
            await screen.until(lambda: len(screen.lines) == 3)
            assert "..." in screen.head

    asyncio.run(run())
