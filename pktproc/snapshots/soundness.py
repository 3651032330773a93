"""Whether a store holds numbers where numbers belong: SQLite keeps in a column whatever is put there."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from pktproc.errors import StoreError

# The tables that are small and read as a whole. Rows of the others are looked at as they are read.
_NUMBERS = {
    "coverage": ("first", "last", "verified", "hears_ends", "interval"),
    "deaf": ("first", "last"),
    "address": ("netns", "broadcast", "after", "first", "last", "before"),
}
# The first column of an index, in which texts and blobs come behind all numbers: one search, however large the table.
_NOT_A_NAMESPACE = "SELECT netns FROM socket WHERE netns >= '' LIMIT 1"


def check(connection: sqlite3.Connection, path: Path) -> None:
    """Raise `StoreError` for a value that is not of the kind that its column is for."""
    for table, columns in _NUMBERS.items():
        wrong = " OR ".join(f"typeof({column}) NOT IN ('integer', 'null')" for column in columns)
        query = f"SELECT {', '.join(columns)} FROM {table} WHERE {wrong} LIMIT 1"  # noqa: S608 - constants
        if row := connection.execute(query).fetchone():
            pairs = zip(columns, row, strict=True)
            column, value = next((name, value) for name, value in pairs if not isinstance(value, int | None))
            raise StoreError(f"{path} is damaged: {table}.{column} is not a number: {value!r:.60}")
    if row := connection.execute(_NOT_A_NAMESPACE).fetchone():
        raise StoreError(f"{path} is damaged: socket.netns is not a number: {row[0]!r:.60}")
