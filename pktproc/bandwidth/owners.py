"""Who the bytes belong to: processes, and reasons why there is none, by small numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pktproc.model import Process, Reason

NOBODY = -1
"""The owner of an end that is not on this host."""
OTHERS = 0
"""The owner of what processes moved that were too many to be kept apart."""
OTHERS_TEXT = "other processes"


class Owner(NamedTuple):
    """A process, or the reason why nobody is known; neither for `OTHERS`."""

    process: Process | None
    reason: Reason | None


class Namers(NamedTuple):
    """What turns numbers into names: a user id, and an IP protocol (-1 for none) with its ethertype."""

    user: Callable[[int], str] = str
    protocol: Callable[[int, int], str] = lambda protocol, ethertype: str(protocol if protocol >= 0 else ethertype)


class OwnerTable:
    """Give numbers to owners; numbers of released ones are used again."""

    def __init__(self, namers: Namers) -> None:
        self._namers = namers
        self.owners: list[Owner] = [Owner(None, None)]
        self._number: dict[Process | Reason, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._number)

    def number(self, subject: Process | Reason) -> int:
        """Return the number of a process, as it was described, or of a reason."""
        number = self._number.get(subject)
        if number is None:
            owner = Owner(None, subject) if isinstance(subject, Reason) else Owner(subject, None)
            if self._free:
                number = self._free.pop()
                self.owners[number] = owner
            else:
                number = len(self.owners)
                self.owners.append(owner)
            self._number[subject] = number
        return number

    def release(self, numbers: list[int]) -> None:
        """Forget processes that own nothing any more."""
        for number in numbers:
            process = self.owners[number].process
            if process is not None and self._number.get(process) == number:
                del self._number[process]
                self._free.append(number)

    def key(self, number: int, dimension: str) -> str:
        """Return the text that an owner has in a dimension, the same for all owners that belong together there.

        What is not known of a process is an empty text; a reason stands for its owners, behind a question mark.
        """
        owner = self.owners[number]
        if owner.reason is not None:
            return f"?{owner.reason}"
        process = owner.process
        if process is None:
            return OTHERS_TEXT
        return _KEYS[dimension](process, self._namers)


_KEYS: dict[str, Callable[[Process, Namers], str]] = {
    "process": lambda process, _: f"{process.pid}:{process.start_ticks}",
    "name": lambda process, _: process.name,
    "exe": lambda process, _: process.exe or "",
    "cmdline": lambda process, _: "\0".join(process.cmdline or ()),
    "user": lambda process, namers: "" if process.uid is None else namers.user(process.uid),
    "container": lambda process, _: process.container_id or "",
    "unit": lambda process, _: process.unit or "",
}

OWNER_DIMENSIONS = tuple(_KEYS)
