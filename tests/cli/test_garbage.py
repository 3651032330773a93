"""When circles are looked for."""

from __future__ import annotations

import gc
import weakref

from pktproc.cli.garbage import RareLooks


class Circle:
    def __init__(self) -> None:
        self.itself = self


def test_circles_go_when_a_look_is_due_and_not_before() -> None:
    now = 0.0
    looks = RareLooks(lambda: now)
    automatic = gc.isenabled()
    gc.disable()
    try:
        circle = weakref.ref(Circle())
        now = 599.0
        looks.look_if_due()
        assert circle() is not None
        now = 601.0
        looks.look_if_due()
        assert circle() is None
        circle = weakref.ref(Circle())
        now = 1200.0
        looks.look_if_due()
        assert circle() is not None
    finally:
        if automatic:
            gc.enable()
