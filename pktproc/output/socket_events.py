"""A socket that opens or closes, as a line of text and as a JSON object."""

from __future__ import annotations

import time
from typing import Any

from pktproc.inventory.chronicle import OPENED, Happening
from pktproc.inventory.rows import Listing
from pktproc.inventory.states import LABELS
from pktproc.output.clock import utc
from pktproc.output.socket_ends import Ends
from pktproc.output.socket_export import Objects, Processes
from pktproc.output.socket_table import NOBODY, end_text, holder_text

_NS_PER_S = 1_000_000_000
_NS_PER_MS = 1_000_000
_UNSEEN = "?closed"


def event_line(happening: Happening, ends: Ends) -> str:
    """Return a line that says that a socket opened or closed, and whose it was."""
    entry = happening.entry
    row = entry.row
    seconds, fraction = divmod(happening.time_ns, _NS_PER_S)
    clock = f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{fraction // _NS_PER_MS:03d}"
    holder = holder_text(entry.holders, row.inode, denied=False, last=entry.last)
    if not entry.holders:
        holder = NOBODY if happening.action == OPENED else _UNSEEN
    state = LABELS.get(row.state, str(row.state))
    local, remote = end_text(row, ends.local(row)), end_text(row, ends.remote(row, entry.peer))
    return f"{clock} {happening.action:6} {row.kind:5} {state:10} {local} {remote} {holder}"


def event_object(
    happening: Happening, listing: Listing, processes: Processes, *, cmdline: bool = True
) -> dict[str, Any]:
    """Return what happened to the only socket of a listing as an object."""
    (found,) = Objects(processes, {}, cmdline=cmdline).of(listing)
    return {"@timestamp": utc(happening.time_ns), "event": {"action": f"socket-{happening.action}"}} | found
