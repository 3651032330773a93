"""The columns of the ledger: one slot for each direction of a conversation, or for many that were folded into one."""

from __future__ import annotations

import numpy as np

from pktproc.bandwidth.owners import NOBODY
from pktproc.packets.batch import Column

NO_SLOT = -1
_FIRST_ROOM = 1024
_NUMBERS = {
    "source_owner": np.int32,
    "destination_owner": np.int32,
    "passed_owner": np.int32,
    "interface": np.int32,
    "protocol": np.int32,
    "ethertype": np.int32,
    "source_address": np.int32,
    "destination_address": np.int32,
    "source_port": np.int32,
    "destination_port": np.int32,
    "twin": np.int32,
    "connections": np.int64,
    "packets": np.int64,
    "bytes": np.int64,
    "open_packets": np.int64,
    "open_bytes": np.int64,
    "first_ns": np.int64,
    "last_ns": np.int64,
    "syn_ns": np.int64,
    "ended": np.bool_,
    "folded": np.bool_,
}
KEY = (
    "source_owner",
    "destination_owner",
    "passed_owner",
    "interface",
    "protocol",
    "ethertype",
    "source_address",
    "destination_address",
    "source_port",
    "destination_port",
)
"""The columns in which folded slots differ from each other."""


class Slots:
    """Hold the columns, each as long as `room`; the slots in use are below `count`.

    `source_owner` and `destination_owner` are numbers of owners, `NOBODY` for an end elsewhere; `passed_owner` is one
    where the packet has no end here. A free slot has none of the three. Addresses are numbers, `interface` too; ports
    are -1 where several were folded. `open_*` is what the interval that is not over has seen. `twin` is the slot of the
    other direction, `connections` how many were counted here (and not at the twin). `syn_ns` is the time of the last
    SYN, `ended` says that FIN or RST came after it.
    """

    source_owner: Column
    destination_owner: Column
    passed_owner: Column
    interface: Column
    protocol: Column
    ethertype: Column
    source_address: Column
    destination_address: Column
    source_port: Column
    destination_port: Column
    twin: Column
    connections: Column
    packets: Column
    bytes: Column
    open_packets: Column
    open_bytes: Column
    first_ns: Column
    last_ns: Column
    syn_ns: Column
    ended: Column
    folded: Column

    def __init__(self) -> None:
        self.count = 0
        self._room = 0
        self._free: list[int] = []
        self._make_room(_FIRST_ROOM)

    @property
    def used(self) -> int:
        """Return how many slots are not free."""
        return self.count - len(self._free)

    def new(self) -> int:
        """Return a blank slot."""
        if self._free:
            return self._free.pop()
        if self.count == self._room:
            self._make_room(2 * self._room)
        self.count += 1
        return self.count - 1

    def release(self, slots: Column) -> None:
        """Make slots blank and free."""
        for name in _NUMBERS:
            getattr(self, name)[slots] = _blank(name)
        self._free += slots.tolist()

    def _make_room(self, room: int) -> None:
        for name, kind in _NUMBERS.items():
            column: Column = np.full(room, _blank(name), kind)
            if self._room:
                column[: self._room] = getattr(self, name)
            setattr(self, name, column)
        self._room = room


def _blank(name: str) -> int:
    if name.endswith("_owner"):
        return NOBODY
    return NO_SLOT if name == "twin" else 0
