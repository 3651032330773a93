"""Waiting for what a test needs to be so, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable

from bed.program import TIMEOUT

_LOOK_S = 0.01


def until(condition: Callable[[], object], describe: Callable[[], object] = lambda: "") -> None:
    """Wait until a condition holds; AssertionError, with what `describe` returns, when it does not in time."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, describe()
        time.sleep(_LOOK_S)
