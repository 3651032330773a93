"""The interfaces that cooked headers name: a file from `tcpdump -i any` has one, with packets of all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pktproc.model import Interface
from pktproc.packets.batch import Column, PacketBatch
from pktproc.packets.headers import SLL2, gather
from pktproc.packets.linktypes import LINKTYPE_LINUX_SLL2

_IFINDEX_BITS = 32


class CookedInterfaces:
    """Tell the interfaces of packets with LINKTYPE_LINUX_SLL2 apart by their headers, batch after batch.

    LINKTYPE_LINUX_SLL names none, so its packets stay on the interface that the file gives them.
    """

    def __init__(self) -> None:
        self._place_of: dict[int, int] = {}
        self._interfaces: list[Interface] = []

    def told_apart(self, batch: PacketBatch) -> PacketBatch:
        """Return a batch whose packets are on the interfaces of their headers, called `if3` by their ifindex.

        The `ifindex` of such an interface has that of the file's own one in its upper half, since numbers of several
        interfaces of a file may be of several hosts. Places of interfaces stay as they are in later batches; the file's
        own interface has one, too.
        """
        rows = np.flatnonzero(batch.linktype == LINKTYPE_LINUX_SLL2)
        if not len(rows) and not self._interfaces:
            return batch
        offset = batch.offset[rows]
        header, ok = gather(batch.data, offset, offset + batch.captured_bytes[rows], SLL2)
        key = batch.interface.astype(np.int64) << _IFINDEX_BITS
        for own in np.unique(key).tolist():
            self._place(own, batch)
        key[rows] |= np.where(ok, header["ifindex"].astype(np.int64), 0)
        met, number = np.unique(key, return_inverse=True)
        place = np.array([self._place(one, batch) for one in met.tolist()], np.int64)
        interface: Column = place[number.reshape(-1)]
        return replace(batch, interface=interface, interfaces=tuple(self._interfaces))

    def _place(self, key: int, batch: PacketBatch) -> int:
        place = self._place_of.get(key)
        if place is None:
            place = self._place_of[key] = len(self._interfaces)
            position, ifindex = key >> _IFINDEX_BITS, key & ((1 << _IFINDEX_BITS) - 1)
            of_file = batch.interfaces[position]
            own = Interface(f"if{ifindex}", of_file.ifindex << _IFINDEX_BITS | ifindex, of_file.netns)
            self._interfaces.append(own if ifindex else of_file)
        return place
