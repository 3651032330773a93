"""The oldest evidence goes when there is too much or when it is too old; what is gone is no longer covered."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from pktproc.model import Socket
from pktproc.snapshots.reader import StoreReader
from pktproc.snapshots.retention import MIN_BYTES
from snapshots.bench import OURS, THEIRS, Bench, at


def churn(bench: Bench, looks: int, each: int = 10) -> list[Socket]:
    """Let connections come and go, `each` between two looks; return all of them."""
    client = bench.host.start("client")
    made: list[Socket] = []
    for number in range(looks):
        opened = [
            bench.host.open(client, (OURS, 1024 + (number * each + i) % 60000), (THEIRS, 80 + number))
            for i in range(each)
        ]
        bench.look()
        for socket in opened:
            bench.host.close(socket)
        made += opened
    bench.look()
    return made


def test_what_ended_too_long_ago_is_dropped_and_not_covered(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "store.db", max_age_s=20)
    old = bench.host.start("old")
    lasting = bench.listen(old, port=22)
    bench.recorder.look()
    sockets = churn(bench, 100)
    with closing(StoreReader(bench.path)) as reader:
        (covered,) = reader.coverage
        kept = {one.socket: one.span for one in reader.sockets("1", ())}
    assert at(101 - 22) <= covered.first_ns <= at(101 - 20)
    assert covered.last_ns == at(101)
    assert lasting in kept
    ended = {socket: span for socket, span in kept.items() if socket != lasting}
    assert all(span.before_ns and span.before_ns > covered.first_ns for span in ended.values())
    assert set(sockets[-150:]) <= ended.keys()
    assert bench.rows("SELECT count(*) FROM holder") == [(len(kept),)]
    assert {name for (name,) in bench.rows("SELECT name FROM process")} == {"old", "client"}
    bench.store.close()


def test_processes_and_addresses_of_dropped_evidence_go_with_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "store.db", max_age_s=5)
    bench.recorder.look()
    for number in range(30):
        process = bench.host.start(f"p{number}")
        bench.connect(process, port=1000 + number)
        bench.look()
        bench.host.end(process)
    bench.look()
    names = {name for (name,) in bench.rows("SELECT name FROM process")}
    assert "p29" in names
    assert len(names) <= 8
    assert bench.rows("SELECT count(*) FROM holder WHERE socket NOT IN (SELECT id FROM socket)") == [(0,)]
    assert bench.rows("SELECT count(*) FROM holder WHERE process NOT IN (SELECT id FROM process)") == [(0,)]
    bench.store.close()


def test_earlier_recordings_are_dropped_whole(tmp_path: Path) -> None:
    first = Bench(tmp_path / "store.db")
    first.listen(first.host.start("nginx"))
    first.recorder.look()
    first.end()
    later = Bench(first.path, max_age_s=60)
    later.clock.advance(3600_000)
    later.recorder.look()
    assert later.rows("SELECT first FROM coverage") == [(at(3600),)]
    assert later.rows("SELECT count(*) FROM socket") == [(0,)]
    assert later.rows("SELECT count(*) FROM process") == [(0,)]
    assert later.rows("SELECT count(*) FROM host") == [(1,)]
    later.store.close()


def test_a_store_stays_below_its_size(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "store.db", max_bytes=MIN_BYTES)
    bench.recorder.look()
    largest = 0
    client = bench.host.start("client")
    for number in range(400):
        for port in range(100):
            bench.host.close(bench.host.open(client, (OURS, 1024 + port), (THEIRS, 1 + number)))
        bench.look()
        largest = max(largest, bench.store.file_bytes())
    assert largest <= MIN_BYTES
    assert not bench.retention.cramped
    ((first, last),) = bench.rows("SELECT first, last FROM coverage")
    assert last == at(400)
    assert at(50) < first < at(390)
    ((oldest,),) = bench.rows("SELECT min(last) FROM socket")
    assert oldest >= first - 1
    ((count,),) = bench.rows("SELECT count(*) FROM socket")
    assert 5_000 < count < 40_000
    assert bench.rows("PRAGMA integrity_check") == [("ok",)]
    bench.store.close()


def test_what_is_still_true_is_never_dropped(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "store.db", max_bytes=MIN_BYTES)
    for number in range(40_000):
        bench.host.open(None, (OURS, 1 + number), (THEIRS, 80))
    bench.recorder.look()
    bench.look()
    assert bench.store.file_bytes() > 0
    assert bench.rows("SELECT count(*) FROM socket WHERE last IS NULL") == [(40_000,)]
    assert bench.retention.cramped
    bench.store.close()


@pytest.mark.parametrize("limits", [{}, {"max_bytes": 1 << 40}, {"max_age_s": 1e6}])
def test_without_need_nothing_is_dropped(tmp_path: Path, limits: dict[str, float]) -> None:
    bench = Bench(tmp_path / "store.db", **limits)  # type: ignore[arg-type]
    bench.recorder.look()
    churn(bench, 20)
    assert bench.rows("SELECT count(*) FROM socket") == [(200,)]
    assert bench.rows("SELECT first FROM coverage") == [(at(0),)]
    bench.store.close()
