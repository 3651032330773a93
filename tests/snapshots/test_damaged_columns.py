"""Whatever stands in a store's columns, its readers answer or raise `StoreError`, nothing else."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from bed.evidence import pktproc
from pktproc.cli import who_session
from pktproc.enrichment import enrich
from pktproc.errors import StoreError
from pktproc.model import pack_address
from pktproc.snapshots.recorder import NS_PER_S
from pktproc.snapshots.wanted import Wanted

RECORDED = Path(__file__).parents[2] / "pcaps" / "recorded"
ROUNDS = 60
VALUES: tuple[object, ...] = (
    *("", "x", "7", "1.5", "[1]", '{"a": 1}', "null", "[[1, 2, 3]]", "\u202e", "9" * 400),
    *(b"", b"\xff", bytes(16), bytes(15), b"7"),
    *(0, -1, 1, 255, 1 << 16, 1 << 32, (1 << 63) - 1, -(1 << 63), 1_795_262_400 * NS_PER_S),
    *(0.5, -1.5, 1e300, float("inf"), float("-inf")),
)
EVERYTHING = ("coverage", "deaf", "address", "process", "socket", "holder", "host")
NAMES = ("web4", "reuse_udp", "ping")


def columns(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    return [
        (table, row[1]) for table in EVERYTHING for row in connection.execute(f"PRAGMA table_info({table})").fetchall()
    ]


def damage(store: Path, chance: random.Random) -> list[str]:
    """Put random values into random columns, of one row or of all, and return what was done."""
    done = []
    with closing(sqlite3.connect(store)) as connection, connection:
        places = columns(connection)
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            table, column = chance.choice(places)
            value = chance.choice(VALUES)
            key = "rowid" if table != "holder" else "socket"
            one = f" WHERE {key} = (SELECT {key} FROM {table} ORDER BY random() LIMIT 1)"
            where = chance.choice(("", one))
            done.append(f"{table}.{column} = {value!r:.40}{where}")
            try:
                connection.execute(f"UPDATE {table} SET {column} = ?{where}", (value,))
            except sqlite3.Error:
                done.pop()
    return done


@pytest.mark.parametrize("name", NAMES)
def test_only_store_errors_come_out_of_a_store_with_damaged_columns(name: str, tmp_path: Path) -> None:
    chance = random.Random(name)
    refused = 0
    for turn in range(ROUNDS):
        store = tmp_path / f"{turn}.db"
        shutil.copy(RECORDED / f"{name}.db", store)
        done = damage(store, chance)
        for ask in (ask_enrich, ask_who):
            refused += is_refused(ask, name, store, done)
    assert refused > ROUNDS // 3


def is_refused(ask: Callable[[str, Path], None], name: str, store: Path, done: list[str]) -> bool:
    """Say whether a store is refused; AssertionError for any other error."""
    try:
        ask(name, store)
    except StoreError as error:
        return str(store) in str(error)
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error} after {done}") from error
    return False


def ask_enrich(name: str, store: Path) -> None:
    enrich(RECORDED / f"{name}.pcap", store, store.with_suffix(".pcapng"))


def ask_who(_: str, store: Path) -> None:
    wanted = Wanted(address=pack_address("10.77.0.1"))
    for one in (wanted, Wanted(port=53, pid=53), Wanted(address=pack_address("10.77.0.2"), port=8000)):
        for as_json in (True, False):
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                who_session.run([str(store)], one, (None, None), what="it", as_json=as_json)


@pytest.mark.parametrize(
    ("table", "column"), [("coverage", "verified"), ("address", "netns"), ("socket", "netns"), ("socket", "local_port")]
)
@pytest.mark.parametrize("command", ["enrich", "who"])
def test_a_column_that_holds_no_number_is_one_line(command: str, table: str, column: str, tmp_path: Path) -> None:
    store = tmp_path / "day.db"
    shutil.copy(RECORDED / "web4.db", store)
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute(f"UPDATE {table} SET {column} = 'elsewhere'")
    arguments = {"enrich": (RECORDED / "web4.pcap", "-s", store), "who": ("10.77.0.1", "-s", store)}
    done = pktproc(command, *arguments[command])
    lines = [line for line in done.stderr.splitlines() if line.startswith("pktproc: ")]
    assert "Traceback" not in done.stderr
    if column == "local_port" and command == "enrich":
        assert done.returncode == 0  # no packet leads to that row
    else:
        assert (done.returncode, len(lines)) == (1, 1), done.stderr
        assert f"{store} is damaged" in lines[0]
