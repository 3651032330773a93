"""Signals to processes that cannot be mistaken for others (pidfd_open(2), pidfd_send_signal(2))."""

from __future__ import annotations

import os
import signal
from typing import Self

from pktproc.kernel.processes import ProcessReader
from pktproc.model import ProcessId


class Target:
    """A process that is to be sent a signal, pinned so that its pid cannot become another's; a context manager.

    Raise `ProcessLookupError` if the process is gone by now, even if its pid is used again.
    """

    def __init__(self, process: ProcessId, reader: ProcessReader) -> None:
        self.process = process
        self._descriptor = os.pidfd_open(process.pid)
        if reader.identity(process.pid) != process:
            os.close(self._descriptor)
            raise ProcessLookupError(process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the process."""
        os.close(self._descriptor)

    def send(self, number: int) -> None:
        """Send a signal; raise OSError as kill(2) does."""
        signal.pidfd_send_signal(self._descriptor, number)
