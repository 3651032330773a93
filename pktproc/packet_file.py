"""Packets into a file, wired: a new pcapng file, rotated if wanted, or one of another tool with annotations."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Self

from pktproc.attribution.answers import AttributedBatch
from pktproc.capture.capture_file import FileBatch
from pktproc.model import Interface
from pktproc.output.annotate import ALL_FORMS
from pktproc.output.pcapng import Counts, PcapngWriter
from pktproc.output.pcapng_rewrite import PcapngRewriter
from pktproc.output.rotation import RotatingFile, Rotation
from pktproc.output.savefile import Savefile
from pktproc.packets.batch import Column
from pktproc.packets.linktypes import LINKTYPE_ETHERNET
from pktproc.refusals import with_cures

_NOWHERE = Interface("none", 0, 0)


class PacketFile:
    """Write packets with their owners to `path`, `-` for standard output; do nothing where it is None.

    What comes from a pcapng file keeps that file's blocks and options, all else begins a section of its own. `forms`
    are those of `output.annotate`. Raise OSError, with the file's name, as open(2) and write(2) do.
    """

    def __init__(
        self,
        path: str | None,
        *,
        forms: Collection[str] = ALL_FORMS,
        cmdline: bool = True,
        rotation: Rotation | None = None,
    ) -> None:
        self._forms = frozenset(forms)
        self._cmdline = cmdline
        self._writer: PcapngWriter | None = None
        self._rewriter: PcapngRewriter | None = None
        self._opened = ExitStack()
        self._sink: RotatingFile | Savefile | None = None
        if path is not None:
            with with_cures():
                sink = RotatingFile(path, rotation) if rotation else Savefile(path)
            self._sink = self._opened.enter_context(closing(sink))

    @property
    def finished(self) -> bool:
        """Say whether the rotation takes no more packets."""
        return isinstance(self._sink, RotatingFile) and self._sink.finished

    def write(self, attributed: AttributedBatch, rows: Column, file_batch: FileBatch | None = None) -> None:
        """Write the given packets (int64 row numbers) of a block; `file_batch` is what it was read as, if it was."""
        if self._sink is None:
            return
        if file_batch is not None and file_batch.origin is not None:
            if self._rewriter is None:
                self._rewriter = PcapngRewriter(self._sink, forms=self._forms, cmdline=self._cmdline)
            self._rewriter.write(file_batch, attributed, rows)
        else:
            self._section(self._sink).write(attributed, rows)

    def statistics(self, counts: Counts) -> None:
        """Add what a live capture counted."""
        if self._sink is not None:
            self._with_interface(self._sink).statistics(counts)

    def close(self) -> None:
        """Close the file; one without packets has an interface all the same, or libpcap would not take it."""
        with self._opened:
            if self._sink is not None and self._rewriter is None:
                self._with_interface(self._sink)

    def _with_interface(self, sink: RotatingFile | Savefile) -> PcapngWriter:
        writer = self._section(sink)
        if not writer.count:
            writer.describe(_NOWHERE, LINKTYPE_ETHERNET)
        return writer

    def _section(self, sink: RotatingFile | Savefile) -> PcapngWriter:
        if self._writer is None:
            self._writer = PcapngWriter(sink, forms=self._forms, cmdline=self._cmdline)
        return self._writer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            self._opened.close()  # what could not be written once is not tried again
        else:
            self.close()
