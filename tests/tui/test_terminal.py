"""The terminal is as it was before, however the screen ends."""

from __future__ import annotations

import signal

import pytest

from tui.terminal import TIMEOUT_S, Terminal

SCREEN = """
import sys
from pktproc.tui.app import TopApp
from tui.frozen import FrozenSource, ROWS
from tui.screen import written_names

class Source(FrozenSource):
    def view(self, by, rate_s):
        {view}
        return super().view(by, rate_s)

error = TopApp(Source(), names=written_names(), refresh_s={refresh}).run()
print("ENDED", type(error).__name__, error)
"""
WHOLE = b"\x1b[?1049l"  # leaves the alternate screen
CURSOR = b"\x1b[?25h"
FEATURES = {b"\x1b[?1000": b"\x1b[?1000l", b"\x1b[?1003": b"\x1b[?1003l", b"\x1b[?1006": b"\x1b[?1006l",
            b"\x1b[?2004": b"\x1b[?2004l", b"\x1b[?1004": b"\x1b[?1004l", b"\x1b[?7": b"\x1b[?7h"}  # fmt: skip


def body(view: str = "pass", refresh: float = 60) -> str:
    return SCREEN.format(view=view, refresh=refresh)


def check_restored(terminal: Terminal) -> None:
    assert terminal.settings() == terminal.before
    assert terminal.output.rindex(WHOLE) > terminal.output.index(b"\x1b[?1049h")
    assert terminal.output.rindex(CURSOR) > terminal.output.rindex(b"\x1b[?25l")
    for begin, end in FEATURES.items():
        at = terminal.output.rindex(begin)
        assert terminal.output[at:].startswith(end), begin


def shown(terminal: Terminal) -> bool:
    return b"firefox" in terminal.output


@pytest.mark.parametrize("keys", ["q", "\x03", "/fox\x03", "?\x03", "\rq"])
def test_keys_that_end(keys: str) -> None:
    with Terminal(body()) as terminal:
        terminal.until(lambda: shown(terminal))
        assert terminal.settings() != terminal.before
        for key in keys:
            terminal.press(key)
        assert terminal.ended() == 0
        assert b"ENDED NoneType None" in terminal.output
        check_restored(terminal)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_that_end(number: signal.Signals) -> None:
    with Terminal(body()) as terminal:
        terminal.until(lambda: shown(terminal))
        terminal.child.send_signal(number)
        assert terminal.ended() == 0
        check_restored(terminal)


def test_a_source_that_fails_at_once() -> None:
    with Terminal(body("raise RuntimeError('no capture')")) as terminal:
        assert terminal.ended() == 0
        assert b"ENDED RuntimeError no capture" in terminal.output
        check_restored(terminal)


def test_a_source_that_fails_later() -> None:
    failing = "if len(self.asked) > 2: raise OSError('gone')"
    with Terminal(body(failing, refresh=0.1)) as terminal:
        assert terminal.ended() == 0
        assert shown(terminal)
        assert b"ENDED OSError gone" in terminal.output
        check_restored(terminal)


def test_a_source_that_hangs_holds_neither_keys_nor_the_end_up() -> None:
    hanging = "if self.asked: import threading; threading.Event().wait()"
    with Terminal(body(hanging, refresh=0.1)) as terminal:
        terminal.until(lambda: shown(terminal))
        terminal.press("u")
        terminal.until(lambda: b"MB" in terminal.output)
        terminal.press("q")
        assert terminal.ended() == 0
        check_restored(terminal)


def test_a_mistake_in_the_screen_itself() -> None:
    """A view that breaks its contract: drawing it fails in the midst of the screen."""
    broken = "return __import__('dataclasses').replace(super().view(by, rate_s), notes=(None,))"
    with Terminal(body(broken)) as terminal:
        terminal.ended()
        assert b"Traceback" in terminal.output
        check_restored(terminal)


def test_a_terminal_that_is_closed_ends_the_program() -> None:
    with Terminal(body(refresh=0.1)) as terminal:
        terminal.until(lambda: shown(terminal))
        terminal.hang_up()
        terminal.child.wait(TIMEOUT_S)


def test_no_color_is_respected() -> None:
    with Terminal(body("return __import__('dataclasses').replace(super().view(by, rate_s), notes=('a note',))"),
                  NO_COLOR="1") as terminal:  # fmt: skip
        terminal.until(lambda: b"a note" in terminal.output)
        terminal.press("q")
        terminal.ended()
        parameters = [part.split(b"m")[0] for part in terminal.output.split(b"\x1b[")[1:] if b"m" in part]
        colours = {word for part in parameters for word in part.split(b";") if word.isdigit() and 30 <= int(word) < 108}
        assert colours <= {b"39", b"49"}
