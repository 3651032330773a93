"""Numbers of things in the words of people."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return a number with what it counts, `1 socket` or `2 sockets`; what follows a blank in `noun` stays as it is."""
    first, blank, rest = noun.partition(" ")
    if number != 1:
        first += "es" if first.endswith("s") else "s"
    return f"{number} {first}{blank}{rest}"
