"""What is known of the descriptors of all processes that are sockets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

Pair = tuple[int, int]


class Descriptors:
    """The descriptors that are sockets: columns of their inodes, of the pids of their processes, and of their numbers.

    `starts` has the start time of the processes, in clock ticks since boot: a pid alone may be another's by now.
    `denied` of `looked_at` processes may not be inspected.
    """

    def __init__(self) -> None:
        self.inodes: list[int] = []
        self.pids: list[int] = []
        self.numbers: list[int] = []
        self.starts: dict[int, int] = {}
        self.denied = 0
        self.looked_at = 0
        self._single: dict[int, Pair] = {}
        self._several: dict[int, list[Pair]] = {}
        self._arranged = 0

    def take(self, inodes: Iterable[int], pids: Iterable[int], numbers: Iterable[int]) -> None:
        """Add descriptors."""
        self.inodes += inodes
        self.pids += pids
        self.numbers += numbers

    @property
    def single(self) -> Mapping[int, Pair]:
        """Return one descriptor of each inode, as (pid, number)."""
        self._arrange()
        return self._single

    @property
    def several(self) -> Mapping[int, Sequence[Pair]]:
        """Return all descriptors of each inode that has more than one."""
        self._arrange()
        return self._several

    def of(self, inode: int) -> Sequence[Pair]:
        """Return the descriptors of an inode."""
        found = self.several.get(inode)
        if found is not None:
            return found
        pair = self._single.get(inode)
        return () if pair is None else (pair,)

    def _arrange(self) -> None:
        """Arrange the descriptors that were added since the last time by their inodes."""
        if self._arranged == len(self.inodes):
            return
        inodes, begin = self.inodes[self._arranged :], self._arranged
        pairs = list(zip(self.pids[begin:], self.numbers[begin:], strict=True))
        self._arranged = len(self.inodes)
        fresh = dict(zip(inodes, pairs, strict=True))
        if len(fresh) == len(inodes) and not self._single:
            self._single = fresh
            return
        for inode, pair in zip(inodes, pairs, strict=True):
            first = self._single.setdefault(inode, pair)
            if first is not pair:
                self._several.setdefault(inode, [first]).append(pair)
