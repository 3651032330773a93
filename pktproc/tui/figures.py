"""Figures as people read them, in a fixed width."""

from __future__ import annotations

from collections.abc import Sequence

from pktproc.output.amounts import Units, amount_text

UNITS: tuple[Units, ...] = ("iec", "si", "bits")
"""In the order in which the key goes through them: powers of 1024, powers of 1000, bits."""

_WIDTHS: dict[Units, int] = {"iec": 8, "si": 7, "bits": 9}
_LEVELS = "▁▂▃▄▅▆▇█"
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def following(units: Units) -> Units:
    """Return the next of the units, the first after the last."""
    return UNITS[(UNITS.index(units) + 1) % len(UNITS)]


def amount_width(units: Units) -> int:
    """Return how many characters an amount has at most."""
    return _WIDTHS[units]


def count_text(count: float) -> str:
    """Return a count in five characters at most: `12345`, `123k`, `1.23M`."""
    if count < 99999.5:
        return f"{count:.0f}"
    return amount_text(count, "si").replace(" ", "").removesuffix("B")


def clock_text(seconds: float) -> str:
    """Return a length of time as `0:00:09`, with days in front where there are any: `3d 04:05:06`."""
    whole = int(seconds)
    days, rest = divmod(whole, _DAY)
    hours, minutes, seconds_left = rest // _HOUR, rest % _HOUR // _MINUTE, rest % _MINUTE
    if days:
        return f"{days}d {hours:02}:{minutes:02}:{seconds_left:02}"
    return f"{hours}:{minutes:02}:{seconds_left:02}"


def sparkline(history: Sequence[int], width: int) -> str:
    """Return the latest figures as blocks, the newest at the right; the largest of them fills its block.

    Nothing is a blank; anything, however little, is not.
    """
    shown = history[-width:]
    most = max(shown, default=0)
    if most <= 0:
        return " " * width
    last = len(_LEVELS) - 1
    blocks = (" " if figure <= 0 else _LEVELS[min(last, figure * len(_LEVELS) // most)] for figure in shown)
    return "".join(blocks).rjust(width)
