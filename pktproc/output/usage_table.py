"""A usage report as a table for people."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pktproc.bandwidth.views import Captured, Row, View
from pktproc.output.amounts import Units, amount_text, rate_text
from pktproc.output.counting import counted
from pktproc.output.usage_rows import both_ways, labels, packets

UNLIMITED = 1 << 16
"""The width of what is no terminal."""
_NS_PER_S = 1_000_000_000
_DAY_NS = 86_400 * _NS_PER_S
_GAP = 3
"""Characters between two columns: two of padding and one where a rule would be."""
_LEAST_KEY = 14
_LEVELS = "▁▂▃▄▅▆▇█"
_CURVE = 20


class _Column(NamedTuple):
    """A column of figures; `rank` says how soon it is left out for want of room, 0 never."""

    title: str
    text: Callable[[Row], str]
    rank: int


def table(
    view: View, *, width: int, units: Units, curves: bool = False, rates: bool = False, colour: bool = False
) -> str:
    """Return a report `width` characters wide, with a line under it that shows how the rows add up.

    Where there is no room, the least wanted columns are left out first, then names are cut. `curves` adds how bytes
    were spread over time, `rates` what is sent and received in a second now.
    """
    keys = [labels(view, row) for row in view.rows]
    columns = _fitting(view, keys, _columns(view, units, curves=curves, rates=rates), width)
    drawn = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, _GAP - 1, 0, 0))
    widths = _key_widths(view, keys, columns, width)
    for title, most in zip(view.by, widths, strict=True):
        drawn.add_column(Text(title.capitalize()), no_wrap=True, overflow="ellipsis", min_width=most, max_width=most)
    for column in columns:
        most = _width(column, view.rows) - _GAP
        drawn.add_column(Text(column.title), justify="right", no_wrap=True, min_width=most)
    for key, row in zip(keys, view.rows, strict=True):
        style = "dim" if row.reason is not None else ""
        drawn.add_row(*map(_cut, key, widths), *(Text(column.text(row)) for column in columns), style=style)
    told = io.StringIO()
    console = Console(
        file=told, width=width, force_terminal=colour, color_system="standard" if colour else None, highlight=False
    )
    console.print(drawn, no_wrap=True, crop=True)
    lines = [line.rstrip() for line in told.getvalue().splitlines()]
    return "\n".join([*lines, "", *_footer(view, units)]) + "\n"


def _cut(text: str, width: int) -> Text:
    """Return a name that leaves its pid whole where it is cut."""
    shown = Text(text)
    if shown.cell_len <= width or not text.endswith("]"):
        return shown
    name, bracket, pid = text.rpartition("[")
    tail = f"{bracket}{pid}"
    if len(tail) + 4 > width:
        return shown
    head = Text(name)
    head.truncate(width - len(tail), overflow="ellipsis")
    return Text(f"{head.plain}{tail}")


def _columns(view: View, units: Units, *, curves: bool, rates: bool) -> list[_Column]:
    whole = sum(both_ways(row.total) for row in view.rows)
    passes = any(row.total.passed_packets for row in view.rows)
    day = view.elapsed_s * _NS_PER_S > _DAY_NS
    columns = [
        _Column("Sent/s", lambda row: _amount(row.rate.sent_bytes, units), 1),
        _Column("Recv/s", lambda row: _amount(row.rate.received_bytes, units), 1),
        _Column("Sent", lambda row: _amount(row.total.sent_bytes, units), 0),
        _Column("Received", lambda row: _amount(row.total.received_bytes, units), 0),
        _Column("Passed", lambda row: _amount(row.total.passed_bytes, units), 3),
        _Column("Share", lambda row: f"{100 * both_ways(row.total) / whole:.1f} %" if whole else "-", 2),
        _Column("Packets", lambda row: f"{packets(row.total):,.0f}", 6),
        _Column("Mean", lambda row: rate_text(both_ways(row.mean), units), 5),
        _Column("Peak", lambda row: rate_text(both_ways(row.peak), units), 8),
        _Column("Conns", lambda row: f"{row.connections:,}", 7),
        _Column("First", lambda row: _clock(row.first_ns, day=day), 10),
        _Column("Last", lambda row: _clock(row.last_ns, day=day), 9),
        _Column("Over time", lambda row: _curve(row.history), 4),
    ]
    wanted = {"Sent/s": rates, "Recv/s": rates, "Passed": passes, "Over time": curves}
    return [column for column in columns if wanted.get(column.title, True)]


def _fitting(view: View, keys: Sequence[tuple[str, ...]], columns: list[_Column], width: int) -> list[_Column]:
    """Return the columns for which there is room beside names, cut to the least if need be."""
    names = sum(min(_LEAST_KEY, widest) + _GAP for widest in _widest(view, keys))
    while names + sum(_width(column, view.rows) for column in columns) > width:
        last = max(column.rank for column in columns)
        if not last:
            break
        columns = [column for column in columns if column.rank != last]
    return columns


def _width(column: _Column, rows: Sequence[Row]) -> int:
    return max([len(column.title), *(len(column.text(row)) for row in rows)]) + _GAP


def _widest(view: View, keys: Sequence[tuple[str, ...]]) -> list[int]:
    texts = [view.by, *keys]
    return [max(Text(key[at]).cell_len for key in texts) for at in range(len(view.by))]


def _key_widths(view: View, keys: Sequence[tuple[str, ...]], columns: Sequence[_Column], width: int) -> list[int]:
    """Share the room that the figures leave among the names; what one does not need is for the others."""
    room = width - sum(_width(column, view.rows) for column in columns)
    wanted = _widest(view, keys)
    shares = [0] * len(wanted)
    for done, at in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        share = max(room // (len(wanted) - done) - _GAP, 4)
        shares[at] = min(wanted[at], share)
        room -= shares[at] + _GAP
    return shares


def _footer(view: View, units: Units) -> list[str]:
    sums = [sum(figures) for figures in zip(*(row.total for row in view.rows), strict=True)] or [0] * 8
    sent, received, local, passed = sums[0], sums[1], sums[5], sums[6]
    parts = [f"{sent:,} sent", f"+ {received:,} received"]
    if local:
        parts.append(f"- {local:,} counted at both ends")
    if passed:
        parts.append(f"+ {passed:,} passed")
    captured = view.captured
    elapsed = f"{view.elapsed_s:.1f}" if view.elapsed_s >= 1 else f"{view.elapsed_s:.3g}"
    about = f"{counted(captured.packets, 'packet')}, {amount_text(captured.bytes, units)} in {elapsed} s"
    layer = "" if view.layer == "wire" else f" of {view.layer}"
    return [
        f"{about}{layer}",
        f"{captured.bytes:,} B = {' '.join(parts)}",
        *_besides(captured, units),
    ]


def _besides(captured: Captured, units: Units) -> list[str]:
    if not captured.duplicate_packets:
        return []
    copies = counted(captured.duplicate_packets, "packet")
    return [f"{copies} ({amount_text(captured.duplicate_bytes, units)}) seen again on another interface, not counted"]


def _amount(size: float, units: Units) -> str:
    return amount_text(size, units) if size else "-"


def _clock(time_ns: int, *, day: bool) -> str:
    return time.strftime("%m-%d %H:%M:%S" if day else "%H:%M:%S", time.localtime(time_ns // _NS_PER_S))


def _curve(history: Sequence[int]) -> str:
    """Return the latest figures as blocks, the largest the highest; nothing is a blank."""
    shown = history[-_CURVE:]
    most = max(shown, default=0)
    return "".join(" " if not size else _LEVELS[min(size * len(_LEVELS) // most, 7)] for size in shown)
