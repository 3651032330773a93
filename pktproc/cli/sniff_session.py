"""One run of `pktproc sniff`: from open sockets to the closing summary."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from pktproc.attribution.answers import AttributedBatch
from pktproc.attribution.backlog import GRACE_NS
from pktproc.attribution.process_selection import ProcessSelection
from pktproc.attribution.selection import ProcessSieve
from pktproc.attribution.tally import Tally
from pktproc.capture.filter import ANY
from pktproc.capture.interfaces import interfaces, states
from pktproc.capture.live import CaptureOptions
from pktproc.cli import closing, garbage
from pktproc.cli.signals import ended_by_signals
from pktproc.cli.sniff_options import SniffOptions
from pktproc.cli.talk import say
from pktproc.errors import PktprocError, UsageError
from pktproc.kernel import namespaces, privileges
from pktproc.kernel.processes import ProcessReader
from pktproc.live import LiveAttribution
from pktproc.output.escape import escape
from pktproc.output.stream import write_all
from pktproc.packets.batch import Column

if TYPE_CHECKING:
    from pktproc.packet_file import PacketFile


def list_interfaces(options: SniffOptions) -> None:
    """Print the interfaces that `-i` takes, by name or by number as with tcpdump -D."""
    for number, (name, state) in enumerate(_interfaces(options.netns), 1):
        click.echo(f"{number}.{escape(name)} [{state}]")


def _interfaces(netns: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return name and state of the interfaces of the namespaces, and `any`."""

    def here() -> list[tuple[str, str]]:
        return [(known.name, states(known.name)) for known in interfaces(namespaces.current()).values()]

    found: list[tuple[str, str]] = []
    for name in netns or (None,):
        found += namespaces.run_inside(namespaces.named(name) if name else None, here)
    return [*found, (ANY, "all interfaces")]


def _named(options: SniffOptions) -> tuple[str, ...]:
    """Return the names of the interfaces to capture on; a number is one of the list that `-D` prints."""
    if not any(name.isdecimal() for name in options.interfaces):
        return options.interfaces
    known = [name for name, _ in _interfaces(options.netns)]
    by_number = {str(number): name for number, name in enumerate(known, 1)}
    return tuple(name if name in known else by_number.get(name, name) for name in options.interfaces)


def run(options: SniffOptions) -> None:
    """Capture and print until told to stop, then print the summary on stderr."""
    capture = CaptureOptions(
        interfaces=_named(options),
        netns=options.netns,
        expression=options.expression,
        snaplen=options.snaplen,
        promiscuous=options.promiscuous,
        buffer_bytes=options.buffer_bytes,
        way=options.way,
    )
    if options.program and shutil.which(options.program[0]) is None:
        raise UsageError(f"no command {options.program[0]!r}: not found on PATH")
    cmdline = options.printing.cmdline
    with LiveAttribution(capture, engine=options.engine, cmdline=cmdline) as live, ended_by_signals(live.stop):
        if options.user:
            privileges.become(options.user)
        live.start()
        garbage.look_no_more()
        for note in live.notes:
            say(note)
        place = f" in {', '.join(options.netns)}" if options.netns else ""
        say(f"listening on {', '.join(map(escape, capture.interfaces))}{place}, engine {live.engine.name}")
        tally = Tally()
        try:
            with ExitStack() as opened:
                file = None if options.output is None else opened.enter_context(_file(options, options.output))
                _Session(options, live, tally, file).run()
                if file is not None:
                    file.statistics(live.statistics())
        finally:
            click.echo(closing.of_capture(tally, live.statistics()), err=True, nl=False)
            for shortfall in live.shortfalls():
                say(shortfall)


def _file(options: SniffOptions, path: str) -> PacketFile:
    from pktproc.packet_file import PacketFile  # noqa: PLC0415 - a tenth of the start, for -w alone

    return PacketFile(path, forms=options.forms, cmdline=options.printing.cmdline, rotation=options.rotation)


class _Session:
    def __init__(self, options: SniffOptions, live: LiveAttribution, tally: Tally, file: PacketFile | None) -> None:
        self._options = options
        self._live = live
        self._tally = tally
        self._file = file
        self._format = options.printing.formatter() if options.prints else None
        self._command = _start(options.program, options.netns) if options.program else None
        selection = _selection(options, self._command)
        self._sieve = ProcessSieve(selection, ProcessReader(cmdline=False).read)
        if options.duration_ns is not None:
            live.stop(after_ns=options.duration_ns)

    def run(self) -> None:
        try:
            for block in self._live.blocks():
                if block is not None and self._show(block):
                    return
                self._look_at_command()
        finally:
            if self._command and self._command.poll() is None:
                self._command.terminate()

    def _show(self, block: AttributedBatch) -> bool:
        """Write and print the wanted packets of a block; return whether that were enough."""
        rows: Column = self._sieve.rows(block)
        if self._options.count is not None:
            rows = rows[: self._options.count - self._tally.shown]
        if self._file is not None:
            self._file.write(block, rows)
        if self._format is not None:
            write_all(sys.stdout.fileno(), self._format.lines(block, rows))
        self._tally.add(block, rows)
        if len(rows) < len(block.batch) and not self._sieve.takes_everything:
            self._tally.add_hidden(block, rows)
        is_full = self._file is not None and self._file.finished
        return is_full or (self._options.count is not None and self._tally.shown >= self._options.count)

    def _look_at_command(self) -> None:
        if self._command is None:
            return
        privileges.bury_orphans(self._command.pid)
        if self._command.poll() is not None:
            self._live.stop(after_ns=GRACE_NS)


def _selection(options: SniffOptions, command: subprocess.Popen[bytes] | None) -> ProcessSelection:
    if command is not None:
        # Orphans among its descendants become this process's children.
        return ProcessSelection(pids=frozenset((command.pid, os.getpid())), follow=True)
    return options.selection.selection()


def _start(program: tuple[str, ...], netns: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Start the command in the namespace, if one is given, in which its packets are captured.

    Its standard output becomes our standard error, so that ours holds packets alone.
    """
    privileges.adopt_orphans()
    place = namespaces.named(netns[0]) if netns else None
    try:
        return namespaces.run_inside(place, lambda: subprocess.Popen(program, stdout=sys.stderr.fileno()))
    except OSError as error:
        raise PktprocError(f"cannot start {program[0]!r}: {error.strerror}") from error
