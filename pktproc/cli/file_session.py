"""One run over a capture file: from the open file to the closing summary."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
import numpy as np

from pktproc.attribution.selection import ProcessSieve
from pktproc.attribution.tally import Tally
from pktproc.cli import closing
from pktproc.cli.file_options import FileOptions
from pktproc.cli.progress import Progress
from pktproc.cli.talk import say
from pktproc.offline import OfflineAttribution, OfflineBlock
from pktproc.output.stream import write_all
from pktproc.packet_file import PacketFile
from pktproc.packets.batch import Column

_NS_PER_S = 1_000_000_000
_GC_THRESHOLD = 500_000


def run(options: FileOptions) -> None:
    """Name the packets of a file, write or print them, then print the summary on stderr."""
    with (
        OfflineAttribution(
            options.source,
            options.stores,
            expression=options.expression,
            skew_ns=round(options.skew_s * _NS_PER_S),
            tolerance_ns=round(options.tolerance_s * _NS_PER_S),
        ) as offline,
        _summary(offline) as tally,
        PacketFile(options.output, forms=options.forms, cmdline=options.printing.cmdline) as file,
    ):
        session = _Session(options, file, tally)
        gc.freeze()  # flows are made by the thousand and hold no circles: to look for some takes a third of the time
        gc.set_threshold(_GC_THRESHOLD)
        with Progress(offline.capture.total_bytes, shown=options.output is not None) as progress:
            for block in offline.blocks():
                if session.take(block):
                    break
                progress.reach(offline.capture.bytes_read)


class _Session:
    def __init__(self, options: FileOptions, file: PacketFile, tally: Tally) -> None:
        self._count = options.count
        self._file = file
        self._tally = tally
        self._format = options.printing.formatter() if options.prints else None
        self._sieve = ProcessSieve(options.selection.selection(), lambda _: None)

    def take(self, block: OfflineBlock) -> bool:
        """Write and print the wanted packets of a block; return whether that were enough."""
        rows = self._wanted(block)
        self._file.write(block.attributed, rows, block.file_batch)
        if self._format is not None:
            write_all(sys.stdout.fileno(), self._format.lines(block.attributed, rows))
        self._tally.add(block.attributed, rows)
        return self._count is not None and self._tally.shown >= self._count

    def _wanted(self, block: OfflineBlock) -> Column:
        rows = block.rows
        if not self._sieve.takes_everything:
            rows = np.intersect1d(rows, self._sieve.rows(block.attributed), assume_unique=True)
        return rows if self._count is None else rows[: self._count - self._tally.shown]


@contextmanager
def _summary(offline: OfflineAttribution) -> Iterator[Tally]:
    """Print the summary in the end, however it comes about."""
    tally = Tally()
    try:
        yield tally
    finally:
        click.echo(closing.of_file(tally), err=True, nl=False)
        for warning in offline.warnings():
            say(warning)
