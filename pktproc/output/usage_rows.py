"""What every form of a usage report shares: what rows are called, and what their figures add up to."""

from __future__ import annotations

from pktproc.bandwidth.views import Amount, Row, View
from pktproc.output.escape import escape, escape_name, join_command

NOTHING = "-"
OTHER_ROWS = "others"
"""The key, in every dimension, of the row that stands for all that a view leaves out."""


def both_ways(amount: Amount) -> float:
    """Return what was sent, received and passed, in bytes or bytes a second."""
    return amount.sent_bytes + amount.received_bytes + amount.passed_bytes


def packets(amount: Amount) -> float:
    """Return how many packets were sent, received and passed."""
    return amount.sent_packets + amount.received_packets + amount.passed_packets


def label(row: Row, dimension: str, text: str) -> str:
    """Return what a row is called in one dimension, safe to show and unchanged for ordinary names."""
    if row.reason is not None and text == f"?{row.reason}":
        return text
    if dimension == "process":
        process = row.process
        if process is not None and text == f"{process.pid}:{process.start_ticks}":
            return f"{escape_name(process.name)}[{process.pid}]"
        return escape(text)
    if dimension == "cmdline":
        return join_command(text.split("\0")) if text else NOTHING
    return escape(text) or NOTHING


def labels(view: View, row: Row) -> tuple[str, ...]:
    """Return what a row is called in each of a view's dimensions."""
    return tuple(label(row, dimension, text) for dimension, text in zip(view.by, row.key, strict=True))


def is_rest(row: Row) -> bool:
    """Say whether a row stands for all those that a view leaves out."""
    return row.process is None and set(row.key) == {OTHER_ROWS}
