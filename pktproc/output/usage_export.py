"""A usage report for programs: one JSON array of rows, or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from pktproc.bandwidth.views import Amount, Row, Series, View
from pktproc.model import Process
from pktproc.output.clock import utc
from pktproc.output.escape import csv_cell, escape, join_command
from pktproc.output.names import user_name
from pktproc.output.usage_rows import NOTHING, OTHER_ROWS, is_rest, labels
from pktproc.packets.surrogates import spell_surrogates

_RATES = ("rate", "mean", "peak")
_AMOUNTS = Amount._fields
_RATES_IN_CSV = ("mean", "peak", "rate")  # new ones come last: readers may know columns by their places


def json_report(view: View, series: Series | None = None, *, cmdline: bool = True) -> str:
    """Return the rows as one JSON array, in ASCII; a key whose value is not known is left out.

    `series` adds the course of each row.
    """
    rows = [_object(view, row, series, cmdline=cmdline) for row in view.rows]
    return "[" + ",\n ".join(json.dumps(row) for row in rows) + "]\n"


def _object(view: View, row: Row, series: Series | None, *, cmdline: bool) -> dict[str, Any]:
    found: dict[str, Any] = _keys(view, row, cmdline=cmdline)
    if row.reason is not None:
        found["reason"] = str(row.reason)
    found |= {name: value for name, value in zip(_AMOUNTS, row.total, strict=True) if value or name in _ALWAYS}
    found |= {"connections": row.connections, "open_connections": row.open_connections}
    found |= {"first_seen": utc(row.first_ns), "last_seen": utc(row.last_ns)}
    for kind in _RATES:
        amount: Amount = getattr(row, kind)
        found[f"{kind}_per_second"] = {name: round(value, 3) for name, value in amount._asdict().items() if value}
    if series is not None:
        found["interval_s"] = view.interval_s
        found["series"] = [
            {"time": utc(time_ns), "sent_bytes": sent, "received_bytes": received}
            | ({"passed_bytes": passed} if passed else {})
            for time_ns, sent, received, passed in series.get(row.key, ())
        ]
    return found


_ALWAYS = frozenset({"sent_bytes", "received_bytes", "sent_packets", "received_packets"})


def _keys(view: View, row: Row, *, cmdline: bool) -> dict[str, Any]:
    """Return the group's keys: `process` as an object, the others as texts; none where there is no owner."""
    if is_rest(row):
        return {OTHER_ROWS: True}
    found: dict[str, Any] = {}
    for dimension, text in zip(view.by, row.key, strict=True):
        if dimension == "process":
            if row.process is not None:
                found["process"] = _process(row.process, cmdline=cmdline)
            elif row.reason is None:
                found["process"] = {"name": text}
        elif text and text != f"?{row.reason}":
            name = "remote_port" if dimension == "remote-port" else dimension
            is_number = dimension == "remote-port" and text.isdecimal()
            value = join_command(text.split("\0")) if dimension == "cmdline" else spell_surrogates(text)
            found[name] = int(text) if is_number else value
    return found


def _process(process: Process, *, cmdline: bool) -> dict[str, Any]:
    parent = None
    if process.ppid is not None:
        parent = {"pid": process.ppid}
        if process.parent_name is not None:
            parent |= {"name": spell_surrogates(process.parent_name)}  # type: ignore[dict-item]
    user = None if process.uid is None else {"id": str(process.uid), "name": user_name(process.uid)}
    facts = {
        "pid": process.pid,
        "name": spell_surrogates(process.name),
        "executable": process.exe and spell_surrogates(process.exe),
        "command_line": join_command(process.cmdline) if cmdline and process.cmdline else None,
        "start": utc(process.start_ns) if process.start_ns else None,
        "parent": parent,
        "user": user and {key: value for key, value in user.items() if value is not None},
        "container": process.container_id and {"id": process.container_id},
        "unit": process.unit and spell_surrogates(process.unit),
    }
    return {key: value for key, value in facts.items() if value is not None}


def csv_report(view: View, series: Series | None = None) -> str:
    """Return the rows as CSV with a header (RFC 4180); with `series` a line for each row and interval.

    Names are escaped as in the table, and a cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\r\n")
    writer.writerows(_lines(view) if series is None else _points(view, series))
    return written.getvalue()


def _names(view: View) -> list[str]:
    names = ["remote_port" if dimension == "remote-port" else dimension for dimension in view.by]
    return [*names, *(["pid"] if "process" in view.by else [])]


def _cells(view: View, row: Row) -> list[str]:
    texts = ["" if text == NOTHING else csv_cell(text) for text in labels(view, row)]
    if "process" in view.by:
        at = view.by.index("process")
        if row.process is not None:
            texts[at] = csv_cell(escape(row.process.name))
        texts.append("" if row.process is None else str(row.process.pid))
    return texts


def _lines(view: View) -> Iterator[list[str]]:
    rates = [f"{kind}_{name}_per_second" for kind in _RATES_IN_CSV for name in _AMOUNTS[:2]]
    yield [*_names(view), "reason", *_AMOUNTS, "connections", "first_seen", "last_seen", *rates]
    for row in view.rows:
        yield [
            *_cells(view, row),
            str(row.reason or ""),
            *(str(int(value)) for value in row.total),
            str(row.connections),
            utc(row.first_ns),
            utc(row.last_ns),
            *(f"{value:.3f}" for kind in _RATES_IN_CSV for value in getattr(row, kind)[:2]),
        ]


def _points(view: View, series: Series) -> Iterator[list[str]]:
    yield ["time", *_names(view), "reason", "sent_bytes", "received_bytes", "passed_bytes"]
    for row in view.rows:
        for time_ns, *sizes in series.get(row.key, ()):
            yield [utc(time_ns), *_cells(view, row), str(row.reason or ""), *map(str, sizes)]
