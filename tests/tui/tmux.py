"""A shell in tmux: what a user types, and what a user sees."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from bed.program import program_environment

TIMEOUT_S = 30.0
_LOOK_S = 0.02
_serial = itertools.count()


class Tmux:
    """Hold a terminal of a size with a plain shell in it; a context manager that closes it."""

    def __init__(self, width: int = 80, height: int = 24) -> None:
        self._server = f"pktproc-{os.getpid()}-{next(_serial)}"
        self._tmux("-f", "/dev/null", "new-session", "-d", "-x", str(width), "-y", str(height), "env PS1='ready> ' sh")
        self.until(lambda: "ready>" in self.text)

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-L", self._server, *arguments],
            env={**program_environment(), "TERM": "xterm-256color"},
            capture_output=True,
            text=True,
            check=True,
            timeout=TIMEOUT_S,
        )
        return done.stdout

    @property
    def text(self) -> str:
        """Return what the terminal shows."""
        return self._tmux("capture-pane", "-p")

    @property
    def pid(self) -> int:
        """Return the pid of the shell."""
        return int(self._tmux("display-message", "-p", "#{pane_pid}"))

    @property
    def cursor_is_shown(self) -> bool:
        """Say whether the terminal shows its cursor."""
        return self._tmux("display-message", "-p", "#{cursor_flag}").strip() == "1"

    def resize(self, width: int, height: int) -> None:
        """Give the terminal another size."""
        self._tmux("resize-window", "-x", str(width), "-y", str(height))

    def until_coloured(self, text: str, code: str) -> str:
        """Wait for a line with some text in a colour (an SGR code), and return it with the codes in it."""

        found = ""

        def look() -> bool:
            nonlocal found
            lines = self._tmux("capture-pane", "-p", "-e").splitlines()
            found = next((line for line in lines if text in line and f"\x1b[{code}m" in line), "")
            return bool(found)

        self.until(look)
        return found

    @property
    def lines(self) -> list[str]:
        """Return the lines of it that are not blank."""
        return [line for line in self.text.splitlines() if line.strip()]

    def press(self, *keys: str) -> None:
        """Press keys, by the names that tmux has for them."""
        self._tmux("send-keys", *keys)

    def enter(self, line: str) -> None:
        """Type a line and press Enter."""
        self._tmux("send-keys", "-l", line)
        self._tmux("send-keys", "Enter")

    def until(self, condition: Callable[[], object], timeout_s: float = TIMEOUT_S) -> float:
        """Wait for a condition and return how long it took; AssertionError with the text if it does not come true."""
        begin = time.monotonic()
        while not condition():
            assert time.monotonic() < begin + timeout_s, self.text
            time.sleep(_LOOK_S)
        return time.monotonic() - begin

    def row(self, name: str) -> Sequence[str]:
        """Return the words of the line that begins with a name, none if there is none."""
        return next((line.split() for line in self.lines if line.split()[0] == name), ())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tmux("kill-server")
