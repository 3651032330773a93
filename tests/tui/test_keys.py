"""Every key that the footer names, pressed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from textual import events

from pktproc.bandwidth.views import Row
from pktproc.tui.help_screen import HelpScreen
from pktproc.tui.keys import IN_LIST, IN_PAGE
from tui.frozen import CURL, FIREFOX, ROWS, FrozenSource, amount, process_row
from tui.screen import Screen, running, top

BY_RATE = ["curl", "firefox", "postgres", "sshd", "?kernel", "?not-ip"]
Check = Callable[[Screen], Awaitable[None]]


def check(body: Check, source: FrozenSource | None = None, size: tuple[int, int] = (80, 24)) -> None:
    async def run() -> None:
        async with running(top(source), size) as screen:
            await body(screen)

    asyncio.run(run())


def test_the_footer_names_what_the_tests_press() -> None:
    async def body(screen: Screen) -> None:
        assert " ".join(screen.footer.split()) == (
            "? Help q Quit Enter Open / Filter g Group < > Sort i Invert p Pause "
            "u Units c Totals r Reset + - Refresh n Names"
        )
        await screen.press("enter")
        await screen.until(lambda: "Esc Back" in screen.footer and "Group" not in screen.footer)

    check(body)
    assert {key.cap for key in (*IN_LIST, *IN_PAGE)} == {*"?q/g<>ipucr+-n", "Enter", "Esc"}


def test_processes_that_move_most_come_first_and_those_without_an_owner_last() -> None:
    async def body(screen: Screen) -> None:
        assert screen.names == BY_RATE

    check(body)


OPENING = {"list": (), "page": ("enter",), "filter": ("slash", "x"), "help": ("question_mark",)}


@pytest.mark.parametrize(
    ("place", "key"),
    [("list", "q"), ("page", "q"), *((place, key) for place in OPENING for key in ("ctrl+c", "ctrl+q"))],
)
def test_quit_ends_from_everywhere(place: str, key: str) -> None:
    async def run() -> None:
        app = top()
        async with running(app) as screen:
            await screen.press(*OPENING[place], key)
            await screen.until(lambda: not app.is_running)
        assert app.return_value is None
        assert app.return_code == 0

    asyncio.run(run())


@pytest.mark.parametrize("key", ["question_mark", "h", "f1"])
@pytest.mark.parametrize("closing", ["escape", "q", "question_mark", "enter"])
def test_help_opens_and_closes(key: str, closing: str) -> None:
    async def body(screen: Screen) -> None:
        await screen.press(key)
        await screen.until(lambda: isinstance(screen.app.screen, HelpScreen))
        await screen.press(closing)
        await screen.until(lambda: not isinstance(screen.app.screen, HelpScreen))
        assert screen.app.is_running
        await screen.press("u")
        await screen.until(lambda: "MB" in screen.lines[0], "keys work as before")

    check(body)


def test_enter_opens_a_process_and_escape_comes_back() -> None:
    async def body(screen: Screen) -> None:
        await screen.press("down", "enter")
        await screen.until(lambda: "firefox[2290]" in screen.head)
        await screen.until(lambda: len(screen.lines) == 3)
        for fact in ("user nobody (65534)", "command /usr/lib/firefox/firefox --new-window"):
            assert fact in screen.head
        assert "parents bash[811] < sshd[801] < systemd[1]" in screen.head
        await screen.until(lambda: "example.org:443" in screen.lines[0])
        assert "ESTABLISHED" in screen.lines[0]
        assert "TIME-WAIT" in "\n".join(screen.lines)
        await screen.press("escape")
        await screen.until(lambda: screen.names == BY_RATE)
        assert screen.table.cursor_item is ROWS[1]

    source = FrozenSource()
    check(body, source)
    assert set(source.opened) == {(f"{FIREFOX.pid}:{FIREFOX.start_ticks}",)}


def test_the_cursor_moves_and_stays_with_its_process() -> None:
    def tell(resets: int) -> tuple[Row, ...]:
        return (process_row(CURL, amount(1, 1), amount(1, 1)), *ROWS[1:]) if resets else ROWS

    async def body(screen: Screen) -> None:
        for keys, pid in ((("down",), 2290), (("j", "j"), 801), (("k",), 977), (("home",), 4711)):
            await screen.press(*keys)
            await screen.until(lambda pid=pid: screen.table.cursor_item.process.pid == pid)  # type: ignore[attr-defined, misc]
        await screen.press("end")
        await screen.until(lambda: screen.table.cursor_item is ROWS[-1])
        await screen.press("pageup")
        await screen.until(lambda: screen.table.cursor_item is ROWS[0])
        await screen.press("down", "r")
        await screen.until(lambda: screen.names[0] == "firefox")
        assert screen.table.cursor_item is ROWS[1]

    check(body, FrozenSource(tell=tell))


def test_sort_goes_from_column_to_column() -> None:
    async def body(screen: Screen) -> None:
        seen = []
        for _ in range(8):
            await screen.press("greater_than_sign")
            seen.append(screen.app.choices.order.title)
        assert seen == ["Name", "PID", "User", "Sent/s", "Recv/s", "Total", "Conns", "Name"]
        await screen.press("less_than_sign")
        assert screen.app.choices.order.title == seen[-2]

    check(body)


@pytest.mark.parametrize(
    ("letter", "title", "first"),
    [
        ("N", "Name", "curl"),
        ("P", "PID", "curl"),
        ("U", "User", "firefox"),
        ("S", "Sent/s", "firefox"),
        ("R", "Recv/s", "curl"),
        ("T", "Total", "curl"),
        ("C", "Conns", "firefox"),
        ("B", "Busiest", "curl"),
    ],
)
def test_letters_sort_and_unowned_lines_stay_last(letter: str, title: str, first: str) -> None:
    async def body(screen: Screen) -> None:
        await screen.press("i", letter)
        await screen.until(lambda: screen.app.sight and screen.app.sight.wish.order.title == title)
        if title == "Busiest" and screen.app.choices.order.reversed:
            await screen.press(letter)
        await screen.until(lambda: not screen.app.sight.wish.order.reversed)  # type: ignore[union-attr]
        await screen.until(lambda: screen.names[0] == first)
        assert {name[0] for name in screen.names[-2:]} == {"?"}

    check(body)


def test_invert_turns_the_order_round() -> None:
    async def body(screen: Screen) -> None:
        await screen.press("i")
        await screen.until(lambda: screen.names == [*BY_RATE[3::-1], *BY_RATE[:3:-1]])
        await screen.press("i")
        await screen.until(lambda: screen.names == BY_RATE)

    check(body)


def test_a_click_on_a_title_sorts_and_a_second_one_inverts() -> None:
    async def body(screen: Screen) -> None:
        at = screen.titles.index("Sent/s") + 2
        await screen.click(type(screen.table), offset=(at, 0))
        await screen.until(lambda: screen.names[0] == "firefox")
        await screen.click(type(screen.table), offset=(at, 0))
        await screen.until(lambda: screen.names[0] == "sshd")

    check(body)


def test_clicks_move_the_cursor_and_open() -> None:
    async def body(screen: Screen) -> None:
        await screen.click(type(screen.table), offset=(3, 2))
        await screen.until(lambda: screen.table.cursor_item is ROWS[1])
        await screen.click(type(screen.table), offset=(3, 2))
        await screen.until(lambda: "firefox[2290]" in screen.head)

    check(body)


def test_a_click_on_the_footer_does_what_its_key_does() -> None:
    async def body(screen: Screen) -> None:
        footer = screen.app.screen.query("Band").last()
        line = screen.footer.splitlines()[1]
        await screen.click(footer, offset=(line.index("Units") + 1, 1))
        await screen.until(lambda: "MB" in screen.lines[0])

    check(body)


def test_filter_narrows_as_you_type() -> None:
    async def body(screen: Screen) -> None:
        await screen.press("slash", "slash")
        await screen.until(lambda: screen.names == BY_RATE[:4], "a slash is no key in it")
        await screen.press("backspace", "s", "h")
        await screen.until(lambda: screen.names == ["sshd"])
        assert "1 of 6 lines" in screen.head
        await screen.press("backspace", "backspace", *"disk.iso")
        await screen.until(lambda: screen.names == ["curl"], "command lines are looked in")
        await screen.press("enter", "u")
        await screen.until(lambda: "MB" in screen.lines[0], "keys are keys again")
        assert screen.names == ["curl"]
        await screen.press("escape")
        await screen.until(lambda: screen.names == BY_RATE)

    check(body)


def test_what_is_typed_right_after_the_slash_is_no_key() -> None:
    async def run() -> None:
        app = top()
        async with running(app) as screen:
            for key, character in zip(("slash", *"cu", "slash", *"ry"), "/cu/ry", strict=True):
                app.post_message(events.Key(key, character))
            await screen.until(lambda: app.choices.contains == "cu/ry")
            assert app.choices.look.units == "iec"
            assert not app.choices.cumulative

    asyncio.run(run())


def test_the_filter_of_the_list_does_not_hide_connections() -> None:
    async def body(screen: Screen) -> None:
        await screen.press("slash", *"curl", "enter")
        await screen.until(lambda: screen.names == ["curl"])
        await screen.press("enter")
        await screen.until(lambda: len(screen.lines) == 3)
        await screen.until(lambda: "dns.lan" in "\n".join(screen.lines))
        await screen.press("slash", *"dns")
        await screen.until(lambda: len(screen.lines) == 1, "names are looked in, too")
        await screen.press("escape")
        await screen.until(lambda: len(screen.lines) == 3)
        await screen.press("escape")
        await screen.until(lambda: screen.names == ["curl"])

    check(body)


def test_group_goes_through_all_groups() -> None:
    async def body(screen: Screen) -> None:
        for first in (["curl", "firefox"], ["root", "nobody"], ["-"], ["mirror.example.net", "192.0.2.90"]):
            await screen.press("g")
            await screen.until(lambda first=first: screen.names[: len(first)] == first or "192.0.2.111" in screen.names)  # type: ignore[misc]
        await screen.until(lambda: "by remote" in screen.head)
        await screen.press("g")
        await screen.until(lambda: screen.names == BY_RATE)

    source = FrozenSource()
    check(body, source)
    assert list(dict.fromkeys(source.asked)) == [("process",), ("name",), ("user",), ("container",), ("remote",)]


@pytest.mark.parametrize("key", ["p", "space"])
def test_pause_holds_the_figures(key: str) -> None:
    async def body(screen: Screen) -> None:
        await screen.press(key)
        await screen.until(lambda: "PAUSED" in screen.head)
        asked = len(source.asked)
        await screen.press("minus", "minus", "S")
        await screen.until(lambda: screen.names[0] == "firefox", "a held view is sorted, too")
        assert len(source.asked) == asked
        await screen.press(key)
        await screen.until(lambda: len(source.asked) > asked)
        assert "PAUSED" not in screen.head

    source = FrozenSource()
    check(body, source)


def test_units_go_round() -> None:
    async def body(screen: Screen) -> None:
        for unit in ("11.8 MiB", "12.3 MB", "98.8 Mbit", "11.8 MiB"):
            await screen.until(lambda unit=unit: unit in screen.lines[0])  # type: ignore[misc]
            await screen.press("u")

    check(body)


def test_totals_are_shown_instead_of_rates() -> None:
    async def body(screen: Screen) -> None:
        await screen.press("c")
        await screen.until(lambda: "Avg recv" in screen.titles and "Sent/s" not in screen.titles)
        await screen.until(lambda: screen.names == ["curl", "firefox", "postgres", "sshd", "?kernel", "?not-ip"])
        await screen.press("enter")
        await screen.until(lambda: "Received" in screen.titles)
        await screen.press("escape", "c")
        await screen.until(lambda: "Sent/s" in screen.titles)

    check(body)


def test_reset_tells_the_source() -> None:
    async def body(screen: Screen) -> None:
        await screen.press("r")
        await screen.until(lambda: source.resets == 1)

    source = FrozenSource()
    check(body, source)


def test_plus_and_minus_change_how_often_is_looked() -> None:
    async def body(screen: Screen) -> None:
        await screen.until(lambda: "every 60 s" in screen.head)
        for key, told in (("plus", 60), ("minus", 30), ("minus", 10), ("minus", 5), ("plus", 10)):
            await screen.press(key)
            await screen.until(lambda told=told: f"every {told} s" in screen.head)  # type: ignore[misc]
        await screen.press(*["minus"] * 9)
        await screen.until(lambda: "every 0.25 s" in screen.head)
        asked = len(source.asked)
        await screen.until(lambda: len(source.asked) > asked + 1, "it looks by itself")

    source = FrozenSource()
    check(body, source)


def test_names_can_be_switched_off() -> None:
    async def body(screen: Screen) -> None:
        await screen.press("enter")
        await screen.until(lambda: "example.org:443" in "\n".join(screen.lines))
        await screen.press("n")
        await screen.until(lambda: "93.184.216.34:443" in "\n".join(screen.lines))
        await screen.press("n")
        await screen.until(lambda: "example.org:443" in "\n".join(screen.lines))

    check(body)


def test_rates_are_of_the_time_between_two_looks_and_the_screen_says_so() -> None:
    async def body(screen: Screen) -> None:
        assert "over 60 s" in screen.head
        await screen.press("minus")
        await screen.until(lambda: "every 30 s" in screen.head and "over 30 s" in screen.head)
        await screen.press("minus", "minus", "plus")
        await screen.until(lambda: "every 10 s" in screen.head and "over 10 s" in screen.head)
        await screen.press("enter")
        await screen.until(lambda: "over 10 s" in screen.head and "by process" not in screen.head)

    check(body)


def test_a_table_that_is_cut_says_so() -> None:
    """The source tells six rows, the last of them for all that it leaves out; and three of 5,000 conversations."""
    source = FrozenSource(groups=7_006, connection_count=5_000, folded=1_234)

    async def body(screen: Screen) -> None:
        assert "the 7,001 that moved least are one line, others" in screen.head
        await screen.press("slash", *"fire", "enter")
        await screen.until(lambda: "1 of 6 lines; the 7,001 that moved least" in screen.head)
        await screen.press("enter")
        await screen.until(
            lambda: "4,997 that moved less are left out; 1,234 ended ones are joined by remote end" in screen.head
        )

    check(body, source)


def test_a_table_that_is_whole_says_nothing() -> None:
    async def body(screen: Screen) -> None:
        await screen.press("enter")
        await screen.until(lambda: "curl[4711]" in screen.head)
        assert "left out" not in screen.head
        assert "joined" not in screen.head

    check(body)
