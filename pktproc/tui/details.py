"""What the page of a group says above its connections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.segment import Segment

from pktproc.bandwidth.views import Row
from pktproc.model import Process
from pktproc.output.amounts import amount_text
from pktproc.output.escape import escape, join_command
from pktproc.output.names import user_name
from pktproc.output.owners import identify
from pktproc.tui.band import BOLD, DIM, PLAIN, Line
from pktproc.tui.columns import GAP, Look, plain
from pktproc.tui.headline import wrapped
from pktproc.tui.row_columns import row_name, within_host

_COMMAND_CHARACTERS = 2048
_COMMAND_LINES = 3
_MOST_ANCESTORS = 16


def details(row: Row, ancestors: Sequence[Process], look: Look, width: int) -> list[Line]:
    """Return what is known of a group: who it is, how much it moved."""
    lines = list(_process(row.process, ancestors, width)) if row.process is not None else [_title(row, look)]
    return [*lines, *_figures(row, look)]


def _title(row: Row, look: Look) -> Line:
    return [Segment(row_name(row, look), BOLD)]


def _process(process: Process, ancestors: Sequence[Process], width: int) -> Iterator[Line]:
    head = [Segment(identify(process.name[:_COMMAND_CHARACTERS], process.pid), BOLD)]
    facts = []
    if process.uid is not None:
        name = user_name(process.uid)
        facts.append(f"user {process.uid}" if name is None else f"user {escape(name)} ({process.uid})")
    if process.container_id is not None:
        facts.append(f"container {plain(process.container_id)[:12]}")
    head.append(Segment("".join(GAP + fact for fact in facts), PLAIN))
    yield head
    if process.exe is not None:
        yield _named("program", plain(process.exe), width)
    if process.cmdline:
        yield from _command(process.cmdline, width)
    parents = " < ".join(identify(one.name[:64], one.pid) for one in ancestors[:_MOST_ANCESTORS])
    if not parents and process.ppid is not None:
        parents = identify(process.parent_name, process.ppid)
    if parents:
        yield _named("parents", parents, width)


def _named(label: str, text: str, width: int) -> Line:
    return [Segment(f"{label} ", DIM), Segment(wrapped(text, max(width - len(label) - 1, 8))[0], PLAIN)]


def _command(cmdline: Sequence[str], width: int) -> Iterator[Line]:
    some, room = [], _COMMAND_CHARACTERS
    for argument in cmdline:
        if room <= 0:
            break
        some.append(argument[:room])
        room -= len(argument) + 1
    label = "command "
    lines = wrapped(join_command(some), max(width - len(label), 8))
    if len(lines) > _COMMAND_LINES or room <= 0:
        lines = [*lines[: _COMMAND_LINES - 1], lines[_COMMAND_LINES - 1][: width - len(label) - 3] + "..."]
    for number, line in enumerate(lines):
        yield [Segment(" " * len(label) if number else label, DIM), Segment(line, PLAIN)]


def _figures(row: Row, look: Look) -> Iterator[Line]:
    def each(size: float) -> str:
        return amount_text(size, look.units)

    yield [
        Segment("now     ", DIM),
        Segment(f"sent {each(row.rate.sent_bytes)}/s{GAP}received {each(row.rate.received_bytes)}/s", BOLD),
        Segment(f"{GAP}mean {each(row.mean.sent_bytes)}/s, {each(row.mean.received_bytes)}/s", PLAIN),
    ]
    internal = within_host(row.total)
    total = f"sent {each(row.total.sent_bytes)}{GAP}received {each(row.total.received_bytes)}"
    if row.total.passed_bytes:
        total += f"{GAP}passed {each(row.total.passed_bytes)}"
    if internal:
        total += f"{GAP}internal {each(internal)}"
    yield [Segment("total   ", DIM), Segment(total, PLAIN)]
