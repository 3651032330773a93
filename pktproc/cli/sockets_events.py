"""`pktproc sockets --events`: sockets as they open and close, with their processes.

Where the engine `ebpf` loads, the kernel tells who uses which socket, however short it lives. Otherwise looks find what
opened, and the kernel tells of each TCP and UDP socket that ends: one that lives for less time than lies between two
looks is only heard to close, and its owner is not known.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable

from pktproc.cli.garbage import RareLooks
from pktproc.cli.signals import StopFlag, ended_by_signals
from pktproc.cli.sockets_options import SocketsOptions
from pktproc.cli.talk import say
from pktproc.inventory.chronicle import Happening
from pktproc.inventory.rows import Listing
from pktproc.listing import Looker
from pktproc.output.counting import counted
from pktproc.output.socket_ends import Ends, resolved_name
from pktproc.output.socket_events import event_line, event_object
from pktproc.output.stream import write_all
from pktproc.socket_events import SocketEvents
from pktproc.witnessing import SocketWitness

_LEAST_INTERVAL_S = 0.1
_SHARE = 10  # a look takes a tenth of the time at most


def run(looker: Looker, witness: SocketWitness | None, options: SocketsOptions) -> None:
    """Write a line for each socket that opens or closes until a signal comes."""
    stopped = StopFlag()
    with SocketEvents(looker, witness) as events, ended_by_signals(stopped.set):
        lines = _Lines(events, options)
        count = events.begin()
        say(f"watching {counted(count, 'socket')}, engine {'netlink' if witness is None else 'ebpf'}")
        took_s = 0.0
        looks = RareLooks()
        while not stopped.is_set():
            due_s = time.monotonic() + max(_LEAST_INTERVAL_S, took_s * _SHARE)
            while not stopped.is_set() and (left_s := due_s - time.monotonic()) > 0:
                lines.write(events.hear(left_s))
            began_s = time.monotonic()
            lines.write(events.look())
            took_s = time.monotonic() - began_s
            looks.look_if_due()


class _Lines:
    """Write what happens as text or JSON, a line each, but nothing of this program's own sockets."""

    def __init__(self, events: SocketEvents, options: SocketsOptions) -> None:
        self._events = events
        self._options = options
        host_name = resolved_name if options.resolve else None
        self._ends = Ends({}, numeric=options.numeric, host_name=host_name)

    def write(self, happenings: Iterable[Happening]) -> None:
        """Write a line for each of these, and what else there is to say."""
        for note in self._events.notes:
            say(note)
        self._events.notes.clear()
        texts = [self._text(each) for each in happenings if not _is_own(each)]
        if texts:
            write_all(sys.stdout.fileno(), "".join(f"{text}\n" for text in texts))

    def _text(self, happening: Happening) -> str:
        if self._options.format != "json":
            return event_line(happening, self._ends)
        entry = happening.entry
        listing = Listing([entry], self._events.namespaces())
        return json.dumps(
            event_object(happening, listing, self._events.processes(entry), cmdline=self._options.cmdline)
        )


def _is_own(happening: Happening) -> bool:
    return any(holder.pid == os.getpid() for holder in happening.entry.holders)
