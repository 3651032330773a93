"""The columns of conversations."""

from __future__ import annotations

from collections.abc import Callable

from pktproc.bandwidth.views import Connection
from pktproc.model import V4_MAPPED_PREFIX, format_address
from pktproc.output.amounts import amount_text
from pktproc.output.names import PORT_PROTOCOLS, protocol_label
from pktproc.tui.columns import Column, Look, Rank, plain, shorten_middle
from pktproc.tui.figures import clock_text
from pktproc.tui.row_columns import UNNAMED, both_ways

_NS_PER_S = 1_000_000_000


def connection_key(connection: Connection) -> tuple[int | bytes, ...]:
    """Return what tells a conversation from the others."""
    return connection[:6]


def connection_search(connection: Connection, look: Look) -> str:
    """Return the text in which the filter looks."""
    parts = [
        _protocol(connection, look, 0),
        _end(format_address(connection.local_address), connection.local_port),
        _end(format_address(connection.remote_address), connection.remote_port),
        connection.state or "",
        look.names.known(connection.remote_address) or "",
    ]
    return "\n".join(parts).lower()


def _end(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _protocol(connection: Connection, look: Look, width: int) -> str:
    del look, width
    label = protocol_label(connection.protocol) if connection.protocol >= 0 else UNNAMED
    v6 = not connection.remote_address.startswith(V4_MAPPED_PREFIX) and connection.protocol in PORT_PROTOCOLS
    return f"{label}6" if v6 else label


def _port(connection: Connection, port: int) -> str:
    return f":{port}" if connection.protocol in PORT_PROTOCOLS else ""


def _remote(connection: Connection, look: Look, width: int) -> str:
    name = look.names.name(connection.remote_address)
    text = format_address(connection.remote_address) if name is None else plain(name)
    tail = _port(connection, connection.remote_port)
    if tail and ":" in text:
        text, tail = f"[{text}", f"]{tail}"
    return shorten_middle(text, tail, width)


def _local(connection: Connection, look: Look, width: int) -> str:
    del look
    text, tail = format_address(connection.local_address), _port(connection, connection.local_port)
    if len(text) + len(tail) > width:
        return tail or text
    return (f"[{text}]{tail}" if tail and ":" in text else text + tail) if width > _PORT_WIDTH else tail


def _state(connection: Connection, look: Look, width: int) -> str:
    del look, width
    return plain(connection.state) if connection.state else UNNAMED


def _age(connection: Connection, look: Look, width: int) -> str:
    del look, width
    return clock_text(max(0, connection.last_ns - connection.first_ns) / _NS_PER_S)


def _amounts(title: str, letter: str, size: Callable[[Connection], float]) -> Column[Connection]:
    def text(connection: Connection, look: Look, width: int) -> str:
        del width
        return amount_text(size(connection), look.units)

    return Column(title, letter, text, lambda connection: (size(connection), ""))


def _address_rank(address: bytes, port: int) -> Rank:
    return port, address.hex()


_PORT_WIDTH = 6
PROTOCOL = Column("Proto", "", _protocol, lambda one: (one.protocol, ""), least=5, descends=False)
LOCAL_PORT = Column("Local", "", _local, lambda one: (one.local_port, ""), least=_PORT_WIDTH, descends=False)
LOCAL = Column("Local address", "", _local, lambda one: _address_rank(one.local_address, one.local_port), least=21,
               descends=False)  # fmt: skip
REMOTE = Column("Remote", "N", _remote, lambda one: _address_rank(one.remote_address, one.remote_port), least=21,
                most=1000, descends=False)  # fmt: skip
STATE = Column("State", "", _state, lambda one: (0, one.state or ""), least=11, descends=False)
SENT_RATE = _amounts("Sent/s", "S", lambda one: one.rate.sent_bytes)
RECEIVED_RATE = _amounts("Recv/s", "R", lambda one: one.rate.received_bytes)
SENT = _amounts("Sent", "S", lambda one: one.total.sent_bytes)
RECEIVED = _amounts("Received", "R", lambda one: one.total.received_bytes)
TOTAL = _amounts("Total", "T", lambda one: both_ways(one.total))
BUSIEST = _amounts("Busiest", "B", lambda one: both_ways(one.rate))
AGE = Column("Time", "", _age, lambda one: (one.last_ns - one.first_ns, ""), least=8)

CONNECTION_COLUMNS = (
    PROTOCOL, LOCAL_PORT, LOCAL, REMOTE, STATE, SENT_RATE, RECEIVED_RATE, SENT, RECEIVED, TOTAL, AGE,
    BUSIEST,
)  # fmt: skip
"""All columns in the order in which they stand; `BUSIEST` is never shown, only sorted by."""

_WIDE = 110


def wanted_connection_columns(width: int, *, cumulative: bool) -> tuple[Column[Connection], ...]:
    """Return the columns for a width, the most wanted first."""
    local = LOCAL if width >= _WIDE else LOCAL_PORT
    if cumulative:
        return REMOTE, PROTOCOL, local, SENT, RECEIVED, STATE, TOTAL, AGE, SENT_RATE, RECEIVED_RATE
    return REMOTE, PROTOCOL, local, SENT_RATE, RECEIVED_RATE, STATE, TOTAL, AGE, SENT, RECEIVED
