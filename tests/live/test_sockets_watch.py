"""`pktproc sockets --watch` on a terminal: what changes stands out, and the terminal is as it was at the end."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Iterator

import pytest

from bed.namespaces import Namespace
from bed.program import Program
from bed.socket_tools import pktproc_sockets
from tui.tmux import Tmux

PORT = 7490


def watching(inside: Namespace, *words: object) -> str:
    return shlex.join(inside.enter(pktproc_sockets("-n", "--watch", "0.2", *words)))


@pytest.fixture
def screen() -> Iterator[Tmux]:
    with Tmux(100, 24) as screen:
        yield screen


def line_of(screen: Tmux, text: str) -> str:
    return next((line for line in screen.lines if text in line), "")


def test_what_opens_and_closes_is_marked_and_coloured(screen: Tmux, left: Namespace) -> None:
    screen.enter(watching(left, "-tua"))
    screen.until(lambda: "Local Address:Port" in screen.text)
    with Program("udp_server", "127.0.0.1", PORT, namespace=left).ready() as server:
        screen.until(lambda: line_of(screen, f":{PORT} ").startswith("+ udp"))
        screen.until(lambda: line_of(screen, f":{PORT} ").startswith("  udp"))  # no news at the next look
        assert f"[{server.pid}] fd" in line_of(screen, f":{PORT} ")
    coloured = screen.until_coloured(f":{PORT} ", "31")
    assert coloured.lstrip("\x1b[0123456789m").startswith("- udp")
    screen.until(lambda: not line_of(screen, f":{PORT} "))


def test_ctrl_c_gives_the_terminal_back(screen: Tmux, left: Namespace) -> None:
    screen.enter("stty -a >before; echo before | cat")
    screen.until(lambda: "before" in screen.lines[-2:-1] or screen.lines.count("before"))
    screen.enter(watching(left, "-tua"))
    screen.until(lambda: "Local Address:Port" in screen.text)
    assert "echo before" not in screen.text
    screen.press("C-c")
    screen.until(lambda: "echo before" in screen.text)
    assert "Local Address:Port" not in screen.text
    screen.enter("stty -a | cmp - before && echo sa''me; rm before; echo code $?")
    screen.until(lambda: "code 0" in screen.text)
    assert "same" in screen.text
    assert screen.cursor_is_shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_give_the_terminal_back(screen: Tmux, left: Namespace, number: signal.Signals) -> None:
    screen.enter(watching(left, "-tua") + "; echo code $?")
    screen.until(lambda: "Local Address:Port" in screen.text)
    child = subprocess.run(["pgrep", "-P", str(screen.pid)], capture_output=True, text=True, check=True).stdout
    os.kill(int(child), number)
    screen.until(lambda: "code 0" in screen.text)
    assert screen.cursor_is_shown


def test_another_size_of_the_terminal_is_filled_at_once(screen: Tmux, left: Namespace) -> None:
    """Long before the next look, which would come after a minute."""
    with Program("crowded_host", "--processes", 1, "--connections", 30, "--files", 0, namespace=left) as crowd:
        crowd.expect("ready")
        screen.enter(watching(left, "-tua").replace("--watch 0.2", "--watch 60"))
        screen.until(lambda: "lines more" in screen.text)
        assert len(screen.lines) <= 24
        assert max(map(len, screen.lines)) <= 100
        screen.resize(120, 50)
        screen.until(lambda: len(screen.lines) > 40)
        screen.resize(60, 12)
        screen.until(lambda: len(screen.lines) <= 12 and "Netid" in screen.text)
        assert max(map(len, screen.lines)) <= 60
        assert "] fd " in screen.text
        screen.resize(100, 120)
        screen.until(lambda: "lines more" not in screen.text and "LISTEN" in screen.text)


def test_what_changes_is_on_the_screen_even_if_there_is_no_room_for_everything(screen: Tmux, left: Namespace) -> None:
    with Program("crowded_host", "--processes", 1, "--connections", 30, "--files", 0, namespace=left) as crowd:
        crowd.expect("ready")
        screen.enter(watching(left, "-tua"))
        screen.until(lambda: "lines more" in screen.text)
        with Program("udp_server", "127.0.0.1", PORT, namespace=left).ready():
            screen.until(lambda: line_of(screen, f":{PORT} ").startswith("+ udp"))
        screen.until(lambda: line_of(screen, f":{PORT} ").startswith("- udp"))
