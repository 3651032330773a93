"""What the words of a user ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pktproc.inventory.conditions import Condition


class Wish(NamedTuple):
    """What some words ask for: `condition` is None for every socket, `states` None if no state was named.

    `places` says that a place was named, as opposed to a filter alone.
    """

    condition: Condition | None = None
    states: int | None = None
    places: bool = False
