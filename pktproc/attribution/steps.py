"""What changes at some moments and is one and the same in between, worked out when it is first asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, TypeVar

MAX_KNOWN = 256

Value = TypeVar("Value")
Value_co = TypeVar("Value_co", covariant=True)


class Step(NamedTuple, Generic[Value_co]):
    """A value and the time for which it holds: from `from_ns` until just before `until_ns`, None for no bound."""

    from_ns: int | None
    until_ns: int | None
    value: Value_co

    def holds(self, first_ns: int, last_ns: int) -> bool:
        """Say whether the value holds for all of a time."""
        begun = self.from_ns is None or self.from_ns <= first_ns
        return begun and (self.until_ns is None or last_ns < self.until_ns)


class Steps(Generic[Value]):
    """Values over time: `value` returns the one at a time and can change only at `cuts`, from each of them on.

    The latest `MAX_KNOWN` values are remembered.
    """

    def __init__(self, cuts: Iterable[int], value: Callable[[int], Value]) -> None:
        self._cuts = sorted(set(cuts))
        self._value = value
        self._known: dict[int, Value] = {}

    def at(self, time_ns: int) -> Step[Value]:
        """Return the value at a time and how long it holds."""
        position = bisect_right(self._cuts, time_ns)
        if position not in self._known:
            if len(self._known) >= MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[position] = self._value(time_ns)
        return Step(
            self._cuts[position - 1] if position else None,
            self._cuts[position] if position < len(self._cuts) else None,
            self._known[position],
        )


def meet(value: Value, steps: Iterable[Step[object]]) -> Step[Value]:
    """Return a value that rests on some steps, for the time for which all of them hold."""
    steps = list(steps)
    return Step(
        max((step.from_ns for step in steps if step.from_ns is not None), default=None),
        min((step.until_ns for step in steps if step.until_ns is not None), default=None),
        value,
    )
