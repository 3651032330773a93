"""What is known of the descriptors of all processes that are sockets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

Pair = tuple[int, int]


@dataclass(slots=True)
class Descriptors:
    """The descriptors that are sockets, as (pid, number).

    `single` has one of each inode, `several` all of an inode that has more than one. `starts` has the start time of the
    processes, in clock ticks since boot: a pid alone may be another's by now. `denied` of `looked_at` processes may not
    be inspected.
    """

    single: dict[int, Pair] = field(default_factory=dict)
    several: dict[int, list[Pair]] = field(default_factory=dict)
    starts: dict[int, int] = field(default_factory=dict)
    denied: int = 0
    looked_at: int = 0

    def take(self, inodes: Sequence[int], pairs: Sequence[Pair]) -> None:
        """Add descriptors, each with its inode."""
        fresh = dict(zip(inodes, pairs, strict=True))
        if len(fresh) == len(inodes) and not self.single:
            self.single = fresh
            return
        for inode, pair in zip(inodes, pairs, strict=True):
            first = self.single.setdefault(inode, pair)
            if first is not pair:
                self.several.setdefault(inode, [first]).append(pair)

    def of(self, inode: int) -> Sequence[Pair]:
        """Return the descriptors of an inode."""
        found = self.several.get(inode)
        if found is not None:
            return found
        pair = self.single.get(inode)
        return () if pair is None else (pair,)
