"""Whether packets are of a time in which recording ran at all, and what to say if they are not."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from pktproc.attribution.history import Coverage
from pktproc.packets.batch import Column

_NS_PER_S = 1_000_000_000
_HOUR_NS = 3600 * _NS_PER_S
_MOST_HOURS_OFF = 14  # no two time zones in use are further from UTC
_FAR_NS = 1 << 62


class CoveredTimes:
    """Count the packets whose times lie within the coverage of one of `stores` stores, or so near that they may be."""

    def __init__(self, coverage: Sequence[Coverage], stores: int, tolerance_ns: int) -> None:
        merged: list[list[int]] = []
        for covered in sorted(coverage):
            first_ns, last_ns = _bounded(covered.first_ns - tolerance_ns), _bounded(covered.last_ns + tolerance_ns)
            if merged and first_ns <= merged[-1][1]:
                merged[-1][1] = max(merged[-1][1], last_ns)
            else:
                merged.append([first_ns, last_ns])
        self._first_ns: Column = np.array([first for first, _ in merged], np.int64)
        self._last_ns: Column = np.array([last for _, last in merged], np.int64)
        self._range_ns = (min(c.first_ns for c in coverage), max(c.last_ns for c in coverage)) if coverage else None
        self._store = "the store covers" if stores == 1 else "the stores cover"
        self._count = self._covered = 0
        self._packets_ns = (_FAR_NS, -_FAR_NS)

    def note(self, time_ns: Column, skew_ns: int) -> None:
        """Take note of packets' times, to which the skew is not yet added."""
        if not len(time_ns):
            return
        self._count += len(time_ns)
        self._packets_ns = min(self._packets_ns[0], int(time_ns.min())), max(self._packets_ns[1], int(time_ns.max()))
        if len(self._first_ns):
            place = np.searchsorted(self._first_ns, time_ns + skew_ns, "right") - 1
            self._covered += int(((place >= 0) & (time_ns + skew_ns <= self._last_ns[place])).sum())

    def shortfall(self, skew_ns: int, *, hint: bool) -> list[str]:
        """Return what to say if fewer than half of the packets are covered, with a cure if `hint` wants one."""
        if not self._count or 2 * self._covered >= self._count:
            return []
        if self._range_ns is None:
            return ["the packets cannot be named: nothing was ever recorded into the store"]
        share = f"only {100 * self._covered / self._count:.0f} %" if self._covered else "none"
        packets, store = (f"{_local(first)} to {_local(last)}" for first, last in (self._packets_ns, self._range_ns))
        text = f"{share} of the packets are of a time that was recorded: they are of {packets}, {self._store} {store}"
        first_ns, last_ns = (packet_ns + skew_ns for packet_ns in self._packets_ns)
        if first_ns <= self._range_ns[1] and self._range_ns[0] <= last_ns:
            return [f"{text}, with gaps"] if len(self._first_ns) > 1 else [text]
        return [text + (self._cure(skew_ns) if hint else "")]

    def _cure(self, skew_ns: int) -> str:
        """Return what would bring the packets into the range, if one shift of a clock by whole hours does."""
        if self._range_ns is None:
            return ""
        (first_ns, last_ns), (from_ns, to_ns) = self._packets_ns, self._range_ns
        if last_ns - first_ns > to_ns - from_ns:
            return ""
        shifts = [hours * _HOUR_NS for hours in range(-_MOST_HOURS_OFF, _MOST_HOURS_OFF + 1)]
        fitting = [shift for shift in shifts if from_ns <= first_ns + shift and last_ns + shift <= to_ns]
        if skew_ns and 0 in fitting:
            return "; leave --skew out"
        if len(fitting) == 1:
            return f"; if a clock was set to another time zone, try --skew {fitting[0] // _NS_PER_S}"
        return "; if their clocks are apart, say by how much with --skew"


def _bounded(time_ns: int) -> int:
    return max(-_FAR_NS, min(_FAR_NS, time_ns))


def _local(time_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_ns // _NS_PER_S))
