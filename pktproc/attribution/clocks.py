"""From the time of packets, since the epoch, to the monotonic time in which everything here is kept."""

from __future__ import annotations

from collections.abc import Callable

_SAMPLES = 3


def monotonic_offset_ns(clock: Callable[[], int], wall_clock: Callable[[], int]) -> int:
    """Return what to add to nanoseconds since the epoch to get those of the monotonic `clock`.

    Of a few samples the one counts that was taken fastest, since the process may lose the processor in between.
    """
    samples = []
    for _ in range(_SAMPLES):
        before, wall_ns, after = clock(), wall_clock(), clock()
        samples.append((after - before, (before + after) // 2 - wall_ns))
    return min(samples)[1]
