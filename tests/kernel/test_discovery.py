"""Network namespaces found again and again, the old processes asked in turns."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel.fake_proc import HOME, FakeProc
from pktproc.kernel.namespaces import Discovery

OTHER = HOME + 9


@pytest.fixture
def fake(tmp_path: Path) -> FakeProc:
    fake = FakeProc(tmp_path / "proc")
    for pid in range(100, 120):
        fake.start(pid)
    return fake


def ours(discovery: Discovery, *, in_turns: bool) -> dict[int, int | None]:
    """Return the namespaces with the process that stands for each; names of this machine's own are left out."""
    return {netns: space.pid for netns, space in discovery.namespaces(in_turns=in_turns).items() if space.pid}


def move(fake: FakeProc, pid: int, netns: int) -> None:
    link = fake.root / str(pid) / "ns" / "net"
    link.unlink()
    link.symlink_to(f"net:[{netns}]")


def test_a_new_process_s_namespace_is_found_at_once(fake: FakeProc) -> None:
    discovery = Discovery(fake.root)
    assert ours(discovery, in_turns=True) == {HOME: 100}
    fake.start(200, netns=OTHER)
    assert ours(discovery, in_turns=True) == {HOME: 100, OTHER: 200}


@pytest.mark.parametrize("pid", [100, 107, 119])
def test_a_process_that_moves_is_noticed_in_its_turn(fake: FakeProc, pid: int) -> None:
    discovery = Discovery(fake.root)
    discovery.namespaces()
    move(fake, pid, OTHER)
    found = [ours(discovery, in_turns=True) for _ in range(Discovery.TURNS)]
    assert found[-1][OTHER] == pid
    assert sum(OTHER in spaces for spaces in found) >= 1


def test_a_move_is_noticed_at_once_where_all_are_asked(fake: FakeProc) -> None:
    discovery = Discovery(fake.root)
    discovery.namespaces()
    move(fake, 110, OTHER)
    assert ours(discovery, in_turns=False) == {HOME: 100, OTHER: 110}


def test_a_namespace_is_gone_with_its_last_process(fake: FakeProc) -> None:
    fake.start(200, netns=OTHER)
    discovery = Discovery(fake.root)
    assert OTHER in ours(discovery, in_turns=True)
    fake.end(200)
    assert OTHER not in ours(discovery, in_turns=True)


def test_the_process_with_the_lowest_pid_stands_for_a_namespace(fake: FakeProc) -> None:
    for pid in (300, 30, 3000):
        fake.start(pid, netns=OTHER)
    assert ours(Discovery(fake.root), in_turns=True)[OTHER] == 30
