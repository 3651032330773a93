"""Amounts of bytes as people read them."""

from __future__ import annotations

from typing import Literal

Units = Literal["iec", "si", "bits"]

_NAMES: dict[str, tuple[int, tuple[str, ...]]] = {
    "iec": (1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")),
    "si": (1000, ("B", "kB", "MB", "GB", "TB", "PB", "EB")),
    "bits": (1000, ("bit", "kbit", "Mbit", "Gbit", "Tbit", "Pbit", "Ebit")),
}


def amount_text(size: float, units: Units) -> str:
    """Return a number of bytes with three digits and its unit: `0 B`, `999 B`, `1.21 MiB`, `12.3 kbit`."""
    step, names = _NAMES[units]
    value, name = float(size * 8 if units == "bits" else size), names[0]
    for name in names:
        if value < 999.5 or name == names[-1]:
            break
        value /= step
    return f"{value:.{0 if name == names[0] else _decimals(value)}f} {name}"


def rate_text(bytes_per_second: float, units: Units) -> str:
    """Return a rate: `1.21 MiB/s`, `12.3 kbit/s`."""
    return f"{amount_text(bytes_per_second, units)}/s"


def _decimals(value: float) -> int:
    if value < 9.995:
        return 2
    return 1 if value < 99.95 else 0
