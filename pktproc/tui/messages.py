"""What the threads beside the screen tell it."""

from __future__ import annotations

from textual.message import Message

from pktproc.tui.looker import Sight


class Saw(Message):
    """There is something to show."""

    def __init__(self, sight: Sight) -> None:
        super().__init__()
        self.sight = sight


class Named(Message):
    """There are new names of remote hosts."""


class Failed(Message):
    """The source is at its end."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error
