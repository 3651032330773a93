"""The file itself: who may open it, what it refuses, and what is left when things go wrong."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from pktproc.errors import StoreError
from pktproc.model import pack_address
from pktproc.snapshots import layout
from pktproc.snapshots.reader import StoreReader
from pktproc.snapshots.store import Store
from snapshots.bench import OURS, THEIRS, Bench

TABLES = ["host", "coverage", "deaf", "address", "process", "socket", "holder", "use", "unwitnessed"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def sqlite(path: Path, query: str) -> str:
    """Return what sqlite3(1) reads."""
    return subprocess.run(["sqlite3", "-readonly", path, query], capture_output=True, text=True, check=True).stdout


def refusal(path: Path) -> str:
    """Return what both the writer and the reader say, in one line, of a file that is no store of theirs."""
    told = set()
    for kind in (Store, StoreReader):
        with pytest.raises(StoreError) as caught:
            kind(path)
        told.add(str(caught.value))
    (line,) = told
    assert str(path) in line
    assert "\n" not in line
    return line


def test_a_store_is_its_owner_s_alone_and_so_is_its_log(path: Path) -> None:
    mask = os.umask(0)
    try:
        bench = Bench(path)
        bench.recorder.look()
        files = list(path.parent.iterdir())
        modes = {file.name: file.stat().st_mode & 0o777 for file in files}
        bench.end()
    finally:
        os.umask(mask)
    assert {f"{path.name}{suffix}" for suffix in ("", "-wal")} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_a_closed_store_is_one_plain_file_that_any_client_reads(bench: Bench) -> None:
    bench.connect(bench.host.start("curl"))
    bench.recorder.look()
    bench.end()
    assert [file.name for file in bench.path.parent.iterdir()] == [bench.path.name]
    bench.path.parent.chmod(0o500)
    bench.path.chmod(0o400)
    assert set(sqlite(bench.path, ".tables").split()) == set(TABLES)
    query = "SELECT name, hex(local_address), local_port FROM socket JOIN holder ON socket = socket.id JOIN process"
    assert sqlite(bench.path, query).split() == ["curl|00000000000000000000FFFF0A4D0001|40000"]
    assert sqlite(bench.path, "PRAGMA integrity_check").split() == ["ok"]
    bench.path.parent.chmod(0o700)


def test_file_knows_a_store_by_its_number(bench: Bench) -> None:
    bench.recorder.look()
    bench.end()
    header = bench.path.read_bytes()[:100]
    assert header[68:72] == b"pktp"  # application id, https://www.sqlite.org/fileformat2.html
    assert int.from_bytes(header[60:64]) == len(layout.MIGRATIONS)


def test_what_is_documented_is_what_there_is(bench: Bench) -> None:
    """Each column has a row in the table of its table, in the same order."""
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
    for table in TABLES:
        section = text.partition(f"\n### `{table}`")[2].partition("\n#")[0]
        documented = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        assert documented == [row[1] for row in bench.rows(f"PRAGMA table_info({table})")], table


def test_a_second_writer_is_refused_and_a_reader_is_not(bench: Bench) -> None:
    bench.recorder.look()
    with pytest.raises(StoreError, match="another pktproc"):
        Store(bench.path)
    body = f"from pktproc.snapshots.store import Store; Store({str(bench.path)!r})"
    other = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=False)
    assert "another pktproc is recording into it" in other.stderr.splitlines()[-1]
    StoreReader(bench.path).close()
    bench.look()


def test_a_reader_sees_the_store_as_it_was_when_it_was_opened(bench: Bench) -> None:
    bench.recorder.look()
    with closing(StoreReader(bench.path)) as reader:
        bench.connect(bench.host.start("curl"))
        bench.look()
        assert reader.sockets("1", ()) == []
    with closing(StoreReader(bench.path)) as reader:
        assert len(reader.sockets("1", ())) == 1


@pytest.mark.parametrize("content", [b"not a database, " * 100, b"SQLite format 3\0" + bytes(range(256)) * 20])
def test_a_file_that_is_none_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "is not a snapshot store" in refusal(path)
    assert path.read_bytes() == content


def test_a_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
        connection.commit()
    before = path.read_bytes()
    assert "another program" in refusal(path)
    assert path.read_bytes() == before


def test_a_newer_format_is_refused_with_the_cure(bench: Bench) -> None:
    bench.recorder.look()
    bench.end()
    number = len(layout.MIGRATIONS) + 1
    with closing(sqlite3.connect(bench.path)) as connection:
        connection.execute(f"PRAGMA user_version = {number}")
    before = bench.path.read_bytes()
    assert f"has format {number}" in refusal(bench.path)
    assert "use a newer pktproc" in refusal(bench.path)
    assert bench.path.read_bytes() == before


def test_an_older_format_is_brought_up_to_date_by_a_writer(bench: Bench) -> None:
    socket = bench.connect(bench.host.start("curl"))
    bench.recorder.look()
    bench.end()
    newer = (*layout.MIGRATIONS, "ALTER TABLE process ADD COLUMN cgroup TEXT; UPDATE process SET cgroup = '/'")
    Store(bench.path, migrations=newer).close()
    assert bench.rows("SELECT name, cgroup FROM process") == [("curl", "/")]
    assert bench.rows("PRAGMA user_version") == [(len(newer),)]
    assert bench.rows("SELECT local_port FROM socket") == [(socket.local_port,)]


def first_format(path: Path) -> None:
    """Make a store as the first format had it, with a process that holds a socket."""
    with closing(Store(path, migrations=layout.MIGRATIONS[:1])):
        pass
    with closing(sqlite3.connect(path)) as connection, connection:
        assert "unit" not in {row[1] for row in connection.execute("PRAGMA table_info(process)")}
        connection.execute("INSERT INTO host VALUES (1, 'a boot', 'a host', '6.18')")
        connection.execute("INSERT INTO coverage VALUES (1, 1, 100, 200, 200, 'netlink', 1, 100)")
        connection.execute(
            "INSERT INTO process (pid, start_ticks, start, name, ancestors, first) VALUES (7, 1, 1, 'curl', '[]', 100)"
        )
        ends = (pack_address(OURS), 40000, pack_address(THEIRS), 80)
        connection.execute(
            "INSERT INTO socket VALUES (1, 1, 6, ?, ?, ?, ?, 1, 1, 1, 0, 0, 0, 0, NULL, 100, 200, NULL)", ends
        )
        connection.execute("INSERT INTO holder VALUES (1, 1, NULL, 100, 200, NULL)")


def test_the_first_format_is_read_as_it_is_and_brought_up_to_date_by_a_writer(path: Path) -> None:
    first_format(path)
    for number in range(1, len(layout.MIGRATIONS)):
        path.chmod(0o400)
        before = path.read_bytes()
        with closing(StoreReader(path)) as reader:
            (recorded,) = reader.sockets("1", ())
        (holder,) = recorded.holders
        assert (holder.process.name, holder.process.unit) == ("curl", None)
        assert path.read_bytes() == before
        assert sqlite(path, "PRAGMA user_version").strip() == str(number)
        path.chmod(0o600)
        Store(path, migrations=layout.MIGRATIONS[: number + 1]).close()
    assert sqlite(path, "SELECT name, unit FROM process").strip() == "curl|"


def test_a_database_without_a_format_is_none_to_a_reader(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA application_id = {layout.APPLICATION_ID}")
        connection.execute("CREATE TABLE early (fact)")
    with pytest.raises(StoreError, match="is not a snapshot store"):
        StoreReader(path)


def test_a_migration_that_fails_leaves_the_store_as_it_was(bench: Bench) -> None:
    bench.connect(bench.host.start("curl"))
    bench.recorder.look()
    bench.end()
    broken = (*layout.MIGRATIONS, "DELETE FROM process; ALTER TABLE missing ADD COLUMN cgroup TEXT")
    with pytest.raises(StoreError, match="no such table"):
        Store(bench.path, migrations=broken)
    assert bench.rows("SELECT name FROM process") == [("curl",)]
    assert bench.rows("PRAGMA user_version") == [(len(layout.MIGRATIONS),)]


@pytest.mark.parametrize("kind", [Store, StoreReader])
def test_a_folder_or_a_missing_one_is_said_in_plain_words(tmp_path: Path, kind: type) -> None:
    with pytest.raises(StoreError, match=r"Is a directory|is not a file"):
        kind(tmp_path)
    with pytest.raises(StoreError, match="No such file or directory"):
        kind(tmp_path / "missing" / "store.db")
    with pytest.raises(StoreError, match="is not a file"):
        kind("/dev/null")


def test_an_empty_file_is_a_store_to_a_writer_only(path: Path) -> None:
    path.touch()
    with pytest.raises(StoreError, match="is empty"):
        StoreReader(path)
    Store(path).close()
    StoreReader(path).close()


def test_a_store_that_is_removed_ends_the_recording(bench: Bench) -> None:
    bench.recorder.look()
    bench.path.unlink()
    with pytest.raises(StoreError, match="was removed"):
        bench.look()
    bench.path.touch()
    with pytest.raises(StoreError, match="was replaced"):
        bench.look()


def test_a_look_is_written_whole_or_not_at_all(bench: Bench) -> None:
    def half_done() -> None:
        with bench.store.transaction():
            bench.store.add_deafness(1, 2)
            bench.store.execute("DELETE FROM missing")

    bench.recorder.look()
    bench.connect(bench.host.start("curl"))
    with pytest.raises(StoreError, match="no such table"):
        half_done()
    assert bench.rows("SELECT * FROM deaf") == []
    bench.look()
    assert bench.rows("SELECT count(*) FROM socket") == [(1,)]


def test_a_damaged_store_is_said_to_be(bench: Bench) -> None:
    for number in range(300):
        bench.host.open(bench.host.start(f"p{number}"), (OURS, 1000 + number), (THEIRS, 80))
    bench.recorder.look()
    bench.end()
    content = bytearray(bench.path.read_bytes())
    for page in range(4096 * 8, len(content), 4096):
        content[page : page + 64] = bytes(range(64))
    bench.path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        StoreReader(bench.path).sockets("1", ())
    assert "is damaged" in str(caught.value)
