"""The store as its one writer sees it: opened, locked, brought up to date, and filled row by row."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pktproc.attribution.engine import Use
from pktproc.errors import StoreError
from pktproc.model import Process, Socket
from pktproc.snapshots import layout
from pktproc.snapshots.layout import errors_of

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_FILE_MODE = 0o600
# The write-ahead log is taken over into the store whenever it has so many pages of 4 KiB, and cut to this length then.
_LOG_PAGES = 128
_LOG_BYTES = 1 << 19

# What is still true at the end of a recording, or was when it was killed, ends with the coverage; holders end with the
# last look at all of them.
_END = "max(first, (SELECT {end} FROM coverage ORDER BY id DESC LIMIT 1))"
_SETTLE = tuple(
    f"UPDATE {table} SET last = {_END.format(end=end)} WHERE last IS NULL"  # noqa: S608 - constants
    for table, end in (("address", "last"), ("process", "last"), ("socket", "last"), ("holder", "verified"))
)


class Store:
    """Write a store, made if there is none; nobody else can at the same time.

    Rows are written within `transaction`. A row that has no end yet is true until further notice. Raise `StoreError`
    for a file that is not a store or that cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], *, migrations: Sequence[str] = layout.MIGRATIONS) -> None:
        self.path = Path(path)
        with errors_of(self.path), contextlib.ExitStack() as opened:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            # Held open as long as the connection: to close it earlier would let go of SQLite's own locks (fcntl(2)).
            self._file = os.open(self.path, flags, _FILE_MODE)
            opened.callback(os.close, self._file)
            self._lock()
            self._connection = sqlite3.connect(self.path, timeout=layout.BUSY_S, isolation_level=None)
            opened.callback(self._connection.close)
            self._bring_up_to_date(migrations)
            self._configure()
            self._opened = opened.pop_all()

    def _lock(self) -> None:
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise StoreError(f"{self.path} is not a file")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{self.path}: another pktproc is recording into it") from None

    def _bring_up_to_date(self, migrations: Sequence[str]) -> None:
        number = layout.format_of(self._connection, self.path, len(migrations))
        if number == 0:
            self._run("PRAGMA auto_vacuum = INCREMENTAL")  # before anything is in the file
            self._run(f"PRAGMA application_id = {layout.APPLICATION_ID}")
        for position in range(number, len(migrations)):
            script = f"BEGIN IMMEDIATE; {migrations[position]}; PRAGMA user_version = {position + 1}; COMMIT;"
            self._connection.executescript(script)

    def _configure(self) -> None:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            f"wal_autocheckpoint = {_LOG_PAGES}",
            f"journal_size_limit = {_LOG_BYTES}",
        ):
            self._run(f"PRAGMA {pragma}").fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all that is written within a with block, or nothing."""
        self._check_identity()
        self._run("BEGIN IMMEDIATE")
        try:
            yield
            self._run("COMMIT")
        except BaseException:
            with contextlib.suppress(StoreError):
                self._run("ROLLBACK")
            raise

    def _check_identity(self) -> None:
        ours = os.fstat(self._file)
        try:
            there = self.path.stat()
        except FileNotFoundError:
            raise StoreError(f"{self.path} was removed while pktproc recorded into it") from None
        if (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino):
            raise StoreError(f"{self.path} was replaced while pktproc recorded into it")

    def _run(self, statement: str, values: layout.Values = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except sqlite3.Error as error:
            raise StoreError(layout.words(self.path, error)) from error

    def execute(self, statement: str, values: layout.Values = ()) -> int:
        """Run a statement and return how many rows it changed."""
        return self._run(statement, values).rowcount

    def number(self, query: str, values: layout.Values = ()) -> int | None:
        """Return the only value that a query asks for, None if there is none."""
        row = self._run(query, values).fetchone()
        if row is None or row[0] is None:
            return None
        if not isinstance(row[0], int):
            raise StoreError(f"{self.path} is damaged: not a number: {row[0]!r}")
        return row[0]

    def _insert(self, statement: str, values: layout.Values) -> int:
        row = self._run(statement, values).lastrowid
        assert row is not None
        return row

    # Coverage.

    def begin_coverage(self, first_ns: int, engine: str, *, hears_ends: bool, interval_ns: int) -> int:
        """Begin an interval of recording on this host; what an earlier one left open ends with that one."""
        self.settle()
        system = os.uname()
        boot_id = _BOOT_ID.read_text(encoding="ascii").strip()
        facts = (boot_id, os.fsencode(system.nodename).decode(errors="replace"), system.release)
        self.execute("INSERT OR IGNORE INTO host (boot_id, name, kernel) VALUES (?, ?, ?)", facts)
        host = self.number("SELECT id FROM host WHERE (boot_id, name, kernel) = (?, ?, ?)", facts)
        return self._insert(
            "INSERT INTO coverage (host, first, last, verified, engine, hears_ends, interval)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (host, first_ns, first_ns, first_ns, engine, hears_ends, interval_ns),
        )

    def extend_coverage(self, coverage: int, last_ns: int, verified_ns: int) -> None:
        """Take note that recording still ran, and when all holders were last asked."""
        self.execute("UPDATE coverage SET last = ?, verified = ? WHERE id = ?", (last_ns, verified_ns, coverage))

    def settle(self) -> None:
        """Give what is still true the end of the coverage as the time when it was last seen."""
        for statement in _SETTLE:
            self.execute(statement)

    def add_deafness(self, first_ns: int, last_ns: int) -> None:
        """Take note of a time in which ends of sockets were missed."""
        self.execute("INSERT INTO deaf (first, last) VALUES (?, ?)", (first_ns, last_ns))

    def add_unwitnessed(self, first_ns: int, last_ns: int) -> None:
        """Take note of a time in which uses of sockets were missed."""
        self.execute("INSERT INTO unwitnessed (first, last) VALUES (?, ?)", (first_ns, last_ns))

    # Facts.

    def add_address(self, netns: int, address: bytes, *, broadcast: bool, after_ns: int | None, first_ns: int) -> int:
        """Add an address of a namespace and return its row."""
        return self._insert(
            "INSERT INTO address (netns, address, broadcast, after, first) VALUES (?, ?, ?, ?, ?)",
            (netns, address, broadcast, after_ns, first_ns),
        )

    def end_address(self, row: int, last_ns: int, before_ns: int | None) -> None:
        """Take note that an address is gone."""
        self.execute("UPDATE address SET last = ?, before = ? WHERE id = ?", (last_ns, before_ns, row))

    def add_process(self, process: Process, first_ns: int) -> int:
        """Add a process as it is now and return its row."""
        return self._insert(layout.ADD_PROCESS, (*layout.process_values(process), first_ns))

    def resume_process(self, row: int) -> bool:
        """Take note that a process is seen again as it was; return False if its row is no longer there."""
        return self.execute("UPDATE process SET last = NULL WHERE id = ?", (row,)) > 0

    def end_process(self, row: int, last_ns: int) -> None:
        """Take note of when a process was last seen so."""
        self.execute("UPDATE process SET last = ? WHERE id = ?", (last_ns, row))

    def add_socket(
        self,
        socket: Socket,
        after_ns: int | None,
        first_ns: int,
        last_ns: int | None = None,
        before_ns: int | None = None,
    ) -> int:
        """Add a socket and return its row."""
        facts = (*socket[:8], layout.signed(socket.cookie), *socket[9:])
        return self._insert(layout.ADD_SOCKET, (*facts, after_ns, first_ns, last_ns, before_ns))

    def end_socket(self, row: int, last_ns: int, before_ns: int | None) -> None:
        """Take note that a socket is gone."""
        self.execute("UPDATE socket SET last = ?, before = ? WHERE id = ?", (last_ns, before_ns, row))

    def begin_socket(self, row: int, first_ns: int) -> None:
        """Take note that a socket was there earlier than a look has found it."""
        self.execute("UPDATE socket SET first = ?1, after = min(after, ?1) WHERE id = ?2", (first_ns, row))

    def describe_socket(self, row: int, socket: Socket) -> None:
        """Take note of what a look has found a socket to be of which only uses were told until then."""
        self.execute(layout.DESCRIBE_SOCKET, (*socket[:8], *socket[9:], row))

    def close_socket(self, row: int, closed_ns: int) -> None:
        """Take note of exactly when a socket was closed."""
        statement = "UPDATE socket SET first = min(first, ?1), last = ?1, before = ?1, closed = ?1 WHERE id = ?2"
        self.execute(statement, (closed_ns, row))

    def add_use(self, row: int, use: Use, process: int | None, time_ns: int, previous_ns: int) -> None:
        """Add what was done with a socket; the times are those since the epoch."""
        values = (row, use.way.value, process, time_ns, previous_ns, *use.ends[2:])
        self.execute(layout.ADD_USE, values)

    def exit_process(self, row: int, ended_ns: int) -> None:
        """Take note of exactly when a process ended."""
        self.execute("UPDATE process SET ended = ? WHERE id = ?", (ended_ns, row))

    def add_holder(self, socket: int, process: int, after_ns: int | None, first_ns: int) -> None:
        """Take note that a process holds a socket."""
        self.execute(
            "INSERT OR IGNORE INTO holder (socket, process, after, first) VALUES (?, ?, ?, ?)",
            (socket, process, after_ns, first_ns),
        )

    def end_holder(self, socket: int, process: int, first_ns: int, last_ns: int, before_ns: int | None) -> None:
        """Take note that a process holds a socket no longer."""
        self.execute(
            "UPDATE holder SET last = ?, before = ? WHERE (socket, process, first) = (?, ?, ?)",
            (last_ns, before_ns, socket, process, first_ns),
        )

    # Size.

    def used_bytes(self) -> int:
        """Return how much of the store's file is in use."""
        pages, free, size = (
            self.number(f"PRAGMA {name}") or 0 for name in ("page_count", "freelist_count", "page_size")
        )
        return (pages - free) * size

    def file_bytes(self) -> int:
        """Return the size of the store's file and of its log, if there is one, as they lie there now."""
        size = 0
        for path in (self.path, self.path.with_name(f"{self.path.name}-wal")):
            with contextlib.suppress(OSError):
                size += path.stat().st_size
        return size

    def shrink(self) -> None:
        """Give the space that is not in use any more back to the file system."""
        with errors_of(self.path):  # as a script, since it takes a step for each page
            self._connection.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Leave a store that is one plain file, unless somebody reads it just now."""
        with contextlib.suppress(StoreError):
            self._run("PRAGMA journal_mode = DELETE").fetchall()
        self._opened.close()
