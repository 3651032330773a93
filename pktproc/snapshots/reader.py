"""A store as its readers see it: rows turned back into the nouns, with the times in which they were true."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import stat
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cachetools import LRUCache

from pktproc.attribution.engine import Ends, Use, Way
from pktproc.attribution.history import (
    Coverage,
    RecordedAddress,
    RecordedHolder,
    RecordedSocket,
    RecordedUse,
    Span,
)
from pktproc.errors import StoreError
from pktproc.model import Process, Socket
from pktproc.snapshots import layout, soundness
from pktproc.snapshots.layout import errors_of

MAX_PROCESSES = 1 << 14
WITNESS = "ebpf"
"""The engine that tells of uses."""

_CACHE_KIB = 32 << 10

_NONSENSE = (ValueError, TypeError, OverflowError, RecursionError)
Row = Sequence[Any]


class StoreReader:
    """Read a store as it is when this is made, also while it is recorded into.

    `coverage` are the intervals in which recording ran, `witnessed` those of them in which a witness in the kernel told
    everything. A store of an older format is read as it is. Raise `StoreError`
    for what is not a store, is damaged or has a newer format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._processes: LRUCache[int, Process] = LRUCache(MAX_PROCESSES)
        with errors_of(self.path), contextlib.ExitStack() as opened:
            self._check_access()
            self._connection = _connect(self.path)
            opened.callback(self._connection.close)
            self._begin()
            self.coverage = self._read_coverage()
            self.witnessed = self._read_witnessed() if self._format >= layout.FORMAT_WITH_USES else []
            self._opened = opened.pop_all()
        self._end_ns = self.coverage[-1].last_ns if self.coverage else 0
        verified = self.rows("SELECT verified FROM coverage ORDER BY id DESC LIMIT 1")
        self._verified_ns = int(verified[0][0]) if verified else 0

    def _check_access(self) -> None:
        """Raise what says more than SQLite's errors do; nothing is opened, which would let go of locks (fcntl(2))."""
        try:
            mode = self.path.stat().st_mode
        except FileNotFoundError as error:
            message = f"{self.path}: {error.strerror}; {layout.MAKERS}, at the time that is asked about"
            raise StoreError(message) from error
        if not stat.S_ISREG(mode):
            raise StoreError(f"{self.path} is not a file")
        if not os.access(self.path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self.path))

    def _begin(self) -> None:
        """Begin a transaction, so that all is read as of one time."""
        self._connection.execute("PRAGMA trusted_schema = OFF")
        self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._connection.execute("BEGIN")
        number = self._format = layout.format_of(self._connection, self.path)
        if number == 0:
            raise StoreError(f"{self.path} is not a snapshot store: it is empty; {layout.MAKERS}")
        self._find_process = layout.find_process(number)
        soundness.check(self._connection, self.path)

    def close(self) -> None:
        """Close the store."""
        self._opened.close()

    def rows(self, query: str, values: layout.Values = ()) -> list[Row]:
        """Return what a query finds."""
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(layout.words(self.path, error)) from error

    def sockets(self, where: str, values: layout.Values) -> list[RecordedSocket]:
        """Return the sockets (`s`) for which an SQL condition is true."""
        return [recorded for _, recorded in self.numbered_sockets(where, values)]

    def numbered_sockets(self, where: str, values: layout.Values) -> list[tuple[int, RecordedSocket]]:
        """Return the sockets (`s`) for which an SQL condition is true, each with the number of its row."""
        found: dict[int, list[Row]] = {}
        for row in self.rows(layout.FIND_SOCKETS + where, values):
            found.setdefault(row[0], []).append(row)
        if not found:
            return []
        with self._checked():
            return [(number, self._socket(rows)) for number, rows in found.items()]

    def process(self, row: int) -> Process:
        """Return the process of a row."""
        process = self._processes.get(row)
        if process is None:
            found = self.rows(self._find_process, (row,))
            with self._checked():
                process = self._processes[row] = layout.process_of(found[0])
        return process

    def addresses(self, address: bytes) -> list[RecordedAddress]:
        """Return when which namespaces had an address."""
        found = self.rows(layout.FIND_ADDRESSES, (address,))
        with self._checked():
            return [
                RecordedAddress(_number(netns), _span(times, self._end_ns), bool(broadcast))
                for netns, broadcast, *times in found
            ]

    def uses(self, ends: Ends) -> list[RecordedUse]:
        """Return what a witness told of all sockets that were ever used with just these ends, in order of time."""
        found = self.rows(layout.FIND_USES, ends._asdict())
        with self._checked():
            return [self._use(row, ends) for row in found]

    def _use(self, row: Row, ends: Ends) -> RecordedUse:
        cookie, closed, way, process, time_ns, previous_ns, ended, *own = row
        cookie = layout.unsigned(_number(cookie))
        use = Use(
            _number(time_ns),
            Way(way),
            0 if way == Way.COMES_IN.value else cookie,
            Ends(ends.netns, ends.protocol, *own),
            None if process is None else self.process(process),
            _number(previous_ns),
        )
        return RecordedUse(cookie, use, closed, ended)

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except (*_NONSENSE, IndexError) as error:
            raise StoreError(f"{self.path} is damaged: {error}") from error

    def _socket(self, rows: list[Row]) -> RecordedSocket:
        _, *facts = rows[0][:14]
        facts[8] = layout.unsigned(facts[8])
        facts[11], facts[12] = bool(facts[11]), bool(facts[12])
        socket = Socket(*facts)
        for address in (socket.local_address, socket.remote_address):
            if not isinstance(address, bytes) or len(address) != 16:
                raise ValueError(f"not an address: {address!r}")
        for number in (*socket[:2], socket.local_port, *socket[5:9], socket.uid or 0, socket.ifindex):
            _number(number)
        # A process that still holds it was last seen to by the last look at all of them.
        holders = tuple(
            RecordedHolder(self.process(row[18]), _span(row[19:], self._verified_ns))
            for row in rows
            if row[18] is not None
        )
        return RecordedSocket(socket, _span(rows[0][14:18], self._end_ns), holders)

    def _read_coverage(self) -> list[Coverage]:
        found = self.rows("SELECT first, last, engine, hears_ends, interval FROM coverage ORDER BY id")
        deaf = self.rows("SELECT first, last FROM deaf ORDER BY first")
        with self._checked():
            recorded = [Coverage(int(row[0]), int(row[1]), str(row[2]), bool(row[3]), int(row[4])) for row in found]
            kept = _without_overlap(recorded)
            if kept and self._has_facts_before(kept[0].first_ns):
                kept[0] = kept[0]._replace(is_cut=True)
            return _without_deafness(kept, [(int(first), int(last)) for first, last in deaf])

    def _read_witnessed(self) -> list[tuple[int, int]]:
        """Return the times in which the engine was a witness and nothing of what it told was lost."""
        lost = self.rows("SELECT first, last FROM unwitnessed ORDER BY first")
        with self._checked():
            times = [(one.first_ns, one.last_ns) for one in self.coverage if one.engine == WITNESS]
            return list(_without(list(_joined(times)), [(_number(first), _number(last)) for first, last in lost]))

    def _has_facts_before(self, time_ns: int) -> bool:
        """Say whether an address was seen before a time: then what was recorded then has been dropped."""
        return bool(self.rows("SELECT 1 FROM address WHERE first < ? LIMIT 1", (time_ns,)))


