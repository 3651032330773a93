"""The columns of groups: processes, programs, users, containers, remotes."""

from __future__ import annotations

from collections.abc import Callable

from pktproc.bandwidth.views import Amount, Row
from pktproc.model import pack_address
from pktproc.output.amounts import amount_text
from pktproc.output.escape import join_command
from pktproc.output.names import user_name
from pktproc.tui.columns import Column, Look, Rank, plain
from pktproc.tui.figures import count_text, sparkline

GROUPS = {
    "process": ("process",),
    "program": ("name",),
    "user": ("user",),
    "container": ("container",),
    "remote": ("remote",),
}
"""What can be grouped by, as the screen calls it and as a view does."""

UNNAMED = "-"

Of = Callable[[Row], Amount]


def row_name(row: Row, look: Look) -> str:
    """Return what a group is called, safe to show."""
    if row.reason is not None:
        return f"?{row.reason}"
    if row.process is not None and len(row.key) == 1 and row.key[0].startswith(f"{row.process.pid}:"):
        return plain(row.process.name)
    text = ", ".join(plain(part) for part in row.key if part)
    return _with_host_name(row.key[0], look) or text or UNNAMED


def _with_host_name(text: str, look: Look) -> str | None:
    try:
        name = look.names.name(pack_address(text))
    except ValueError:
        return None
    return None if name is None else f"{plain(name)} ({text})"


def row_search(row: Row, look: Look) -> str:
    """Return the text in which the filter looks."""
    parts = [*row.key, f"?{row.reason}" if row.reason else ""]
    if row.process is not None:
        process = row.process
        parts += [process.name, str(process.pid), process.exe or "", *(process.cmdline or ()), _user(row)]
    elif look.names.on:
        parts += [_known(text, look) for text in row.key]
    return "\n".join(parts).lower()


def _known(text: str, look: Look) -> str:
    try:
        return look.names.known(pack_address(text)) or ""
    except ValueError:
        return ""


def user_text(uid: int | None) -> str:
    """Return the name of a user, its number where it has none."""
    if uid is None:
        return UNNAMED
    return user_name(uid) or str(uid)


def _user(row: Row) -> str:
    return UNNAMED if row.process is None else user_text(row.process.uid)


def both_ways(amount: Amount) -> float:
    """Return what was sent, received and, without an end here, passed."""
    return amount.sent_bytes + amount.received_bytes + amount.passed_bytes


def within_host(amount: Amount) -> float:
    """Return what was sent and received with the other end on this host."""
    return amount.local_sent_bytes + amount.local_received_bytes


def _amounts(title: str, letter: str, size: Callable[[Row], float]) -> Column[Row]:
    def text(row: Row, look: Look, width: int) -> str:
        del width
        return amount_text(size(row), look.units)

    return Column(title, letter, text, lambda row: (size(row), ""))


def _counts(title: str, letter: str, count: Callable[[Row], float]) -> Column[Row]:
    def text(row: Row, look: Look, width: int) -> str:
        del look, width
        return count_text(count(row))

    return Column(title, letter, text, lambda row: (count(row), ""), least=max(5, len(title)))


def _name(row: Row, look: Look, width: int) -> str:
    del width
    return row_name(row, look)


def _name_rank(row: Row) -> Rank:
    return 0, (row.process.name if row.process is not None else row.key[0] if row.key else "").lower()


def _pid(row: Row, look: Look, width: int) -> str:
    del look, width
    return UNNAMED if row.process is None else str(row.process.pid)


def _pid_rank(row: Row) -> Rank:
    return (row.process.pid if row.process is not None else 0), ""


def _user_cell(row: Row, look: Look, width: int) -> str:
    del look, width
    return plain(_user(row))


def _command(row: Row, look: Look, width: int) -> str:
    del look
    if row.process is None or row.process.cmdline is None:
        return UNNAMED
    some, room = [], width
    for argument in row.process.cmdline:
        if room < 0:
            break
        some.append(argument[: width + 1])
        room -= len(argument) + 1
    return join_command(some)


def _history(row: Row, look: Look, width: int) -> str:
    del look
    return sparkline(row.history, width)


NAME = Column("Name", "N", _name, _name_rank, least=12, most=20, descends=False)
REMOTE = Column("Remote", "N", _name, _name_rank, least=20, most=60, descends=False)
PID = Column("PID", "P", _pid, _pid_rank, least=7)
USER = Column("User", "U", _user_cell, lambda row: (0, _user(row)), least=8, descends=False)
SENT_RATE = _amounts("Sent/s", "S", lambda row: row.rate.sent_bytes)
RECEIVED_RATE = _amounts("Recv/s", "R", lambda row: row.rate.received_bytes)
MEAN_SENT = _amounts("Avg sent", "", lambda row: row.mean.sent_bytes)
MEAN_RECEIVED = _amounts("Avg recv", "", lambda row: row.mean.received_bytes)
BUSIEST = _amounts("Busiest", "B", lambda row: both_ways(row.rate))
PEAK = _amounts("Peak", "", lambda row: both_ways(row.peak))
SENT = _amounts("Sent", "S", lambda row: row.total.sent_bytes)
RECEIVED = _amounts("Received", "R", lambda row: row.total.received_bytes)
TOTAL = _amounts("Total", "T", lambda row: both_ways(row.total))
INTERNAL = _amounts("Internal", "I", lambda row: within_host(row.total))
PACKETS = _counts("Packets", "", lambda row: row.total.sent_packets + row.total.received_packets)
CONNECTIONS = _counts("Conns", "C", lambda row: row.connections)
OPEN = _counts("Open", "", lambda row: row.open_connections)
HISTORY = Column("History", "", _history, lambda _: (0, ""), least=8, most=20, sortable=False)
COMMAND = Column("Command", "", _command, lambda _: (0, ""), least=24, most=1000, descends=False, sortable=False)

ROW_COLUMNS = (
    NAME, REMOTE, PID, USER, SENT_RATE, RECEIVED_RATE, MEAN_SENT, MEAN_RECEIVED, PEAK, SENT, RECEIVED, TOTAL, INTERNAL,
    PACKETS, CONNECTIONS, OPEN, HISTORY, COMMAND, BUSIEST,
)  # fmt: skip
"""All columns in the order in which they stand; `BUSIEST` is never shown, only sorted by."""

_NOW = (
    SENT_RATE, RECEIVED_RATE, CONNECTIONS, TOTAL, HISTORY, USER, MEAN_SENT, MEAN_RECEIVED, INTERNAL, SENT, RECEIVED,
    COMMAND, PEAK, OPEN, PACKETS,
)  # fmt: skip
_SUM = (
    SENT, RECEIVED, TOTAL, CONNECTIONS, MEAN_SENT, MEAN_RECEIVED, INTERNAL, USER, PACKETS, PEAK, SENT_RATE,
    RECEIVED_RATE, HISTORY, COMMAND, OPEN,
)  # fmt: skip
_OF_ONE_PROCESS = frozenset({PID.title, USER.title, COMMAND.title})


def wanted_columns(group: str, *, cumulative: bool) -> tuple[Column[Row], ...]:
    """Return the columns of a group, the most wanted first."""
    figures = _SUM if cumulative else _NOW
    if group == "process":
        return NAME, PID, *figures
    first = REMOTE if group == "remote" else NAME
    return first, *(column for column in figures if column.title not in _OF_ONE_PROCESS)
