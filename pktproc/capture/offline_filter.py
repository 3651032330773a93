"""pcap-filter(7) expressions applied to packets of a file, by libpcap's own interpreter."""

from __future__ import annotations

import os
import struct

import cypcap
import numpy as np

from pktproc.errors import UsageError
from pktproc.packets import linktypes
from pktproc.packets.batch import Column, PacketBatch

_SNAPLEN = 262144
_PCAP_HEADER = struct.Struct("=IHHiIII")  # magic, version, zone, accuracy, snaplen, linktype (pcap-savefile(5))
_PCAP_MAGIC = 0xA1B2C3D4


class OfflineFilter:
    """Tell which packets match an expression; the empty one matches all.

    Raise `UsageError` for a bad expression, also one that makes no sense for a link type that turns up.
    """

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._programs: dict[int, cypcap.BpfProgram] = {}
        if expression:
            self._program(linktypes.LINKTYPE_ETHERNET)

    def rows(self, batch: PacketBatch) -> Column:
        """Return the rows (int64) of the packets that match, in order."""
        if not self._expression:
            return np.arange(len(batch))
        data = batch.data.data
        columns = (batch.offset, batch.captured_bytes, batch.wire_bytes, batch.linktype)
        found = [
            row
            for row, (offset, captured, wire, linktype) in enumerate(zip(*(c.tolist() for c in columns), strict=True))
            if self._program(linktype).offline_filter(
                cypcap.Pkthdr(0, captured, wire), bytes(data[offset : offset + captured])
            )
        ]
        return np.array(found, np.int64)

    def _program(self, linktype: int) -> cypcap.BpfProgram:
        if linktype not in self._programs:
            try:
                self._programs[linktype] = _empty_file(linktype).compile(self._expression, True, cypcap.NETMASK_UNKNOWN)
            except cypcap.Error as error:
                reason = error.args[1] if len(error.args) > 1 else error
                message = f"bad filter {self._expression!r}: {reason}; pcap-filter(7) has the syntax"
                raise UsageError(message) from error
            except UnicodeError as error:
                message = f"bad filter {self._expression!r}: not UTF-8"
                raise UsageError(message) from error
        return self._programs[linktype]


def _empty_file(linktype: int) -> cypcap.Pcap:
    """Return libpcap's view of an empty file; for one, it knows the address families of all systems in BSD headers."""
    descriptor = os.memfd_create("pcap")
    try:
        os.write(descriptor, _PCAP_HEADER.pack(_PCAP_MAGIC, 2, 4, 0, 0, _SNAPLEN, linktype))
        return cypcap.open_offline(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
