"""The programs, loaded: which hooks this kernel has, and what is lost without the others."""

from __future__ import annotations

import mmap
import os
import socket
import struct
import sys
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from pktproc.errors import EngineError, Unsupported
from pktproc.kernel.cgroups import cgroup_root
from pktproc.kernel.ebpf.events import EXECUTION, HOLDING, Event, Kind, decode
from pktproc.kernel.ebpf.libbpf import BpfObject, Log, kernel_tracepoints
from pktproc.kernel.ebpf.ring import Ring
from pktproc.packets.batch import Column

Holdings = npt.NDArray[np.void] | None

OBJECT = "pktproc.bpf.o"
MOST_EVENTS = 1 << 17  # as in telling.h
MOST_EXECUTIONS = 1 << 12
_SHARED = struct.Struct("=QQQ")  # told, executed, generation
_GENERATION_AT = 16
_MOST_REFUSALS = 16
# The first namespaces of a host have numbers that are part of the ABI (include/uapi/linux/nsfs.h, *_INIT_INO).
_FIRST_NAMESPACES = {"pid": 0xEFFFFFFC, "cgroup": 0xEFFFFFFB}


@dataclass(frozen=True, slots=True)
class Hook:
    """A place in the kernel that a program is attached to: a tracepoint, one of cgroup v2, or an iterator.

    `loss` is what is not known without it; without one that is `needed` the engine is of no use. One `of` packets tells
    what only those need who name packets, now or from a record, but is called for each packet of a host. One of sockets
    makes up for those where sockets alone are told of. One that stands in for another, `instead_of` it, is not needed
    where the kernel has that.
    """

    program: str
    loss: str
    cgroup: bool = False
    needed: bool = False
    iterator: bool = False
    of: Literal["packets", "sockets", "both"] = "both"
    instead_of: str = ""


_EGRESS = Hook("egress", "who sends", cgroup=True, needed=True, of="packets")
_CONNECTS = Hook("inet_sock_set_state", "who connects, but by following packets", of="sockets")
_SENDS = Hook("sock_send_length", "senders whose packets leave later")
_HOLDERS = Hook("holders", "who holds older sockets, but by a slower look through /proc", iterator=True)
HOOKS = (
    _EGRESS,
    Hook("ingress", "which datagram socket a packet reaches", cgroup=True, of="packets"),
    _CONNECTS,
    Hook("bound_v4", "whose a socket is that was bound and not used yet", cgroup=True),
    Hook("bound_v6", "whose a socket of IPv6 is that was bound and not used yet", cgroup=True),
    Hook("sock_release", "when sockets are closed", cgroup=True),
    _SENDS,
    Hook("sock_recv_length", "who receives datagrams"),
    Hook("net_dev_queue", "who sends through packet sockets", of="packets"),
    Hook("tcp_rcv_space_adjust", "who receives by TCP", instead_of="sock_recv_length"),
    Hook("sched_process_fork", "the program of a child that has not begun another"),
    Hook("sched_process_exec", "program and command line of processes that are gone"),
    Hook("task_rename", "names that processes give themselves"),
    Hook("sched_process_exit", "which of several users of a socket has ended"),
    _HOLDERS,
)


class Told(NamedTuple):
    """Events in order; `more` says that others were behind them."""

    events: list[Event]
    more: bool


