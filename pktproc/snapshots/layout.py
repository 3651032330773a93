"""How facts lie in a store: an SQLite database, described column by column in docs/formats.md."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pktproc.errors import StoreError
from pktproc.model import Process, ProcessId

APPLICATION_ID = 0x706B7470
"""`pktp`, in the header of the database (`PRAGMA application_id`), by which file(1) and pktproc know a store."""

_FIRST_FORMAT = """
CREATE TABLE host (
    id INTEGER PRIMARY KEY,
    boot_id TEXT NOT NULL,
    name TEXT NOT NULL,
    kernel TEXT NOT NULL,
    UNIQUE (boot_id, name, kernel)
);
CREATE TABLE coverage (
    id INTEGER PRIMARY KEY,
    host INTEGER NOT NULL REFERENCES host,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    verified INTEGER NOT NULL,
    engine TEXT NOT NULL,
    hears_ends INTEGER NOT NULL,
    interval INTEGER NOT NULL
);
CREATE TABLE deaf (
    first INTEGER NOT NULL,
    last INTEGER NOT NULL
);
CREATE TABLE address (
    id INTEGER PRIMARY KEY,
    netns INTEGER NOT NULL,
    address BLOB NOT NULL,
    broadcast INTEGER NOT NULL,
    after INTEGER,
    first INTEGER NOT NULL,
    last INTEGER,
    before INTEGER
);
CREATE INDEX address_by_address ON address (address);
CREATE INDEX address_by_last ON address (last);
CREATE TABLE process (
    id INTEGER PRIMARY KEY,
    pid INTEGER NOT NULL,
    start_ticks INTEGER NOT NULL,
    start INTEGER NOT NULL,
    name TEXT NOT NULL,
    exe TEXT,
    cmdline TEXT,
    uid INTEGER,
    ppid INTEGER,
    parent_name TEXT,
    container TEXT,
    ancestors TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER
);
CREATE INDEX process_by_pid ON process (pid);
CREATE INDEX process_by_last ON process (last);
CREATE TABLE socket (
    id INTEGER PRIMARY KEY,
    netns INTEGER NOT NULL,
    protocol INTEGER NOT NULL,
    local_address BLOB NOT NULL,
    local_port INTEGER NOT NULL,
    remote_address BLOB NOT NULL,
    remote_port INTEGER NOT NULL,
    state INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    cookie INTEGER NOT NULL,
    uid INTEGER,
    ifindex INTEGER NOT NULL,
    v6_only INTEGER NOT NULL,
    raw INTEGER NOT NULL,
    after INTEGER,
    first INTEGER NOT NULL,
    last INTEGER,
    before INTEGER
);
CREATE INDEX socket_by_ends ON socket (netns, protocol, local_port, remote_port, remote_address);
CREATE INDEX socket_by_last ON socket (last);
CREATE TABLE holder (
    socket INTEGER NOT NULL REFERENCES socket,
    process INTEGER NOT NULL REFERENCES process,
    after INTEGER,
    first INTEGER NOT NULL,
    last INTEGER,
    before INTEGER,
    PRIMARY KEY (socket, process, first)
) WITHOUT ROWID;
CREATE INDEX holder_by_process ON holder (process);
"""

_WITH_UNITS = "ALTER TABLE process ADD COLUMN unit TEXT"
_WITH_USES = """
ALTER TABLE process ADD COLUMN ended INTEGER;
ALTER TABLE socket ADD COLUMN closed INTEGER;
CREATE TABLE use (
    socket INTEGER NOT NULL REFERENCES socket,
    way INTEGER NOT NULL,
    process INTEGER REFERENCES process,
    time INTEGER NOT NULL,
    previous INTEGER NOT NULL,
    local_address BLOB NOT NULL,
    local_port INTEGER NOT NULL,
    remote_address BLOB NOT NULL,
    remote_port INTEGER NOT NULL
);
CREATE INDEX use_by_socket ON use (socket);
CREATE INDEX use_by_ends ON use (local_port, remote_port, remote_address);
CREATE TABLE unwitnessed (
    first INTEGER NOT NULL,
    last INTEGER NOT NULL
)
"""

MIGRATIONS = (_FIRST_FORMAT, _WITH_UNITS, _WITH_USES)
"""Scripts, each of which turns a store of the format before it into the next; the first one makes an empty file one."""

ADD_SOCKET = """
INSERT INTO socket (
    netns, protocol, local_address, local_port, remote_address, remote_port, state, inode, cookie, uid, ifindex,
    v6_only, raw, after, first, last, before
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
DESCRIBE_SOCKET = """
UPDATE socket SET (
    netns, protocol, local_address, local_port, remote_address, remote_port, state, inode, uid, ifindex, v6_only, raw
) = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) WHERE id = ?
"""
ADD_PROCESS = """
INSERT INTO process (
    pid, start_ticks, start, name, exe, cmdline, uid, ppid, parent_name, container, ancestors, unit, first
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
FIND_SOCKETS = """
SELECT
    s.id, s.netns, s.protocol, s.local_address, s.local_port, s.remote_address, s.remote_port, s.state, s.inode,
    s.cookie, s.uid, s.ifindex, s.v6_only, s.raw, s.after, s.first, s.last, s.before,
    h.process, h.after, h.first, h.last, h.before
FROM socket s LEFT JOIN holder h ON h.socket = s.id WHERE """
"""To be followed by a condition; not sorted, which would cost as much as the search."""
ADD_USE = """
INSERT INTO use (socket, way, process, time, previous, local_address, local_port, remote_address, remote_port)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
FIND_USES = """
SELECT s.cookie, s.closed, u.way, u.process, u.time, u.previous, p.ended,
    u.local_address, u.local_port, u.remote_address, u.remote_port
FROM socket s JOIN use u ON u.socket = s.id LEFT JOIN process p ON p.id = u.process
WHERE s.id IN (
    SELECT o.id FROM use t JOIN socket o ON o.id = t.socket
    WHERE t.local_port = :local_port AND t.remote_port = :remote_port AND t.remote_address = :remote_address
    AND t.local_address = :local_address AND o.netns = :netns AND o.protocol = :protocol
)
ORDER BY u.time
"""
FIND_ADDRESSES = """
SELECT netns, broadcast, after, first, last, before FROM address WHERE address = ? ORDER BY first
"""
_FIND_PROCESS = """
SELECT pid, start_ticks, start, name, exe, cmdline, uid, ppid, parent_name, container, ancestors, {unit}
FROM process WHERE id = ?
"""
_FORMAT_WITH_UNITS = 2
FORMAT_WITH_USES = 3
"""From this format on a store has what a witness told: `use`, `unwitnessed`, `process.ended` and `socket.closed`."""
BUSY_S = 5.0
MAKERS = "pktproc record and pktproc snapshot make stores"
"""The cure for a file that is none."""

_TEXT_OF_DAMAGE = ("malformed", "not a database", "corrupt")
Value = str | bytes | int | None
Values = Sequence[Value] | Mapping[str, Value]


@contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """Turn the errors of SQLite and of the file system within a with block into `StoreError`."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(words(path, error)) from error
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error


def words(path: Path, error: sqlite3.Error) -> str:
    """Return what to say about an error of SQLite: which store, what, and the cure if there is one."""
    reason = str(error)
    if "not a database" in reason:
        return f"{path} is not a snapshot store; {MAKERS}"
    if "is full" in reason:
        return f"cannot write {path}: no space left on the device"
    if any(word in reason for word in _TEXT_OF_DAMAGE):
        return f"{path} is damaged: {reason}; `sqlite3 {path} .recover` saves what can be"
    return f"{path}: {reason}"


def format_of(connection: sqlite3.Connection, path: Path, known: int = len(MIGRATIONS)) -> int:
    """Return the format of a store, 0 for an empty file; raise `StoreError` for what is none, or of a newer format."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    number = int(connection.execute("PRAGMA user_version").fetchone()[0])
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if tables and application != APPLICATION_ID:
        raise StoreError(f"{path} is not a snapshot store: it is a database of another program; {MAKERS}")
    if number > known:
        raise StoreError(f"{path} has format {number}, this pktproc knows none above {known}: use a newer pktproc")
    return number if tables else 0


def find_process(number: int = len(MIGRATIONS)) -> str:
    """Return the query for a process in a store of some format; before format 2 no unit was kept."""
    return _FIND_PROCESS.format(unit="unit" if number >= _FORMAT_WITH_UNITS else "NULL")


def text_value(text: str | None) -> Value:
    """Return what stands for a text in a column: itself, or its bytes if they are not UTF-8."""
    if text is None:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text)
    return text


