"""What the screen asks for and is given; whoever captures implements it."""

from __future__ import annotations

from typing import Protocol

from pktproc.bandwidth.views import Connections, View
from pktproc.model import Process

By = tuple[str, ...]


class Source(Protocol):
    """Answer the screen's questions.

    One thread of the screen asks, never the one that handles keys, so that an answer may take its time. Whatever is
    raised ends the screen.
    """

    @property
    def place(self) -> str:
        """Return where is captured: `any`, `eth0, wlan0 in web`."""

    def view(self, by: By, rate_s: float) -> View:
        """Return all groups as of now, with rates over the last `rate_s` as near as may be: the view says."""

    def connections(self, by: By, key: tuple[str, ...], rate_s: float) -> Connections:
        """Return the conversations of a group, ended ones as long as they are known one by one."""

    def ancestors(self, process: Process) -> tuple[Process, ...]:
        """Return the processes above one, from its parent upward, as far as they are known."""

    def reset(self) -> None:
        """Begin to count anew."""
