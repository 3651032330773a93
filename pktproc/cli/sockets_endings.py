"""`pktproc sockets --kill` and `--close`: what is to be done is shown first, then asked for, then done."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

import click

from pktproc.cli.sockets_options import SocketsOptions
from pktproc.cli.talk import say
from pktproc.errors import Denied, EngineError, PktprocError, UsageError
from pktproc.inventory.rows import Entry, Holder
from pktproc.kernel.process_signals import Target
from pktproc.kernel.processes import ProcessReader
from pktproc.listing import Looker
from pktproc.model import ProcessId
from pktproc.output.counting import counted
from pktproc.output.escape import escape_name


def kill(entries: Sequence[Entry], options: SocketsOptions) -> None:
    """Send a signal to all who hold some sockets, this program apart.

    A process that is gone when it is to be sent the signal gets none, whoever has its pid then.
    """
    holders = {holder.process: holder for entry in entries if not entry.last for holder in entry.holders}
    holders = {process: holder for process, holder in holders.items() if process.pid != os.getpid()}
    if not holders:
        raise PktprocError("no process is known to hold such a socket, so that no signal was sent")
    name = signal.Signals(options.signal).name
    with ExitStack() as opened:
        targets = _pinned(holders, opened)
        _ask(f"send {name} to {', '.join(map(_named, holders.values()))}", options)
        sent = sum(_send(target, holders[target.process], options.signal) for target in targets)
    say(f"{name} sent to {counted(sent, 'process')}")
    if sent < len(holders):
        raise PktprocError(f"{counted(len(holders) - sent, 'process')} of {len(holders)} got no signal")


def close(entries: Sequence[Entry], looker: Looker, options: SocketsOptions) -> None:
    """Have the kernel close some sockets, whoever holds them."""
    if not entries:
        raise PktprocError("there is no such socket, so that none was closed")
    _ask(f"close {counted(len(entries), 'socket')}", options)
    closed = sum(_close(entry, looker) for entry in entries)
    say(f"{counted(closed, 'socket')} closed")
    if closed < len(entries):
        raise PktprocError(f"{len(entries) - closed} of {counted(len(entries), 'socket')} could not be closed")


def _pinned(processes: Iterable[ProcessId], opened: ExitStack) -> list[Target]:
    reader = ProcessReader()
    found: list[Target] = []
    for process in processes:
        try:
            found.append(opened.enter_context(Target(process, reader)))
        except ProcessLookupError:
            continue
    return found


def _send(target: Target, holder: Holder, number: int) -> bool:
    try:
        target.send(number)
    except OSError as error:
        say(f"{_named(holder)}: {error.strerror}")
        return False
    return True


def _close(entry: Entry, looker: Looker) -> bool:
    try:
        looker.tables(entry.row.netns).destroy(entry.row)
    except Denied:
        raise
    except (EngineError, KeyError) as error:
        say(str(error))
        return False
    return True


def _ask(what: str, options: SocketsOptions) -> None:
    """Ask whether to go on; raise `UsageError` if nobody can be asked, click.Abort if the answer is no."""
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"there is no terminal to ask on whether to {what}: give --yes")
    click.confirm(f"{what[0].upper()}{what[1:]}?", abort=True, err=True)


def _named(holder: Holder) -> str:
    return f"{escape_name(holder.name)}[{holder.pid}]"
