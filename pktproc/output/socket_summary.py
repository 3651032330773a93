"""How many sockets there are of what kind and in which state, and who holds most of them."""

from __future__ import annotations

from collections import Counter

from pktproc.inventory.rows import AF_INET6, INET, KINDS, Listing
from pktproc.inventory.states import LABELS
from pktproc.output.counting import counted
from pktproc.output.escape import escape_name
from pktproc.output.table_layout import Column, lay_out

_MOST = 10


def summary(listing: Listing) -> str:
    """Return three short tables: kinds, states of each, and the processes that hold most."""
    rows = [entry.row for entry in listing.entries]
    kinds = Counter(row.kind for row in rows)
    ordered = sorted(kinds, key=lambda kind: (KINDS.index(kind) if kind in KINDS else len(KINDS), kind))
    sixes = Counter(row.kind for row in rows if row.family == AF_INET6)
    inet = {row.kind for row in rows if row.family in INET}
    states = Counter((row.kind, row.state) for row in rows)
    columns = [
        Column("Netid", ordered),
        Column("Total", [str(kinds[kind]) for kind in ordered], right=True),
        Column("IPv4", [str(kinds[kind] - sixes[kind]) if kind in inet else "-" for kind in ordered], right=True),
        Column("IPv6", [str(sixes[kind]) if kind in inet else "-" for kind in ordered], right=True),
        Column("States", [_states(states, kind) for kind in ordered]),
    ]
    held = Counter(holder[:2] for entry in listing.entries if not entry.last for holder in entry.holders)
    most = held.most_common(_MOST)
    holders = [
        Column("Process", [f"{escape_name(name)}[{process.pid}]" for (process, name), _ in most]),
        Column("Sockets", [str(count) for _, count in most], right=True),
    ]
    return f"{counted(len(rows), 'socket')}\n\n{lay_out(columns)}\n{lay_out(holders)}"


def _states(states: Counter[tuple[str, int]], kind: str) -> str:
    found = sorted((state, count) for (of, state), count in states.items() if of == kind)
    return ", ".join(f"{LABELS.get(state, state)} {count}" for state, count in found)
