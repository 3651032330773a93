"""How far long work is, on terminals only."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bar


class Progress:
    """Show on standard error how many bytes of a file are done, if that is a terminal and `shown` is set.

    `total_bytes` is None where nobody knows.
    """

    def __init__(self, total_bytes: int | None, *, shown: bool = True) -> None:
        self._bar: Bar | None = None
        if not (shown and sys.stderr.isatty()):
            return
        from rich import progress  # noqa: PLC0415 - only for a terminal
        from rich.console import Console  # noqa: PLC0415

        columns = (progress.BarColumn(), progress.DownloadColumn(), progress.TimeRemainingColumn())
        self._bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("", total=total_bytes)

    def reach(self, done_bytes: int) -> None:
        """Show that so many bytes are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done_bytes)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
