"""When the garbage collector looks for circles: seldom while a command starts, and hardly ever once it is at work.

Nothing that is kept of packets is part of a circle, and there are millions of such objects: to look through them took
half of the time in a storm of connections, in pauses of up to a second in which the kernel had to drop packets.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

_SELDOM = 500_000  # newly made objects
_RARELY_S = 600.0


def look_seldom() -> None:
    """Let what is imported and set up be, which leaves nothing to collect: to look through it takes 60 ms."""
    gc.set_threshold(_SELDOM)


def look_no_more() -> None:
    """Leave off looking for circles; what is in none is freed at once all the same."""
    gc.freeze()
    gc.disable()


class RareLooks:
    """Look for circles every ten minutes, for what makes some beside the walk: screens, servers.

    `clock` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due_s = clock() + _RARELY_S

    def look_if_due(self) -> None:
        """Look for circles if it is time to; to be called more often than that."""
        if self._clock() >= self._due_s:
            gc.collect()
            self._due_s = self._clock() + _RARELY_S
