"""Processes described by events alone, or by /proc where they are older."""

from __future__ import annotations

from kernel.fake_proc import FakeProc
from pktproc.kernel.ebpf.events import Kind, ProcessEvent, ProcessFacts
from pktproc.kernel.ebpf.lives import Lives
from pktproc.kernel.processes import ProcessReader
from pktproc.model import ProcessId

TICK_NS = 10_000_000


def facts(pid: int, comm: bytes, *, ppid: int = 1, ticks: int = 100, cgroup: int = 1) -> ProcessFacts:
    return ProcessFacts(ticks * TICK_NS + 123, cgroup, pid, ppid, 1000, 0, comm)


def executed(of: ProcessFacts, path: bytes, *words: bytes) -> ProcessEvent:
    arguments = b"".join(word + b"\0" for word in words)
    return ProcessEvent(1, Kind.EXECUTED, of, path, arguments[:1024], len(arguments))


def lives(fake: FakeProc, *, cmdline: bool = True) -> Lives:
    return Lives(ProcessReader(fake.root), cmdline=cmdline)


def test_a_process_that_is_gone_is_described_by_its_events(fake: FakeProc) -> None:
    known = lives(fake)
    child = facts(20, b"wget", ppid=10)
    known.take(ProcessEvent(1, Kind.FORKED, child._replace(comm=b"sh")))
    known.take(executed(child, b"/no/such/wget", b"wget", b"-q"))
    process = known.describe(child)
    assert (process.pid, process.start_ticks, process.name, process.uid, process.ppid) == (20, 100, "wget", 1000, 10)
    assert (process.exe, process.cmdline) == ("/no/such/wget", ("wget", "-q"))


def test_a_child_runs_the_program_of_its_parent(fake: FakeProc) -> None:
    fake.start(10, b"server", argv=(b"server", b"-x"), exe="/usr/bin/server", ticks=50)
    known = lives(fake)
    child = facts(20, b"server", ppid=10)
    known.take(ProcessEvent(1, Kind.FORKED, child))
    process = known.describe(child)
    assert (process.exe, process.cmdline) == ("/usr/bin/server", ("server", "-x"))
    assert process.parent_name == "server"
    assert process.ancestors[0] == ProcessId(10, 50)


def test_an_older_process_is_read_from_proc(fake: FakeProc) -> None:
    fake.start(10, b"old", argv=(b"old", b"one"), ticks=100)
    process = lives(fake).describe(facts(10, b"old"))
    assert process.cmdline == ("old", "one")


def test_a_pid_that_was_used_again_is_not_mistaken(fake: FakeProc) -> None:
    fake.start(10, b"new", ticks=900)
    process = lives(fake).describe(facts(10, b"old", ticks=100))
    assert (process.name, process.exe, process.cmdline) == ("old", None, None)


def test_a_name_of_fifteen_bytes_is_completed(fake: FakeProc) -> None:
    known = lives(fake)
    child = facts(20, b"a-very-long-nam")
    known.take(ProcessEvent(1, Kind.FORKED, child))
    known.take(executed(child, b"/opt/a-very-long-name-indeed"))
    assert known.describe(child).name == "a-very-long-name-indeed"


def test_a_command_line_that_is_cut_has_whole_words(fake: FakeProc) -> None:
    known = lives(fake)
    child = facts(20, b"find")
    known.take(executed(child, b"/bin/find", b"find", b"x" * 1000, b"y" * 1000))
    assert known.describe(child).cmdline == ("find", "x" * 1000)


def test_command_lines_can_be_left_out(fake: FakeProc) -> None:
    known = lives(fake, cmdline=False)
    child = facts(20, b"curl")
    known.take(executed(child, b"/bin/curl", b"curl", b"--user", b"secret"))
    assert known.describe(child).cmdline is None


def test_the_same_process_is_the_same_object_until_it_changes(fake: FakeProc) -> None:
    known = lives(fake)
    child = facts(20, b"sh")
    before = known.describe(child)
    assert known.describe(child) is before
    assert known.describe(child._replace(comm=b"renamed")).name == "renamed"