def _span(times: Row, end_ns: int) -> Span:
    """Return the times of a row; what has no end yet lasts until `end_ns`."""
    after, first, last, before = times
    span = Span(after, first, max(first, end_ns) if last is None else last, before)
    for time_ns in span:
        if time_ns is not None:
            _number(time_ns)
    return span


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"not a number: {value!r}")
    return value


def _connect(path: Path) -> sqlite3.Connection:
    """Open a database for reading; one in a folder that cannot be written, if nobody writes it just now."""
    name = f"file:{quote(os.fsencode(path.absolute()))}?mode=ro"
    connection = sqlite3.connect(name, timeout=layout.BUSY_S, isolation_level=None, uri=True)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        if "unable to open" not in str(error) or path.with_name(f"{path.name}-wal").exists():
            raise
        return sqlite3.connect(f"{name}&immutable=1", isolation_level=None, uri=True)
    return connection


def _without_overlap(recorded: list[Coverage]) -> list[Coverage]:
    """Return intervals in order; where a clock was set back the later one counts."""
    kept: list[Coverage] = []
    for covered in recorded:
        while kept and kept[-1].first_ns >= covered.first_ns:
            kept.pop()
        if kept and kept[-1].last_ns >= covered.first_ns:
            kept[-1] = kept[-1]._replace(last_ns=covered.first_ns - 1)
        kept.append(covered)
    return kept


def _without_deafness(recorded: list[Coverage], deaf: list[tuple[int, int]]) -> list[Coverage]:
    """Return intervals of which those that lie in a time of deafness do not hear ends; `deaf` is in order."""
    deaf = list(_joined(deaf))
    ends = [last_ns for _, last_ns in deaf]
    parts: list[Coverage] = []
    for covered in recorded:
        heard_ns = covered.first_ns
        for first_ns, last_ns in deaf[bisect_left(ends, heard_ns) :] if covered.hears_ends else ():
            if first_ns > covered.last_ns:
                break
            begin_ns, end_ns = max(first_ns, covered.first_ns), min(last_ns, covered.last_ns)
            if heard_ns < begin_ns:
                parts.append(covered._replace(first_ns=heard_ns, last_ns=begin_ns - 1))
            parts.append(covered._replace(first_ns=begin_ns, last_ns=end_ns, hears_ends=False))
            heard_ns = end_ns + 1
        if heard_ns <= covered.last_ns:
            parts.append(covered._replace(first_ns=heard_ns))
    return parts


def _without(times: list[tuple[int, int]], lost: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield what some times have beside others; both are in order and do not overlap among themselves."""
    for first_ns, last_ns in times:
        begin_ns = first_ns
        for lost_first_ns, lost_last_ns in _joined(lost):
            if begin_ns <= lost_last_ns and lost_first_ns <= last_ns:
                if begin_ns < lost_first_ns:
                    yield begin_ns, lost_first_ns - 1
                begin_ns = lost_last_ns + 1
        if begin_ns <= last_ns:
            yield begin_ns, last_ns


def _joined(times: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield times in order without overlap, of some that are in order of their beginnings."""
    latest: tuple[int, int] | None = None
    for first_ns, last_ns in times:
        if latest is None or first_ns > latest[1] + 1:
            if latest:
                yield latest
            latest = first_ns, last_ns
        else:
            latest = latest[0], max(latest[1], last_ns)
    if latest:
        yield latest
