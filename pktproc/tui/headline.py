"""What stands above the table: where, how long, how much, and what is not as it should be."""

from __future__ import annotations

from collections.abc import Iterator

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment

from pktproc.bandwidth.views import View
from pktproc.output.amounts import Units, amount_text
from pktproc.output.counting import counted
from pktproc.output.escape import escape
from pktproc.tui.arrange import Sums
from pktproc.tui.band import BOLD, DIM, NOTE, PLAIN, REVERSE, WARNING, Line
from pktproc.tui.choices import Choices
from pktproc.tui.columns import GAP
from pktproc.tui.figures import clock_text
from pktproc.tui.looker import Sight

_MORE_NOTES = "... (? has all)"


def headline(place: str, choices: Choices, sight: Sight | None, width: int) -> list[Line]:
    """Return the lines above the table."""
    head = [Segment("pktproc top", BOLD), Segment(f"{GAP}{escape(place)}", PLAIN)]
    if sight is None:
        return [[*head, Segment(f"{GAP}starting", DIM)]]
    view = sight.view
    if choices.paused:
        head += [Segment(GAP, PLAIN), Segment("PAUSED", BOLD + REVERSE)]
    facts = [view.engine, view.layer, clock_text(view.elapsed_s), f"every {choices.refresh_s:g} s"]
    facts.append(f"by {choices.group}" if choices.opened is None else f"over {view.rate_s:.3g} s")
    head.append(Segment(GAP + GAP.join(escape(fact) for fact in facts if fact), PLAIN))
    lines: list[Line] = [head]
    if choices.opened is None:
        lines += [list(_rates(view, sight.sums, choices)), list(_counts(view, sight.sums, choices.look.units))]
    return [*lines, *_notes(view, width), *_remark(sight)]


def _rates(view: View, total: Sums, choices: Choices) -> Iterator[Segment]:
    for name, rate in (("Sent", total.sent), ("Received", total.received), ("Internal", total.internal)):
        yield Segment(f"{name} ", PLAIN)
        yield Segment(f"{amount_text(rate, choices.look.units)}/s{GAP}", BOLD)
    yield Segment(f"over {view.rate_s:.3g} s{GAP}", PLAIN)
    yield Segment(f"sort {choices.order.title}{', inverted' if choices.order.reversed else ''}", PLAIN)


def _counts(view: View, total: Sums, units: Units) -> Iterator[Segment]:
    captured = view.captured
    parts = [f"Captured {amount_text(captured.bytes, units)}, {counted(captured.packets, 'packet')}"]
    if captured.bytes:
        share = 100 * total.unattributed / captured.bytes
        told = "<0.1" if 0 < share < 0.05 else f"{share:.1f}"
        parts.append(f"unattributed {amount_text(total.unattributed, units)} ({told} %)")
    yield Segment(", ".join(parts) + ", ", PLAIN)
    yield Segment(f"dropped {captured.dropped_packets}", WARNING if captured.dropped_packets else PLAIN)
    if captured.duplicate_packets:
        yield Segment(f", seen twice {captured.duplicate_packets}", PLAIN)


def _notes(view: View, width: int) -> Iterator[Line]:
    """Yield one line: the first of what the user should know; the help has all of it."""
    if view.notes:
        note = f"Note: {escape(view.notes[0])}"
        if len(view.notes) > 1 or cell_len(note) > width:
            note = set_cell_size(note, min(cell_len(note), width - len(_MORE_NOTES))) + _MORE_NOTES
        yield [Segment(note, NOTE)]


def _remark(sight: Sight) -> Iterator[Line]:
    """Yield a line on what is shown of the table, where that is not all."""
    is_page, found = sight.wish.opened is not None, sight.found
    shown, every = len(sight.rows), len(sight.view.rows)
    if is_page:
        shown, every = len(sight.connections), len(found.shown)
    parts = []
    if sight.wish.contains.strip():
        parts.append(f"{shown} of {counted(every, 'line')}")
    elif not every:
        parts.append("no traffic so far")
    if is_page and found.known > every:
        parts.append(f"{found.known - every:,} that moved less are left out")
    if is_page and found.folded:
        parts.append(f"{found.folded:,} ended ones are joined by remote end")
    if not is_page and sight.view.groups > every:
        parts.append(f"the {sight.view.groups - every + 1:,} that moved least are one line, others")
    if parts:
        yield [Segment("; ".join(parts), DIM)]


def wrapped(text: str, width: int) -> list[str]:
    """Return a text in lines of at most `width` cells, broken at blanks where that does not leave them half empty."""
    lines, line, size = [], "", 0
    for character in text:
        wide = cell_len(character)
        if size + wide > width:
            kept, blank, rest = line.rpartition(" ")
            if not blank or len(kept) <= width // 2:
                kept, rest = line, ""
            lines.append(kept)
            line, size = rest, cell_len(rest)
        line += character
        size += wide
    return [*lines, line]
