"""Take out of a store what is not of some network namespaces."""  # noqa: INP001 - beside the program that records

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

PAGE_BYTES = 1024
"""A store has more than a dozen trees, each of at least a page."""
NEUTRAL_HOST = {"boot_id": "00000000-0000-0000-0000-000000000000", "name": "host", "kernel": "Linux"}


def scrub(store: Path, namespaces: Collection[int]) -> None:
    """Leave nothing but the addresses and sockets of the namespaces and these sockets' holders, on a neutral host."""
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE").fetchall()
        connection.execute("BEGIN")
        places = ",".join(str(namespace) for namespace in namespaces)
        for table in ("address", "socket"):
            connection.execute(f"DELETE FROM {table} WHERE netns NOT IN ({places})")  # noqa: S608 - numbers
        connection.execute("DELETE FROM holder WHERE socket NOT IN (SELECT id FROM socket)")
        connection.execute("DELETE FROM process WHERE id NOT IN (SELECT process FROM holder)")
        _forget_parents(connection)
        connection.execute("UPDATE host SET boot_id = :boot_id, name = :name, kernel = :kernel", NEUTRAL_HOST)
        connection.execute("COMMIT")
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("VACUUM")


def _forget_parents(connection: sqlite3.Connection) -> None:
    """Take out the parents and ancestors that are themselves no longer in the store."""
    known = {tuple(row) for row in connection.execute("SELECT pid, start_ticks FROM process")}
    for row, ppid, text in connection.execute("SELECT id, ppid, ancestors FROM process").fetchall():
        ancestors = [pair for pair in json.loads(text) if tuple(pair) in known]
        connection.execute("UPDATE process SET ancestors = ? WHERE id = ?", (json.dumps(ancestors), row))
        if ppid not in {pid for pid, _ in ancestors}:
            connection.execute("UPDATE process SET ppid = NULL, parent_name = NULL WHERE id = ?", (row,))
    connection.execute("UPDATE process SET container = NULL")