def text_of(value: object) -> str:
    """Return the text that a column's value stands for."""
    return os.fsdecode(value) if isinstance(value, bytes) else str(value)


def arguments_value(arguments: Sequence[str] | None) -> str | None:
    r"""Return a command line as a JSON array; undecodable bytes are lone surrogates in `\u` escapes."""
    if arguments is None:
        return None
    text = json.dumps(arguments, ensure_ascii=False)
    return text if isinstance(text_value(text), str) else json.dumps(arguments)


def process_values(process: Process) -> tuple[Value, ...]:
    """Return the values for a process in `ADD_PROCESS`, but the last."""
    return (
        process.pid,
        process.start_ticks,
        process.start_ns,
        text_value(process.name),
        text_value(process.exe),
        arguments_value(process.cmdline),
        process.uid,
        process.ppid,
        text_value(process.parent_name),
        process.container_id,
        json.dumps(process.ancestors),
        text_value(process.unit),
    )


def process_of(values: Sequence[object]) -> Process:
    """Return the process that a row of `find_process` describes; raise ValueError or TypeError for nonsense."""
    pid, start_ticks, start_ns, name, exe, cmdline, uid, ppid, parent_name, container, ancestors, unit = values
    arguments = None if cmdline is None else json.loads(str(cmdline))
    return Process(
        pid=_number(pid),
        start_ticks=_number(start_ticks),
        start_ns=_number(start_ns),
        name=text_of(name),
        exe=None if exe is None else text_of(exe),
        cmdline=None if arguments is None else tuple(map(str, arguments)),
        uid=None if uid is None else _number(uid),
        ppid=None if ppid is None else _number(ppid),
        parent_name=None if parent_name is None else text_of(parent_name),
        container_id=None if container is None else str(container),
        ancestors=tuple(ProcessId(int(pid), int(ticks)) for pid, ticks in json.loads(str(ancestors))),
        unit=None if unit is None else text_of(unit),
    )


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"not a number: {value!r}")
    return value


def signed(number: int) -> int:
    """Return a number of 64 bits as SQLite has it, which knows only signed ones."""
    return number - (1 << 64) if number >= 1 << 63 else number


def unsigned(number: int) -> int:
    """Return the number of 64 bits that SQLite has as a signed one."""
    return number & (1 << 64) - 1
