"""Views of `pktproc top --batch` as text, one after the other, in the forms that `pktproc summary` has."""

from __future__ import annotations

import os
import sys
from typing import cast

from pktproc.bandwidth.views import View
from pktproc.cli.top_options import TopOptions
from pktproc.output.amounts import Units
from pktproc.output.clock import utc
from pktproc.output.usage_export import csv_report, json_report
from pktproc.output.usage_table import UNLIMITED, table

_LEAST_WIDTH = 20


class Batch:
    """Word views in the form that the options ask for."""

    def __init__(self, options: TopOptions) -> None:
        self._options = options
        self._begun = False

    def text(self, view: View) -> str:
        """Return the text of the next view."""
        words = {"table": self._table, "json": self._json, "csv": self._csv}[self._options.format](view)
        self._begun = True
        return words

    def _table(self, view: View) -> str:
        facts = f"{view.elapsed_s:.1f} s, {view.layer} bytes, rates over {view.rate_s:.3g} s, engine {view.engine}"
        head = f"{utc(view.time_ns)}, {facts}\n\n"
        is_terminal = sys.stdout.isatty()
        report = table(
            view,
            width=_width(is_terminal=is_terminal),
            units=cast("Units", self._options.units),
            curves=True,
            rates=True,
            colour=is_terminal and not os.environ.get("NO_COLOR"),
        )
        return ("\n" if self._begun else "") + head + report

    def _json(self, view: View) -> str:
        rows = json_report(view, cmdline=self._options.cmdline).replace("\n", "")
        facts = f'"@timestamp": "{utc(view.time_ns)}", "elapsed_s": {view.elapsed_s:.3f}'
        captured = ", ".join(f'"{name}": {figure}' for name, figure in view.captured._asdict().items())
        facts += f', "interval_s": {view.interval_s:g}, "rate_s": {view.rate_s:g}'
        return f'{{{facts}, "captured": {{{captured}}}, "rows": {rows}}}\n'

    def _csv(self, view: View) -> str:
        """Return the lines with the time in front; those that follow have no header."""
        header, *lines = csv_report(view).splitlines(keepends=True)
        head = "" if self._begun else f"time,{header}"
        return head + "".join(f"{utc(view.time_ns)},{line}" for line in lines)


def _width(*, is_terminal: bool) -> int:
    told = os.environ.get("COLUMNS", "")
    if told.isdecimal() and int(told):
        return max(int(told), _LEAST_WIDTH)
    return max(os.get_terminal_size(sys.stdout.fileno()).columns, _LEAST_WIDTH) if is_terminal else UNLIMITED
