"""Packets from any number of interfaces and namespaces, merged into batches in order of time."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pktproc.capture.blocks import Frames
from pktproc.capture.filter import ANY
from pktproc.capture.scout import Scout, open_scout
from pktproc.capture.tap import Statistics, Tap
from pktproc.kernel import namespaces
from pktproc.model import Interface
from pktproc.packets.batch import Bytes, Column, PacketBatch

DEFAULT_SNAPLEN = 262144
DEFAULT_BUFFER_BYTES = 32 << 20
# The kernel hands a block over when it is full or this old. First packets do not wait for it: see `scout`.
BLOCK_TIMEOUT_MS = 4
# Its timer counts in ticks, which are 10 ms long at the most.
_SURELY_HANDED_OVER_NS = 50_000_000


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    """Say what to capture: names of interfaces (`any` for all), of namespaces (none for the current one).

    `expression` is a pcap-filter(7); `way` is `in`, `out` or `inout`.
    """

    interfaces: tuple[str, ...] = (ANY,)
    netns: tuple[str, ...] = ()
    expression: str = ""
    snaplen: int = DEFAULT_SNAPLEN
    promiscuous: bool = True
    buffer_bytes: int = DEFAULT_BUFFER_BYTES
    timeout_ms: int = BLOCK_TIMEOUT_MS
    way: str = "inout"


class ScoutPost(NamedTuple):
    """A scout and the tap beside which it listens."""

    scout: Scout
    tap: Tap


class LiveCapture:
    """Capture packets until closed.

    `posts` are the scouts, once they were sent, `namespaces` the inode numbers of those captured in, `notes` what the
    user should know (a refused ring). All packets that were captured before `handed_over_ns`, since the epoch, have
    been read.
    """

    def __init__(self, options: CaptureOptions) -> None:
        self._held: list[int] = []
        self.taps: list[Tap] = []
        self.handed_over_ns = 0
        self.posts: list[ScoutPost] = []
        self._options = options
        self._spaces: list[Path | None] = []
        self._interfaces: list[Interface] = []
        self._places: dict[tuple[int, int], int] = {}
        try:
            for space in self._hold(options.netns) or [None]:
                for name in dict.fromkeys(options.interfaces):  # or its packets would count twice
                    self.taps.append(_tap(name, space, options))
                    self._spaces.append(space)
        except BaseException:
            self.close()
            raise
        self.namespaces = frozenset(tap.netns for tap in self.taps)
        self.notes = [
            f"{tap.name}: no capture ring ({tap.ring_refused}); reading packets one by one, which is slower"
            for tap in self.taps
            if tap.ring_refused
        ]
        self._by_fd = {tap.fileno(): tap for tap in self.taps}
        self._poll = select.poll()
        for descriptor in self._by_fd:
            self._poll.register(descriptor, select.POLLIN | select.POLLERR)
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._held.append(self._wake)
        self._poll.register(self._wake, select.POLLIN)

    def wait(self, timeout_ms: float) -> None:
        """Wait until packets can be read, at most `timeout_ms`; raise `CaptureError` if an interface is gone."""
        for descriptor, event in self._poll.poll(timeout_ms):
            if descriptor == self._wake:
                os.eventfd_read(self._wake)
            elif event & select.POLLERR:
                self._by_fd[descriptor].check()
        for tap in self.taps:
            if tap.is_down:
                tap.check()

    def read(self) -> PacketBatch | None:
        """Return the packets that are ready, in order of time; None if there are none."""
        begin_ns = time.time_ns() - _SURELY_HANDED_OVER_NS
        read = [(tap, tap.read()) for tap in self.taps]
        self.handed_over_ns = min(begin_ns if frames is None else int(frames.time_ns[-1]) for _, frames in read)
        parts = [(tap, frames) for tap, frames in read if frames is not None]
        if not parts:
            return None
        batches = [self._batch(tap, frames) for tap, frames in parts]
        return batches[0] if len(batches) == 1 else _merge(batches)

    def statistics(self) -> Statistics:
        """Return how many packets passed the filters and how many of them the kernel dropped."""
        every = [tap.statistics() for tap in self.taps]
        return Statistics(sum(one.received for one in every), sum(one.dropped for one in every))

    def interrupt(self) -> None:
        """End the wait that goes on, or else the next one; any thread and handlers of signals may call it."""
        if self._held:
            os.eventfd_write(self._wake, 1)

    def send_scouts(self) -> None:
        """Open scouts beside the taps, for engines to which nobody tells who opens a flow."""
        if self._options.way == "in":
            return
        for tap, space in zip(self.taps, self._spaces, strict=True):
            if scout := open_scout(tap.name, space, self._options.expression):
                self.posts.append(ScoutPost(scout, tap))

    def _hold(self, netns: tuple[str, ...]) -> list[Path | None]:
        """Return paths of namespaces that stay good, since a name can be removed while its namespace lives on."""
        for name in netns:
            self._held.append(namespaces.hold(namespaces.named(name)))
        return [Path(f"/proc/self/fd/{held}") for held in self._held]

    def close(self) -> None:
        """Stop capturing."""
        held, self._held = self._held, []  # at first, so that no handler of a signal writes to what is closed
        for tap in self.taps:
            tap.close()
        for post in self.posts:
            post.scout.close()
        for descriptor in held:
            os.close(descriptor)
        self.taps, self.posts = [], []

    def _batch(self, tap: Tap, frames: Frames) -> PacketBatch:
        interface = np.full(len(frames.ifindex), self._place(tap, int(frames.ifindex[0])), np.int64)
        if (frames.ifindex != frames.ifindex[0]).any():
            met, position = np.unique(frames.ifindex, return_inverse=True)
            interface = np.array([self._place(tap, ifindex) for ifindex in met.tolist()], np.int64)[position]
        return PacketBatch(
            data=frames.data,
            offset=frames.offset,
            captured_bytes=frames.captured_bytes,
            wire_bytes=frames.wire_bytes,
            time_ns=frames.time_ns,
            interface=interface,
            packet_type=frames.packet_type,
            linktype=frames.linktype,
            interfaces=self.interfaces,
        )

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """Return the interfaces on which packets were seen."""
        return tuple(self._interfaces)

    def place(self, netns: int, ifindex: int) -> int:
        """Return the position in `interfaces` of one on which packets were seen; KeyError for others."""
        return self._places[netns, ifindex]

    def _place(self, tap: Tap, ifindex: int) -> int:
        key = (tap.netns, ifindex)
        if key not in self._places:
            if ifindex not in tap.interfaces:
                tap.refresh()
            known = tap.interfaces.get(ifindex)
            self._places[key] = len(self._interfaces)
            self._interfaces.append(known or Interface(f"if{ifindex}", ifindex, tap.netns))
        return self._places[key]


def _tap(name: str, space: Path | None, options: CaptureOptions) -> Tap:
    return Tap(
        name,
        space,
        expression=options.expression,
        snaplen=options.snaplen,
        promiscuous=options.promiscuous,
        buffer_bytes=options.buffer_bytes,
        timeout_ms=options.timeout_ms,
        way=options.way,
    )


def _merge(batches: Sequence[PacketBatch]) -> PacketBatch:
    sizes = [len(batch.data) for batch in batches]
    bases = np.cumsum([0, *sizes[:-1]])
    offset = np.concatenate([batch.offset + base for batch, base in zip(batches, bases, strict=True)])
    time_ns = np.concatenate([batch.time_ns for batch in batches])
    order = np.argsort(time_ns, kind="stable")

    def column(name: str) -> Column:
        joined: Column = np.concatenate([getattr(batch, name) for batch in batches])
        return joined[order]

    data: Bytes = np.concatenate([batch.data for batch in batches])
    return PacketBatch(
        data=data,
        offset=offset[order],
        captured_bytes=column("captured_bytes"),
        wire_bytes=column("wire_bytes"),
        time_ns=time_ns[order],
        interface=column("interface"),
        packet_type=column("packet_type"),
        linktype=column("linktype"),
        interfaces=max((batch.interfaces for batch in batches), key=len),
    )
