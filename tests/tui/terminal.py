"""A program on a terminal of its own: a pty whose settings and output can be looked at."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
TIMEOUT_S = 20.0
_WAIT_S = 0.05
_CONTROLLING = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
_SIZE = struct.pack("HHHH", 24, 80, 0, 0)


class Terminal:
    """Run a Python program whose controlling terminal is a pty of 80x24; a context manager that ends it."""

    def __init__(self, body: str, **environment: str) -> None:
        self._near, far = pty.openpty()
        fcntl.ioctl(far, termios.TIOCSWINSZ, _SIZE)
        self._far = far
        self.before = self.settings()
        self.output = b""
        self.child = subprocess.Popen(
            [sys.executable, "-c", _CONTROLLING + body],
            stdin=far,
            stdout=far,
            stderr=far,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{TESTS}", "TERM": "xterm-256color", **environment},
        )

    def settings(self) -> list[Any]:
        """Return what stty -a shows."""
        return termios.tcgetattr(self._far)

    def read(self) -> None:
        """Take in what was written until now."""
        while select.select([self._near], [], [], 0)[0]:
            try:
                self.output += os.read(self._near, 1 << 16)
            except OSError:
                return

    def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition, taking in the output; AssertionError with its end if it does not come true."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, self.output[-3000:].decode(errors="replace")
            select.select([self._near], [], [], _WAIT_S)
            self.read()

    def press(self, keys: str) -> None:
        """Write what a keyboard would."""
        os.write(self._near, keys.encode())

    def ended(self) -> int:
        """Wait for the program's end and return its exit status."""
        self.until(lambda: self.child.poll() is not None)
        self.read()
        return int(self.child.returncode)

    def hang_up(self) -> None:
        """Close the terminal, as a window that is closed does."""
        os.close(self._far)
        os.close(self._near)
        self._far = self._near = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        for descriptor in (self._near, self._far):
            if descriptor >= 0:
                os.close(descriptor)
