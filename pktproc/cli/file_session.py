"""One run over a capture file: from the open file to the closing summary."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import click
import numpy as np

from pktproc.attribution.selection import ProcessSieve
from pktproc.attribution.tally import Tally
from pktproc.cli import closing, garbage
from pktproc.cli.file_options import FileOptions
from pktproc.cli.progress import Progress
from pktproc.cli.signals import Interruption, ended_by_signals
from pktproc.cli.talk import say
from pktproc.cli.write_options import STANDARD
from pktproc.errors import PktprocError
from pktproc.offline import OfflineAttribution, OfflineBlock
from pktproc.output.escape import escape
from pktproc.output.stream import write_all
from pktproc.packet_file import PacketFile
from pktproc.packets.batch import Column

_NS_PER_S = 1_000_000_000
# So many packets are printed at a time, for the first lines to come soon and a signal not to wait for a whole block.
_PRINTED_AT_ONCE = 4096


def run(options: FileOptions) -> None:
    """Name the packets of a file, write or print them, then print the summary on stderr.

    Raise `PktprocError` if Ctrl-C, SIGTERM or a reader that went away has left the written file without its rest.
    """
    with (
        OfflineAttribution(
            options.source,
            options.stores,
            expression=options.expression,
            skew_ns=round(options.skew_s * _NS_PER_S),
            tolerance_ns=round(options.tolerance_s * _NS_PER_S),
        ) as offline,
        PacketFile(options.output, forms=options.forms, cmdline=options.printing.cmdline) as file,
        _summary(options, offline) as outcome,
    ):
        session = _Session(options, file, outcome)
        garbage.look_no_more()
        with (
            Progress(offline.capture.total_bytes, shown=options.output is not None) as progress,
            ended_by_signals(outcome.interruption.stop),
        ):
            for block in outcome.interruption.until(offline.blocks()):
                if session.take(block):
                    break
                progress.reach(offline.capture.bytes_read)
        reason = outcome.broken_off()
        if reason and _writes_file(options):
            # Not the normal end that it is for a live capture: who goes on with the file would take it for the whole.
            raise PktprocError(f"{reason}: {escape(str(options.output))} is partial, it ends where reading did")


@dataclass(slots=True)
class _Outcome:
    """What became of a run: the packets that were done, and why these are not all of them."""

    tally: Tally = field(default_factory=Tally)
    interruption: Interruption = field(default_factory=Interruption)
    is_complete: bool = False
    is_unread: bool = False

    def broken_off(self) -> str:
        """Return why the rest of the file was left alone, empty if it was not, or not wanted."""
        if self.is_complete or not (self.is_unread or self.interruption.came):
            return ""
        return "nobody reads what is printed any more" if self.is_unread else "told to stop"


def _writes_file(options: FileOptions) -> bool:
    return options.output not in (None, STANDARD)


class _Session:
    def __init__(self, options: FileOptions, file: PacketFile, outcome: _Outcome) -> None:
        self._count = options.count
        self._file = file
        self._writes = options.output is not None
        self._outcome = outcome
        self._tally = outcome.tally
        self._format = options.printing.formatter() if options.prints else None
        self._sieve = ProcessSieve(options.selection.selection(), lambda _: None)

    def take(self, block: OfflineBlock) -> bool:
        """Write and print the wanted packets of a block; return whether that were enough."""
        rows = self._wanted(block)
        if self._writes:
            self._file.write(block.attributed, rows, block.file_batch)
            self._tally.add(block.attributed, rows)
        self._print(block, rows)
        self._outcome.is_complete = self._count is not None and self._tally.shown >= self._count
        return self._outcome.is_complete or self._outcome.is_unread

    def _print(self, block: OfflineBlock, rows: Column) -> None:
        if self._format is None:
            return
        for at in range(0, len(rows), _PRINTED_AT_ONCE):
            if self._outcome.interruption.came:
                return
            part = rows[at : at + _PRINTED_AT_ONCE]
            try:
                write_all(sys.stdout.fileno(), self._format.lines(block.attributed, part))
            except BrokenPipeError:
                self._outcome.is_unread = True
                return
            if not self._writes:
                self._tally.add(block.attributed, part)

    def _wanted(self, block: OfflineBlock) -> Column:
        rows = block.rows
        if not self._sieve.takes_everything:
            rows = np.intersect1d(rows, self._sieve.rows(block.attributed), assume_unique=True)
        return rows if self._count is None else rows[: self._count - self._tally.shown]


@contextmanager
def _summary(options: FileOptions, offline: OfflineAttribution) -> Iterator[_Outcome]:
    """Print the summary in the end, however it comes about; how much of it a reader took that left, nobody knows."""
    outcome = _Outcome()
    try:
        yield outcome
    except BrokenPipeError:
        outcome.is_unread = True
        raise
    finally:
        if _writes_file(options) or not outcome.is_unread:
            click.echo(closing.of_file(outcome.tally), err=True, nl=False)
        for warning in offline.warnings():
            say(warning)
        if outcome.interruption.came and outcome.broken_off() and not _writes_file(options):
            say(f"{outcome.broken_off()}: these are not all packets of {escape(options.source)}")
