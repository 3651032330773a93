"""Hear at once when processes end, through a descriptor of each (pidfd_open(2))."""

from __future__ import annotations

import errno
import os
import resource
import select
import threading
from collections import OrderedDict
from collections.abc import Iterable

from pktproc.kernel.processes import ProcessReader
from pktproc.model import Process, ProcessId

# Descriptors are scarce (1024 by default): of more processes the longest followed ones are no longer.
_MOST = 512


class ExitWatch:
    """Follow processes; wait on `fileno` to hear of their ends at once. Any thread may call any method."""

    def __init__(self, reader: ProcessReader) -> None:
        self._reader = reader
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = min(_MOST, soft // 2) if soft != resource.RLIM_INFINITY else _MOST
        self._lock = threading.Lock()
        self._epoll = select.epoll()
        self._descriptors: OrderedDict[ProcessId, int] = OrderedDict()
        self._processes: dict[int, ProcessId] = {}
        self._gone: list[ProcessId] = []

    def fileno(self) -> int:
        """Return the descriptor that is readable while there are ends to tell of."""
        return self._epoll.fileno()

    def follow(self, processes: Iterable[Process]) -> None:
        """Follow processes; those that are gone already have ended."""
        with self._lock:
            for process in processes:
                if process.id not in self._descriptors:
                    self._follow(process)

    def ended(self) -> list[ProcessId]:
        """Return which processes ended since the last call."""
        with self._lock:
            gone, self._gone = self._gone, []
            for descriptor, _ in self._epoll.poll(0):
                process = self._processes[descriptor]
                self._let_go(process)
                gone.append(process)
            return gone

    def _follow(self, process: Process) -> None:
        try:
            descriptor = os.pidfd_open(process.pid)
        except OSError as error:
            if error.errno == errno.ESRCH:
                self._gone.append(process.id)
            return
        if self._reader.identity(process.pid) != process.id:
            os.close(descriptor)
            self._gone.append(process.id)
            return
        if len(self._descriptors) >= self._most:
            self._let_go(next(iter(self._descriptors)))
        self._descriptors[process.id] = descriptor
        self._processes[descriptor] = process.id
        self._epoll.register(descriptor, select.EPOLLIN)

    def _let_go(self, process: ProcessId) -> None:
        descriptor = self._descriptors.pop(process)
        del self._processes[descriptor]
        self._epoll.unregister(descriptor)
        os.close(descriptor)

    def close(self) -> None:
        """Follow nothing any more."""
        with self._lock:
            for process in list(self._descriptors):
                self._let_go(process)
            self._epoll.close()
