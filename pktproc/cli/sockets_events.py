"""`pktproc sockets --events`: sockets as they open and close, with their processes.

The kernel tells of each TCP and UDP socket that ends, and looks find what opened since. A socket that lives for less
time than lies between two looks is only heard to close, and its owner is not known.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from contextlib import ExitStack, closing

from pktproc.cli.signals import ended_by_signals
from pktproc.cli.sockets_options import SocketsOptions
from pktproc.cli.talk import say
from pktproc.errors import Denied, Unsupported
from pktproc.inventory.changes import Course
from pktproc.inventory.rows import AF_INET, AF_INET6, NO_ATTRIBUTES, Entry, Listing, Row
from pktproc.kernel.sock_diag import EndedSockets
from pktproc.listing import Looker, Question, processes_of
from pktproc.model import V4_MAPPED_PREFIX, Protocol, Socket
from pktproc.output.clock import utc
from pktproc.output.socket_ends import Ends
from pktproc.output.socket_export import Objects
from pktproc.output.socket_table import event_line
from pktproc.output.stream import write_all

_LEAST_INTERVAL_S = 0.1
_SHARE = 10  # a look takes a tenth of the time at most
_KINDS = {Protocol.TCP: "tcp", Protocol.UDP: "udp", Protocol.UDPLITE: "udplite"}


class Events:
    """Watch sockets open and close, and write a line for each."""

    def __init__(self, looker: Looker, question: Question, options: SocketsOptions, ends: Ends) -> None:
        self._looker = looker
        self._question = question
        self._options = options
        self._ends = ends
        self._course = Course()
        self._namespaces: dict[int, str] = {}
        self._heard: list[EndedSockets] = []
        self._stopped = False

    def run(self) -> None:
        """Go on until a signal comes."""
        with ExitStack() as opened, ended_by_signals(self._stop):
            first = self._looker.look()
            self._namespaces = dict(first.namespaces)
            self._listen(first, opened)
            for note in first.notes:
                say(note)
            self._course.take(first.entries)
            say(f"watching {len(first.entries)} sockets")
            took = _LEAST_INTERVAL_S
            while not self._stopped:
                self._hear(max(_LEAST_INTERVAL_S, took * _SHARE))
                began = time.monotonic()
                self._look()
                took = time.monotonic() - began

    def _stop(self) -> None:
        self._stopped = True

    def _listen(self, first: Listing, opened: ExitStack) -> None:
        for netns in first.namespaces:
            try:
                self._heard.append(opened.enter_context(closing(self._looker.tables(netns).ended())))
            except (Denied, Unsupported) as error:
                say(f"{error}; sockets that live for less than {_LEAST_INTERVAL_S} s are not seen")
                return

    def _look(self) -> None:
        changes = self._course.take(self._looker.look().entries)
        for action, entries in (("opened", changes.opened), ("closed", changes.closed)):
            for entry in entries:
                if all(holder.pid != os.getpid() for holder in entry.holders):
                    self._tell(action, entry)

    def _hear(self, timeout_s: float) -> None:
        """Tell of the sockets that are heard to end until it is time for a look."""
        waiting = select.poll()
        for ended in self._heard:
            waiting.register(ended.fileno(), select.POLLIN)
        deadline = time.monotonic() + timeout_s
        while not self._stopped and (left := deadline - time.monotonic()) > 0:
            if waiting.poll(left * 1000):
                for ended in self._heard:
                    sockets, lost = ended.drain()
                    if lost:
                        say("the kernel could not tell of all sockets that closed: too many at once")
                    for each in sockets:
                        self._ended(each)

    def _ended(self, socket: Socket) -> None:
        row = _row(socket)
        entry = self._course.end(row.key)
        if entry is None:
            entry = Entry(row, ())
            if not self._wants_unknown(entry):
                return
        self._tell("closed", entry)

    def _wants_unknown(self, entry: Entry) -> bool:
        question = self._question
        row = entry.row
        return (
            row.kind in question.tables
            and row.family in question.families
            and question.processes is None
            and (question.condition is None or question.condition.fits(entry))
        )

    def _tell(self, action: str, entry: Entry) -> None:
        now = time.time_ns()
        if self._options.format == "json":
            listing = Listing([entry], self._namespaces)
            (found,) = Objects(processes_of([entry]), {}, cmdline=self._options.cmdline).of(listing)
            head = {"@timestamp": utc(now), "event": {"action": f"socket-{action}"}}
            text = json.dumps(head | found)
        else:
            text = event_line(action, now, entry, self._ends)
        write_all(sys.stdout.fileno(), f"{text}\n")


def _row(socket: Socket) -> Row:
    """Return a socket of which the kernel told that it ended as a row."""
    v4 = socket.local_address.startswith(V4_MAPPED_PREFIX)
    return Row(
        netns=socket.netns,
        kind=_KINDS.get(Protocol(socket.protocol), str(socket.protocol)),
        family=AF_INET if v4 else AF_INET6,
        state=socket.state,
        receive_queue=0,
        send_queue=0,
        local=socket.local_address,
        local_port=socket.local_port,
        remote=socket.remote_address,
        remote_port=socket.remote_port,
        ifindex=socket.ifindex,
        cookie=socket.cookie,
        uid=socket.uid,
        inode=0,
        timer=0,
        retransmissions=0,
        expires_ms=0,
        attributes=NO_ATTRIBUTES,
    )
