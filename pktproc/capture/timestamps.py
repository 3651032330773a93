"""Time stamps of pcapng interfaces as nanoseconds since the epoch, exact whatever their resolution.

A stamp counts units of if_tsresol since if_tsoffset seconds after the epoch (draft-ietf-opsawg-pcapng sections 4.2 and
4.3). Results are rounded down and kept within int64.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from pktproc.packets.batch import Column

NS_PER_S = 1_000_000_000
_POWER_OF_TWO = 0x80
_INT64 = np.iinfo(np.int64)
_MAX_TICKS = (1 << 64) - 1
# Sums of these two stay within int64; what lies beyond is reckoned one by one.
_MAX_PLAIN_NS = 1 << 62
_MAX_PLAIN_OFFSET = 4_000_000_000
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_NS = np.uint64(NS_PER_S)


def nanoseconds(ticks: Column, tsresol: Column, tsoffset: Column) -> Column:
    """Return int64 nanoseconds for stamps (uint64), each with its resolution (uint8) and offset (int64 seconds)."""
    if not len(ticks):
        return np.zeros(0, np.int64)
    if (tsresol == tsresol[0]).all():
        return _of_one_resolution(ticks, int(tsresol[0]), tsoffset)
    times = np.empty(len(ticks), np.int64)
    for resolution in np.unique(tsresol).tolist():
        rows = np.flatnonzero(tsresol == resolution)
        times[rows] = _of_one_resolution(ticks[rows], resolution, tsoffset[rows])
    return times


def nanosecond(ticks: int, tsresol: int, tsoffset: int) -> int:
    """Return the time of one stamp; what int64 cannot hold becomes its nearest value."""
    exact = ticks * NS_PER_S // _units_per_second(tsresol) + tsoffset * NS_PER_S
    return min(max(exact, int(_INT64.min)), int(_INT64.max))


@cache
def _units_per_second(tsresol: int) -> int:
    exponent = tsresol & ~_POWER_OF_TWO
    return 1 << exponent if tsresol & _POWER_OF_TWO else int(10**exponent)


def _of_one_resolution(ticks: Column, tsresol: int, tsoffset: Column) -> Column:
    largest = min(_MAX_PLAIN_NS * _units_per_second(tsresol) // NS_PER_S, _MAX_TICKS)
    plain = (ticks <= np.uint64(largest)) & (tsoffset <= _MAX_PLAIN_OFFSET) & (tsoffset >= -_MAX_PLAIN_OFFSET)
    if plain.all():
        times: Column = _plain(ticks, tsresol) + tsoffset * NS_PER_S
        return times
    times = np.empty(len(ticks), np.int64)
    times[plain] = _plain(ticks[plain], tsresol) + tsoffset[plain] * NS_PER_S
    far = ~plain
    stamps = zip(ticks[far].tolist(), tsoffset[far].tolist(), strict=True)
    times[far] = [nanosecond(stamp, tsresol, offset) for stamp, offset in stamps]
    return times


def _plain(ticks: Column, tsresol: int) -> Column:
    """Return stamps as nanoseconds where these are below 2**62."""
    exponent = tsresol & ~_POWER_OF_TWO
    if tsresol & _POWER_OF_TWO:
        return _binary(ticks, exponent).view(np.int64)
    units = _units_per_second(tsresol)
    if units <= NS_PER_S:
        return (ticks * np.uint64(NS_PER_S // units)).view(np.int64)
    divisor = units // NS_PER_S
    if divisor > _MAX_TICKS:
        return np.zeros(len(ticks), np.int64)
    return (ticks // np.uint64(divisor)).view(np.int64)


def _binary(ticks: Column, exponent: int) -> Column:
    """Return units of 2**-exponent seconds as nanoseconds; products are kept below 2**64 by halves."""
    if exponent < 32:
        seconds, fraction = ticks >> np.uint64(exponent), ticks & np.uint64((1 << exponent) - 1)
        return seconds * _NS + (fraction * _NS >> np.uint64(exponent))
    seconds = ticks >> np.uint64(exponent) if exponent < 64 else np.zeros(len(ticks), np.uint64)
    fraction = ticks - (seconds << np.uint64(exponent)) if exponent < 64 else ticks
    high = (fraction >> _HALF) * _NS + ((fraction & _LOW) * _NS >> _HALF)
    return seconds * _NS + (high >> np.uint64(min(exponent - 32, 63)))
