"""The flow cache of one packet socket: flows whose packets the kernel counts instead of handing them over.

What the program does stands in `flow_cache.bpf.c`, whose layouts are mirrored here.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from importlib import resources
from typing import NamedTuple

import numpy as np
from cachetools import TTLCache

from pktproc.errors import EngineError
from pktproc.kernel.ebpf.classic_filter import Classic, followed
from pktproc.kernel.ebpf.libbpf import BpfObject, Log, Map, load_socket_filter
from pktproc.model import DATAGRAM, V4_MAPPED_PREFIX, Direction, Flow, Protocol
from pktproc.packets.batch import Column

OBJECT = "flow_cache.bpf.o"
MOST_FLOWS = 1 << 16
"""Flows that the kernel counts at once; the packets of others are handed over."""
LAYERS = ("wire", "ip", "payload")
WAYS = ("inout", "in", "out")

TALLY = np.dtype(
    [
        ("packets", "u8", 2),
        ("bytes", "u8", 2),
        ("first_ns", "u8"),
        ("last_ns", "u8"),
        ("ifindex", "u4"),
        ("reading", "u4"),
        ("outgoing", "u1"),
        ("counts", "u1"),
        ("over", "u1"),
        ("unused", "V5"),
    ]
)
"""struct tally"""
SHARED = np.dtype(
    [
        ("boundary", "u8"),
        ("over", "u8"),
        ("reading", "u4"),
        ("snaplen", "u4"),
        ("layer", "u1"),
        ("way", "u1"),
        ("passes", "u1"),
        ("unused", "V5"),
    ]
)
"""What the program shares, its .bss."""
_KEY = struct.Struct("!16s16sHHBBH")  # struct flow
_MAPPED_BYTES = len(V4_MAPPED_PREFIX)
_PROTOCOLS = frozenset({int(Protocol.TCP), int(Protocol.UDP)})
_DIRECTIONS = frozenset({int(Direction.INCOMING), int(Direction.OUTGOING), int(Direction.LOOPBACK)})
_IDLE_NS = 5_000_000_000
"""After so long without packets a flow gives its place to others."""
_NEVER = np.iinfo(np.int64).max
_ELSEWHERE_FOR_NS = 10_000_000_000
"""How long a flow is left alone that was seen on several interfaces."""
_ENDED, _ELSEWHERE, _REMOVED = 1, 2, 3  # enum over
_NO_NUMBERS: set[int] = set()
_RESTING_NS = 1_000_000_000
"""So long afterwards no processor is still counting a packet of a flow that was given up."""


class Reading(NamedTuple):
    """What came since the reading before; an entry is what a flow had on one side of the boundary.

    `flow_of` (int64) says which of `flows` an entry is of; those of one flow are in order of time. `after` (bool) says
    that it came at or after the boundary. `packets` and `bytes` are int64, as are the monotonic times of the first and
    the last packet of the flow on either side.
    """

    flows: list[Flow]
    flow_of: Column
    after: Column
    packets: Column
    bytes: Column
    first_ns: Column
    last_ns: Column


def can_count(flow: Flow) -> bool:
    """Say whether the program can tell the packets of a flow, which have Ethernet headers, from all others."""
    return flow.protocol in _PROTOCOLS and flow.direction in _DIRECTIONS and flow.ports_known and flow.quoted is None


class FlowCache:
    """Load the program; `descriptor` is it, to be attached to a packet socket (SO_ATTACH_BPF, socket(7)).

    `layer` is one of `LAYERS`, `way` one of `WAYS`; `snaplen` bytes of each packet that is not counted are handed over.
    With an `expression`, a classic BPF program, packets that it does not take are neither counted nor handed over.
    `clock` returns monotonic nanoseconds, as `now_ns` is everywhere here. `packets` says how many were counted. Raise
    `EngineError` where the kernel refuses.
    """

    def __init__(
        self,
        layer: str,
        way: str,
        snaplen: int,
        clock: Callable[[], int],
        expression: Sequence[Classic] | None = None,
    ) -> None:
        self.packets = 0
        with closing(Log()), ExitStack() as opened:
            self._object = BpfObject(resources.files("pktproc.kernel.ebpf").joinpath(OBJECT).read_bytes())
            opened.callback(self._object.close)
            self._object.load()
            self._keys = Map(self._object.map_descriptor("flows"))
            self.descriptor = self._object.program_descriptor("count")
            if expression is not None:
                self.descriptor = self._behind(expression, snaplen)
                opened.callback(os.close, self.descriptor)
            tallies = mmap.mmap(self._object.map_descriptor("tallies"), MOST_FLOWS * TALLY.itemsize)
            shared = mmap.mmap(self._object.map_descriptor(".bss"), mmap.PAGESIZE)
            self._opened = opened.pop_all()
        self._maps = tallies, shared
        self._tallies = np.frombuffer(tallies, TALLY)
        self._shared = np.frombuffer(shared, SHARED, 1)[0]
        self._shared["snaplen"] = snaplen
        self._shared["layer"], self._shared["way"] = LAYERS.index(layer), WAYS.index(way)
        self._clock = clock
        self._read_ns = clock()
        self._over = 0
        self._reading = self._shared["reading"] = 1
        self._numbers: dict[bytes, int] = {}
        self._on_port: dict[tuple[int, int], set[int]] = {}
        self._on_ports_of = _PROTOCOLS if expression is not None else DATAGRAM
        self._elsewhere: TTLCache[bytes, bool] = TTLCache(MOST_FLOWS, _ELSEWHERE_FOR_NS, clock)
        self._flows: list[Flow | None] = []
        self._free: list[int] = []
        self._resting: deque[tuple[int, int]] = deque()
        self._packets = np.zeros((MOST_FLOWS, 2), np.int64)
        self._bytes = np.zeros((MOST_FLOWS, 2), np.int64)
        self._met_ns = np.full(MOST_FLOWS, _NEVER)

    def _behind(self, expression: Sequence[Classic], snaplen: int) -> int:
        """Return a program that lets the counting one have the packets which a classic one takes."""
        array = self._object.map_descriptor("following")
        Map(array).put((0).to_bytes(4, sys.byteorder), self.descriptor.to_bytes(4, sys.byteorder))
        return load_socket_filter(followed(expression, array, snaplen))

    @property
    def is_in_use(self) -> bool:
        """Say whether there may be something to read."""
        return bool(self._numbers or self._resting)

    def __contains__(self, flow: Flow) -> bool:
        return _key(flow) in self._numbers

    @property
    def has_given_up(self) -> bool:
        """Say whether a flow was given up since the last reading: what it had came before what is handed over of it."""
        return int(self._shared["over"]) != self._over

    def put(self, flow: Flow) -> int | None:
        """Watch a flow, of which all is still handed over until `start`; return its place, None if there is none.

        Nor is there any for a flow that is or lately was seen on another interface. Raise `EngineError` where the
        kernel refuses.
        """
        key = _key(flow)
        if key in self._numbers or key in self._elsewhere:
            return None
        if self._free:
            number = self._free.pop()
        elif len(self._flows) < MOST_FLOWS:
            number = len(self._flows)
            self._flows.append(None)
        else:
            return None
        tally = self._tallies[number]
        tally["ifindex"], tally["outgoing"] = flow.ifindex, flow.direction == Direction.OUTGOING
        tally["counts"] = tally["over"] = 0
        try:
            self._keys.put(key, number.to_bytes(4, sys.byteorder))
        except EngineError:
            self._free.append(number)
            raise
        self._flows[number] = flow
        self._numbers[key] = number
        self._met_ns[number] = self._read_ns
        if flow.protocol in self._on_ports_of:
            for port in (flow.source_port, flow.destination_port):
                self._on_port.setdefault((flow.protocol, port), set()).add(number)
        return number

    def start(self, number: int, flow: Flow) -> None:
        """Count a flow at its place from now on: all that came before it was put there is known."""
        if self._flows[number] is flow:
            self._tallies[number]["counts"] = 1

    def remove(self, flow: Flow) -> None:
        """Hand the packets of a flow over again."""
        number = self._numbers.get(_key(flow))
        if number is not None and self._flows[number] == flow:
            self._take_out(number)

    def leave(self, flow: Flow) -> None:
        """Hand over the packets of a flow that was seen elsewhere, whatever its interface, for a while."""
        key = _key(flow)
        number = self._numbers.get(key)
        if number is not None:
            self._take_out(number)
            self._elsewhere[key] = True

    def ports(self) -> list[tuple[int, int]]:
        """Return the protocols and ports of the watched flows that nothing in their packets need end.

        These are of datagrams, and with an `expression`, which may keep SYNs and RSTs away, of TCP, too.
        """
        return list(self._on_port)

    def flows_on(self, port: tuple[int, int]) -> list[Flow]:
        """Return such flows from or to a protocol and port."""
        return [flow for number in self._on_port.get(port, ()) if (flow := self._flows[number]) is not None]

    def _take_out(self, number: int) -> bytes | None:
        """Watch a flow no more; return its key, None if that was done already."""
        flow = self._flows[number]
        if flow is None or self._numbers.get(key := _key(flow)) != number:
            return None
        del self._numbers[key]
        for port in ((flow.protocol, flow.source_port), (flow.protocol, flow.destination_port)):
            self._on_port.get(port, _NO_NUMBERS).discard(number)
            if not self._on_port.get(port, True):
                del self._on_port[port]
        self._tallies[number]["over"] = _REMOVED
        self._keys.remove(key)
        self._met_ns[number] = _NEVER
        self._resting.append((self._clock(), number))
        return key

    def divide_at(self, boundary_ns: int, now_ns: int) -> None:
        """Keep apart what comes before and after a time to come; to be called when the one before is over and read."""
        boundary = int(self._shared["boundary"])
        place = (boundary ^ (now_ns >= boundary)) & 1
        self._shared["boundary"] = boundary_ns & ~1 | place

    def hand_over_all(self) -> None:
        """Count nothing any more."""
        self._shared["passes"] = 1

    def read(self, now_ns: int) -> Reading | None:
        """Return what came since the last reading; None if nothing did."""
        self._over = int(self._shared["over"])
        before, self._reading = self._reading, self._reading + 1
        self._shared["reading"] = self._reading & 0xFFFFFFFF
        used = len(self._flows)
        seen = self._tallies[:used].copy()
        packets = seen["packets"].astype(np.int64) - self._packets[:used]
        sizes = seen["bytes"].astype(np.int64) - self._bytes[:used]
        numbers = np.flatnonzero((packets != 0).any(axis=1) | (sizes != 0).any(axis=1))
        numbers = numbers[[self._flows[number] is not None for number in numbers.tolist()]]
        found = None
        if len(numbers):
            self._packets[numbers] += packets[numbers]
            self._bytes[numbers] += sizes[numbers]
            self.packets += int(packets[numbers].sum())
            self._met_ns[numbers[self._met_ns[numbers] != _NEVER]] = now_ns
            # What is touched while it is copied tells of its first packet no more.
            first_ns = np.where(
                seen["reading"][numbers] == before & 0xFFFFFFFF, seen["first_ns"][numbers], self._read_ns
            )
            last_ns = seen["last_ns"][numbers].astype(np.int64)
            flows = [flow for number in numbers.tolist() if (flow := self._flows[number]) is not None]
            found = self._divided(
                flows, packets[numbers], sizes[numbers], np.minimum(first_ns.astype(np.int64), last_ns), last_ns
            )
        self._read_ns = now_ns
        self._tidy(seen["over"])
        return found

    def _divided(self, flows: list[Flow], packets: Column, sizes: Column, first_ns: Column, last_ns: Column) -> Reading:
        """Make two entries of what came on both sides of the boundary."""
        before = int(self._shared["boundary"]) & 1
        packets, sizes = packets[:, [before, 1 - before]], sizes[:, [before, 1 - before]]
        flow_of, side = np.nonzero((packets != 0) | (sizes != 0))
        packets, sizes = packets[flow_of, side], sizes[flow_of, side]
        return Reading(flows, flow_of, side == 1, packets, sizes, first_ns[flow_of], last_ns[flow_of])

    def _tidy(self, over: Column) -> None:
        """Take out what was given up or had no packets for long; use places again that have rested."""
        for number in np.flatnonzero((over == _ENDED) | (over == _ELSEWHERE)).tolist():
            key = self._take_out(number)
            if key is not None and over[number] == _ELSEWHERE:
                self._elsewhere[key] = True
        for number in np.flatnonzero(self._met_ns[: len(self._flows)] < self._read_ns - _IDLE_NS).tolist():
            self._take_out(number)
        while self._resting and self._resting[0][0] + _RESTING_NS < self._read_ns:
            _, number = self._resting.popleft()
            self._flows[number] = None
            self._free.append(number)

    def close(self) -> None:
        """Unload the program; a socket that it is attached to keeps it."""
        del self._tallies, self._shared
        for one in self._maps:
            one.close()
        self._opened.close()


def _key(flow: Flow) -> bytes:
    source, destination, version = flow.source_address, flow.destination_address, 6
    if source.startswith(V4_MAPPED_PREFIX) and destination.startswith(V4_MAPPED_PREFIX):
        source, destination, version = source[_MAPPED_BYTES:], destination[_MAPPED_BYTES:], 4
    return _KEY.pack(source, destination, flow.source_port, flow.destination_port, flow.protocol, version, 0)
