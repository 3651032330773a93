"""The lives of processes as the kernel tells them, so that those that are gone are still fully described."""

from __future__ import annotations

import functools
import os
from collections import OrderedDict
from dataclasses import dataclass, field

from pktproc.kernel.ebpf.events import ARGUMENT_BYTES, Kind, ProcessEvent, ProcessFacts
from pktproc.kernel.processes import NS_PER_S, ProcessReader, boot_time_ns, full_name
from pktproc.model import Process, ProcessId

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
NS_PER_TICK = NS_PER_S // _TICKS_PER_SECOND
# As many processes as a host has at a time, and those that ended lately.
_MOST_LIVES = 1 << 15
_MOST_ANCESTORS = 64
# A process can rename itself for ever.
_MOST_NAMES = 64


@dataclass(slots=True)
class _Life:
    """What is known of a process: the program that it runs, and where it comes from."""

    start_ns: int
    exe: str | None = None
    arguments: tuple[str, ...] | None = None
    parent_name: str | None = None
    container_id: str | None = None
    unit: str | None = None
    ancestors: tuple[ProcessId, ...] = ()
    cgroup: int = 0
    name: str = ""
    described: dict[tuple[bytes, int, int], Process] = field(default_factory=dict)


class Lives:
    """Describe processes by events; `reader` tells what there was before the first of them.

    `cmdline=False` leaves command lines out.
    """

    def __init__(self, reader: ProcessReader, *, cmdline: bool = True) -> None:
        self._reader = reader
        self._cmdline = cmdline
        self._boot_ns = boot_time_ns()
        self._lives: OrderedDict[int, _Life] = OrderedDict()

    def take(self, event: ProcessEvent) -> None:
        """Take note of what happened to a process."""
        facts = event.process
        if event.kind == Kind.FORKED:
            self._born(facts)
        elif event.kind == Kind.EXECUTED:
            life = self._life(facts)
            life.exe = _resolved(event.path) if life.container_id is None else _text(event.path)
            life.arguments = _words(event.arguments, event.argument_bytes)
            life.described = {}

    def describe(self, facts: ProcessFacts) -> Process:
        """Return a process as it was at an event."""
        life = self._life(facts)
        likeness = facts.comm, facts.uid, facts.ppid
        known = life.described.get(likeness)
        if known is None:
            if len(life.described) >= _MOST_NAMES:
                life.described = {}
            known = life.described[likeness] = self._describe(life, facts)
            life.name = known.name
        return known

    def identity(self, facts: ProcessFacts) -> ProcessId:
        """Return which process facts are of."""
        return ProcessId(facts.pid, facts.start_ns // NS_PER_TICK)

    def _describe(self, life: _Life, facts: ProcessFacts) -> Process:
        start_ticks = facts.start_ns // NS_PER_TICK
        return Process(
            pid=facts.pid,
            start_ticks=start_ticks,
            start_ns=self._boot_ns + start_ticks * NS_PER_TICK,
            name=full_name(facts.comm, life.exe, life.arguments),
            exe=life.exe,
            cmdline=life.arguments if self._cmdline else None,
            uid=facts.uid,
            ppid=facts.ppid,
            parent_name=life.parent_name,
            container_id=life.container_id,
            ancestors=life.ancestors,
            unit=life.unit,
        )

    def _life(self, facts: ProcessFacts) -> _Life:
        life = self._lives.get(facts.pid)
        if life is None or life.start_ns != facts.start_ns:
            life = self._keep(facts, self._read(facts))
        return life

    def _keep(self, facts: ProcessFacts, life: _Life) -> _Life:
        self._lives[facts.pid] = life
        self._lives.move_to_end(facts.pid)
        while len(self._lives) > _MOST_LIVES:
            self._lives.popitem(last=False)
        return life

    def _read(self, facts: ProcessFacts) -> _Life:
        """Return what /proc tells of a process that is older than what was heard of it."""
        process = self._reader.read(facts.pid)
        if process is None or process.id != self.identity(facts):
            return _Life(facts.start_ns, cgroup=facts.cgroup)
        return _Life(
            facts.start_ns,
            process.exe,
            process.cmdline,
            process.parent_name,
            process.container_id,
            process.unit,
            process.ancestors,
            facts.cgroup,
            process.name,
        )

    def _born(self, facts: ProcessFacts) -> None:
        """Let a child run the program of its parent until it begins another."""
        parent = self._lives.get(facts.ppid)
        if parent is None:
            before = self._reader.read(facts.ppid)
            if before is None:
                self._keep(facts, _Life(facts.start_ns, cgroup=facts.cgroup))
                return
            start_ns = before.start_ticks * NS_PER_TICK
            parent = _Life(start_ns, before.exe, before.cmdline, before.parent_name, before.container_id, before.unit)
            parent.ancestors, parent.cgroup, parent.name = before.ancestors, facts.cgroup, before.name
        parent_id = ProcessId(facts.ppid, parent.start_ns // NS_PER_TICK)
        life = _Life(
            facts.start_ns,
            parent.exe,
            parent.arguments,
            parent.name or _text(facts.comm),
            parent.container_id if parent.cgroup == facts.cgroup else None,
            parent.unit if parent.cgroup == facts.cgroup else None,
            (parent_id, *parent.ancestors)[:_MOST_ANCESTORS],
            facts.cgroup,
        )
        self._keep(facts, life)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


@functools.lru_cache(maxsize=4096)
def _resolved(path: bytes) -> str | None:
    """Return a program's path without symbolic links, as /proc/PID/exe has it; None for a relative one."""
    return _text(os.path.realpath(path)) if path.startswith(b"/") else None


def _words(arguments: bytes, length: int) -> tuple[str, ...] | None:
    """Return a command line; of one that was cut the words that are whole."""
    if not arguments:
        return None
    words = arguments.removesuffix(b"\0").split(b"\0")
    if length > ARGUMENT_BYTES and len(words) > 1:
        words = words[:-1]
    return tuple(map(_text, words))
