"""Numbers that are sparse, made dense."""

from __future__ import annotations

import numpy as np

from pktproc.packets.batch import Column

_DENSE = 4
"""A table of all possible numbers is made if that has at most so many places for each that is given."""


def dense(code: Column, size: int) -> tuple[Column, int]:
    """Return new numbers for the codes that occur, in ascending order, and how many there are."""
    if size > _DENSE * len(code) + 1024:
        met, number = np.unique(code, return_inverse=True)
        return number.reshape(-1), len(met)
    present = np.zeros(size, bool)
    present[code] = True
    return (np.cumsum(present) - 1)[code], int(present.sum())
