"""Packet times as text, many at once: what changes only every second is formatted only every second."""

from __future__ import annotations

import time
from typing import Literal

import numpy as np

from pktproc.packets.batch import Column

TimeFormat = Literal["time", "epoch", "date", "none"]
Precision = Literal["micro", "nano"]

_SECOND = 1_000_000_000


class Clock:
    """Format times as tcpdump does.

    `time_format` is `time` (local `12:34:56.123456`), `epoch` (seconds since the epoch, tcpdump's `-tt`), `date` (local
    date and time, `-tttt`) or `none` (`-t`). `precision` says how many digits follow the point: 6 or 9, cut off, not
    rounded.
    """

    def __init__(self, time_format: TimeFormat = "time", precision: Precision = "micro") -> None:
        self._format = time_format
        self._digits, self._divisor = (9, 1) if precision == "nano" else (6, 1000)
        self._second: int | None = None
        self._text = ""

    def stamps(self, time_ns: Column) -> list[str]:
        """Return each time as text with a space behind it, empty with the format `none`."""
        if self._format == "none":
            return [""] * len(time_ns)
        seconds, fractions = np.divmod(time_ns, _SECOND)
        width = self._digits
        stamps = []
        for second, fraction in zip(seconds.tolist(), (fractions // self._divisor).tolist(), strict=True):
            if second != self._second:
                self._text = self._whole(second)
                self._second = second
            stamps.append(f"{self._text}.{fraction:0{width}d} ")
        return stamps

    def _whole(self, second: int) -> str:
        if self._format == "epoch":
            return str(second)
        return time.strftime("%Y-%m-%d %H:%M:%S" if self._format == "date" else "%H:%M:%S", time.localtime(second))


def utc(time_ns: int) -> str:
    """Return a time since the epoch as RFC 3339 in UTC with nine digits: `2024-05-06T07:08:09.123456789Z`."""
    second, fraction = divmod(time_ns, _SECOND)
    return f"{utc_seconds(second)}.{fraction:09d}Z"


def utc_seconds(second: int) -> str:
    """Return a whole second since the epoch as RFC 3339 in UTC, without fraction and zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