class Programs:
    """Load and attach the programs, and read what they tell.

    After loading, `attend_packets` or `attend_sockets` says for what. `attached` are the hooks that are on, `missing`
    maps those that cannot be to the reason. Closing detaches everything.
    """

    def __init__(self) -> None:
        self.missing: dict[Hook, str] = {}
        self._needless: set[Hook] = set()
        self.attached: set[Hook] = set()
        self._tells_sockets_alone = False
        with ExitStack() as opened:
            log = opened.enter_context(closing(Log()))
            _require_host()
            self._directory = _directory(opened)
            self._object = self._load(log)
            opened.enter_context(closing(self._object))
            self._shared = mmap.mmap(self.map_descriptor(".bss"), mmap.PAGESIZE)
            opened.enter_context(closing(self._shared))
            self._ring = Ring(self.map_descriptor("ring"), MOST_EVENTS, lambda: self._counts()[0])
            opened.enter_context(closing(self._ring))
            executions = self.map_descriptor("executions")
            self._executions = mmap.mmap(executions, MOST_EXECUTIONS * EXECUTION.itemsize, prot=mmap.PROT_READ)
            opened.enter_context(closing(self._executions))
            self._lost_executions = 0
            self._holders = 0
            self._attach(log, [hook for hook in HOOKS if hook.of == "both"])
            self._opened = opened.pop_all()

    def attend_packets(self) -> bool:
        """Attach also what is for packets that are captured, now or elsewhere; return True, as they are followed."""
        self._attach_also([hook for hook in HOOKS if hook.of == "packets"])
        return True

    def attend_sockets(self) -> bool:
        """Attach also what tells who connects; return whether that follows packets, for want of anything cheaper."""
        if _SENDS not in self.missing:  # or nothing else would tell who sends datagrams
            self._attach_also([_CONNECTS])
        self._tells_sockets_alone = True
        if _CONNECTS in self.attached:
            return False
        self._attach_also([_EGRESS])
        return True

    @property
    def lacking(self) -> dict[Hook, str]:
        """Return the hooks that would tell more of what is attended to, and why they are off."""
        of = ("both",) if self._tells_sockets_alone else ("both", "packets")
        return {hook: why for hook, why in self.missing.items() if hook.of in of}

    def _attach_also(self, hooks: list[Hook]) -> None:
        with closing(Log()) as log:
            self._attach(log, [hook for hook in hooks if hook not in self.attached])

    @property
    def lost(self) -> int:
        """Return how many events were not read in time so far."""
        return self._ring.lost + self._lost_executions

    def read(self) -> Told:
        """Return what the programs have told since the last call, but no more than 32,768 events."""
        rows, more = self._ring.read()
        if self._tells_sockets_alone:
            rows = rows[~_is_of_raw_socket(rows)]
        begun = rows["cookie"][rows["kind"] == Kind.EXECUTED].tolist()
        return Told(decode(rows, [self._execution(number) for number in begun]), more)

    def _execution(self, number: int) -> Any:
        """Return a program that began, a row of `EXECUTION`; None if too many others began since."""
        place = number % MOST_EXECUTIONS * EXECUTION.itemsize
        data = self._executions[place : place + EXECUTION.itemsize]
        if self._counts()[1] - number > MOST_EXECUTIONS:
            self._lost_executions += 1
            return None
        return np.frombuffer(data, EXECUTION)[0]

    def _counts(self) -> tuple[int, int, int]:
        """Return how many events and executions were begun to be told, and the generation."""
        return _SHARED.unpack_from(self._shared)

    def holdings(self) -> Holdings:
        """Return which processes hold sockets at the moment (`HOLDING`); None where the kernel does not tell."""
        if not self._holders:
            return None
        return np.frombuffer(self._object.iterate(self._holders), HOLDING)

    def map_descriptor(self, name: str) -> int:
        """Return the descriptor of a map of the programs, which belongs to this object."""
        return self._object.map_descriptor(name)

    def start_anew(self) -> None:
        """Have everything told again that was told before."""
        generation = self._counts()[2] + 1
        self._shared[_GENERATION_AT : _GENERATION_AT + 8] = generation.to_bytes(8, sys.byteorder)

    def close(self) -> None:
        """Detach and unload the programs."""
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _load(self, log: Log) -> BpfObject:
        """Load the programs that this kernel takes, leaving out one after another of those that it does not."""
        image = resources.files("pktproc.kernel.ebpf").joinpath(OBJECT).read_bytes()
        tracepoints = [hook for hook in HOOKS if not hook.cgroup and not hook.iterator]
        known = kernel_tracepoints({hook.program for hook in tracepoints})
        self._needless = {hook for hook in tracepoints if hook.instead_of in known}
        for hook in tracepoints:
            if hook.program not in known and hook not in self._needless:
                self._leave_out(hook, "the kernel does not have it")
        for _ in range(_MOST_REFUSALS):
            loaded = BpfObject(image)
            try:
                for hook in self.missing.keys() | self._needless:
                    loaded.leave_out(hook.program)
                log.lines.clear()
                loaded.load()
            except EngineError as error:
                loaded.close()
                refused = [hook for hook in HOOKS if hook.program in log.refused() and hook not in self.missing]
                if not refused:
                    raise
                for hook in refused:
                    self._leave_out(hook, str(error), error)
            except BaseException:
                loaded.close()
                raise
            else:
                return loaded
        raise Unsupported("eBPF: the kernel refuses the programs")

    def _leave_out(self, hook: Hook, why: str, error: EngineError | None = None) -> None:
        if hook.needed:
            raise error or Unsupported(f"eBPF: {hook.program}: {why}")
        self.missing[hook] = why

    def _attach(self, log: Log, hooks: list[Hook]) -> None:
        for hook in hooks:
            if hook in self.missing or hook in self._needless:
                continue
            try:
                log.lines.clear()
                if hook.cgroup:
                    self._object.attach_to_cgroup(hook.program, self._directory)
                elif hook.iterator:
                    self._holders = self._object.attach(hook.program)
                else:
                    self._object.attach(hook.program)
                self.attached.add(hook)
            except EngineError as error:
                self._leave_out(hook, str(error), error)


def _is_of_raw_socket(rows: npt.NDArray[np.void]) -> Column:
    """Say which events are a use of a raw socket, whose protocol would make it look like another, by their own ends."""
    used: Column = (rows["kind"] == Kind.SENT) | (rows["kind"] == Kind.RECEIVED)
    raw: Column = rows["ends"]["type"] == socket.SOCK_RAW
    return used & raw


def _require_host(first: Mapping[str, int] = MappingProxyType(_FIRST_NAMESPACES)) -> None:
    """Raise `Unsupported` inside a container: what the kernel tells is told in the pids and cgroups of the host."""
    for name, number in first.items():
        if Path("/proc/self/ns", name).stat().st_ino != number:
            cure = "run it on the host, or the container with --pid=host --cgroupns=host"
            raise Unsupported(f"eBPF: this is not the {name} namespace of the host: {cure}")


def _directory(opened: ExitStack) -> int:
    root = cgroup_root(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape"))
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    opened.callback(os.close, descriptor)
    return descriptor
