"""Hear at once when processes end, through a descriptor of each (pidfd_open(2))."""

from __future__ import annotations

import os
import resource
from collections import OrderedDict

from pktproc.kernel.processes import ProcessReader
from pktproc.model import Process, ProcessId

# Descriptors are scarce (1024 by default): of more processes the longest followed ones are no longer.
_MOST = 512


class ExitWatch:
    """Follow processes; each has a descriptor that becomes readable when it ends."""

    def __init__(self, reader: ProcessReader) -> None:
        self._reader = reader
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = min(_MOST, soft // 2) if soft != resource.RLIM_INFINITY else _MOST
        self._descriptors: OrderedDict[ProcessId, int] = OrderedDict()
        self._processes: dict[int, ProcessId] = {}

    def follow(self, process: Process) -> tuple[int | None, int | None]:
        """Follow a process; return its descriptor (None if followed already or gone) and one given up for it."""
        if process.id in self._descriptors:
            return None, None
        try:
            descriptor = os.pidfd_open(process.pid)
        except OSError:
            return None, None
        if self._reader.identity(process.pid) != process.id:
            os.close(descriptor)
            return None, None
        given_up = None
        if len(self._descriptors) >= self._most:
            _, given_up = self._descriptors.popitem(last=False)
            del self._processes[given_up]
        self._descriptors[process.id] = descriptor
        self._processes[descriptor] = process.id
        return descriptor, given_up

    def ended(self, descriptor: int) -> ProcessId | None:
        """Return whose end a readable descriptor tells, and follow it no longer; None if it is not one of these."""
        process = self._processes.pop(descriptor, None)
        if process is not None:
            del self._descriptors[process]
        return process

    def close(self) -> None:
        """Follow nothing any more."""
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        self._descriptors.clear()
        self._processes.clear()
