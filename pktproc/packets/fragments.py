"""IP fragments after the first: they carry no ports, so those of their datagram's first fragment are kept for them."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from pktproc.packets.batch import Column, PacketBatch
from pktproc.packets.columns import Columns
from pktproc.packets.icmp import NO_ICMP, is_error
from pktproc.packets.network import FIRST_FRAGMENT

DEFAULT_MAXSIZE = 16_384
"""Datagrams remembered: about 8 MB, far more than a host has in reassembly at once."""

DEFAULT_LIFETIME_NS = 30_000_000_000
"""How long Linux waits for the rest of an IPv4 datagram (net.ipv4.ipfrag_time; RFC 791 section 3.2 leaves it open)."""

_ANY_PROTOCOL = -1


class _Datagram(NamedTuple):
    """What makes fragments belong together (RFC 791 section 3.2; RFC 8200 section 4.5 leaves the protocol out)."""

    netns: int
    network: int
    source: bytes
    destination: bytes
    protocol: int
    identification: int


class _Transport(NamedTuple):
    """What a first fragment says about its datagram."""

    time_ns: int
    protocol: int
    source_port: int
    destination_port: int
    ports_known: bool
    icmp_type: int
    icmp_code: int


class FragmentTable:
    """Remember the first fragments of datagrams for the later ones, across blocks.

    At most `maxsize` datagrams are kept, each for `lifetime_ns` of packet time; `evictions` counts those that had
    to go before their time. A second first fragment of the same name replaces the one before.
    """

    def __init__(self, maxsize: int = DEFAULT_MAXSIZE, lifetime_ns: int = DEFAULT_LIFETIME_NS) -> None:
        self._maxsize = maxsize
        self._lifetime_ns = lifetime_ns
        self._firsts: OrderedDict[_Datagram, _Transport] = OrderedDict()
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._firsts)

    def resolve(self, batch: PacketBatch, columns: Columns, identification: Column) -> None:
        """Fill in the transport columns of the block's later fragments.

        `identification` int64 has one entry for each packet. A later fragment takes the first fragment that came
        before it, else the next one in the block; without one it stays as it is, `ports_known` False.
        """
        rows = np.flatnonzero(columns.fragment)
        waiting: list[tuple[int, _Datagram, int]] = []
        for row, name, time_ns in zip(
            rows.tolist(), _names(batch, columns, identification, rows), batch.time_ns[rows].tolist(), strict=True
        ):
            if columns.fragment[row] == FIRST_FRAGMENT:
                self._learn(name, _transport(columns, row, time_ns))
            elif not columns.ports_known[row] and not self._fill(columns, row, name, time_ns):
                waiting.append((row, name, time_ns))
        for row, name, time_ns in waiting:
            self._fill(columns, row, name, time_ns)

    def _learn(self, name: _Datagram, first: _Transport) -> None:
        self._firsts.pop(name, None)
        self._firsts[name] = first
        while len(self._firsts) > self._maxsize:
            _, oldest = self._firsts.popitem(last=False)
            self.evictions += self._alive(oldest, first.time_ns)

    def _fill(self, columns: Columns, row: int, name: _Datagram, time_ns: int) -> bool:
        first = self._firsts.get(name)
        if first is None or not self._alive(first, time_ns):
            return False
        columns.protocol[row] = first.protocol
        columns.source_port[row] = first.source_port
        columns.destination_port[row] = first.destination_port
        columns.ports_known[row] = first.ports_known
        columns.icmp_type[row] = first.icmp_type
        columns.icmp_code[row] = first.icmp_code
        return True

    def _alive(self, first: _Transport, time_ns: int) -> bool:
        # Packets of several interfaces arrive slightly out of order, and clocks are set back.
        return abs(time_ns - first.time_ns) <= self._lifetime_ns


def _names(batch: PacketBatch, columns: Columns, identification: Column, rows: Column) -> list[_Datagram]:
    """Return the name of the datagram of each given row."""
    return [
        _Datagram(
            batch.interfaces[interface].netns,
            network,
            source,
            destination,
            protocol if network == 4 else _ANY_PROTOCOL,
            ident,
        )
        for interface, network, source, destination, protocol, ident in zip(
            batch.interface[rows].tolist(),
            columns.network[rows].tolist(),
            map(bytes, columns.source_address[rows]),
            map(bytes, columns.destination_address[rows]),
            columns.protocol[rows].tolist(),
            identification[rows].tolist(),
            strict=True,
        )
    ]


def _transport(columns: Columns, row: int, time_ns: int) -> _Transport:
    protocol, icmp_type = int(columns.protocol[row]), int(columns.icmp_type[row])
    # The later fragments of an ICMP error quote nothing that could be decoded, so they must not look like one.
    quoting = is_error(protocol, icmp_type)
    return _Transport(
        time_ns=time_ns,
        protocol=protocol,
        source_port=int(columns.source_port[row]),
        destination_port=int(columns.destination_port[row]),
        ports_known=bool(columns.ports_known[row]),
        icmp_type=NO_ICMP if quoting else icmp_type,
        icmp_code=NO_ICMP if quoting else int(columns.icmp_code[row]),
    )
