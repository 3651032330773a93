"""The engine `ebpf`: programs in the kernel tell who uses which socket; for the rest it is the engine `netlink`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterator
from functools import partial
from itertools import compress, groupby
from typing import cast

from pktproc.attribution.engine import Told, Use, Way
from pktproc.kernel.ebpf.events import Event, Kind, ProcessEvent, SocketEvent, process_facts
from pktproc.kernel.ebpf.lives import NS_PER_TICK, Lives
from pktproc.kernel.ebpf.programs import Programs
from pktproc.kernel.netlink_engine import NetlinkEngine
from pktproc.kernel.processes import ProcessReader
from pktproc.kernel.procfs_engine import ProcfsEngine
from pktproc.model import Process, ProcessId

# Processes as they were at events, remembered until one of them runs another program.
_MOST_DESCRIBED = 1 << 12
_MOST_SEEN = 1 << 16

_WAYS: dict[int, Way] = {
    Kind.BOUND: Way.BOUND,
    Kind.CONNECTS: Way.CONNECTS,
    Kind.GIVES_UP: Way.GIVES_UP,
    Kind.SENT: Way.SENT,
    Kind.RECEIVED: Way.RECEIVED,
    Kind.ARRIVES: Way.ARRIVES,
    Kind.COMES_IN: Way.COMES_IN,
    Kind.CLOSED: Way.CLOSED,
}
_use = partial(tuple.__new__, Use)  # a third of what the constructor costs
# Of whom a user was told, the end is told; not of what was only bound, or reached and never read.
_WITH_USERS = frozenset({Kind.SENT, Kind.RECEIVED, Kind.CLOSED})


class _Described(dict["bytes | None", "Process | None"]):
    """The processes of events by the bytes of their facts; None for the kernel, and where nobody is told of."""

    def __init__(self, lives: Lives) -> None:
        self._lives = lives

    def __missing__(self, data: bytes | None) -> Process | None:
        if len(self) >= _MOST_DESCRIBED:
            self.clear()
        facts = process_facts(data) if data else None
        described = self[data] = None if facts is None or facts.kernel else self._lives.describe(facts)
        return described


class EbpfEngine(NetlinkEngine):
    """Tell what the programs see; answer for sockets that are older than they are as `netlink` does.

    With `packets` it is ready for those that are captured; to tell of sockets alone costs a host's packets less.
    `follows_packets` says whether uses are told as packets leave, which takes that, or a kernel without other ways.
    """

    name = "ebpf"
    evidence = "ebpf"
    fallback = NetlinkEngine.name

    def __init__(self, *, cmdline: bool = True, packets: bool = True) -> None:
        self._programs = Programs()
        try:
            self.follows_packets = self._programs.attend_packets() if packets else self._programs.attend_sockets()
            super().__init__(floor=ProcfsEngine(cmdline=cmdline, listing=self._held))
        except BaseException:
            self._programs.close()
            raise
        self._lives = Lives(ProcessReader(), cmdline=cmdline)
        self._cookies: OrderedDict[int, None] = OrderedDict()
        self._untold = Told()
        self._described = _Described(self._lives)
        self._lost = 0
        for hook, why in self._programs.lacking.items():
            self._limit(f"without the kernel's {hook.program} it is not known {hook.loss}: {why}")

    def told(self) -> Told:
        """Return what the programs saw since the last call."""
        before, self._untold = self._untold, Told()
        if before.lost:  # what is told from then on must not be lost with it
            return before
        now = self._hear()
        return Told([*before.uses, *now.uses], [*before.exits, *now.exits], now.lost)

    def _seen_otherwise(self) -> Container[int]:
        """Return the cookies of sockets that the programs tell of: they tell that a socket is closed before it ends."""
        self._untold = self.told()
        return self._cookies

    def _hear(self) -> Told:
        uses: list[Use] = []
        exits: list[tuple[ProcessId, int]] = []
        for kind, run in groupby(self._events(), type):
            if kind is SocketEvent:
                uses += self._uses(cast("Iterator[SocketEvent]", run))
                continue
            for event in cast("Iterator[ProcessEvent]", run):
                if event.kind == Kind.EXITED:
                    exits.append((self._lives.identity(event.process), event.time_ns))
                else:
                    self._described.clear()
                    self._lives.take(event)
        while len(self._cookies) > _MOST_SEEN:
            self._cookies.popitem(last=False)
        lost = self._programs.lost - self._lost
        if lost:
            self._lost += lost
            self._programs.start_anew()
            self._cookies.clear()  # whose ends are not told either until they are told of anew
        return Told(uses, exits, lost)

    def _held(self) -> dict[int, tuple[ProcessId, ...]] | None:
        """Return which processes hold which inodes of sockets, None where the kernel does not tell."""
        holdings = self._programs.holdings()
        if holdings is None:
            return None
        held: dict[int, tuple[ProcessId, ...]] = {}
        alone: dict[tuple[int, int], tuple[ProcessId, ...]] = {}
        ticks = (holdings["start_ns"] // NS_PER_TICK).tolist()
        for inode, pid, start in zip(holdings["inode"].tolist(), holdings["pid"].tolist(), ticks, strict=True):
            holder = alone.get((pid, start))
            if holder is None:
                holder = alone[pid, start] = (ProcessId(pid, start),)
            others = held.get(inode)
            if others is None:
                held[inode] = holder
            elif holder[0] not in others:
                held[inode] = others + holder
        return held

    def _events(self) -> Iterator[Event]:
        more = True
        while more:  # but not for what comes in the meantime, of which there may be no end
            events, more = self._programs.read()
            yield from events

    def _uses(self, events: Iterator[SocketEvent]) -> Iterator[Use]:
        """Return what events tell that come one after another without any of the life of a process."""
        times, kinds, cookies, previous, ends, facts = zip(*events, strict=True)
        self._cookies.update(dict.fromkeys(compress(cookies, map(_WITH_USERS.__contains__, kinds))))
        ways, processes = map(_WAYS.__getitem__, kinds), map(self._described.__getitem__, facts)
        return map(_use, zip(times, ways, cookies, ends, processes, previous, strict=True))

    def close(self) -> None:
        """Detach the programs and close the netlink sockets."""
        self._programs.close()
        super().close()
