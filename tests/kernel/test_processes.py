"""Processes as /proc shows them: hand-made ones, hostile ones, and real ones compared with psutil."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.fake_proc import FakeProc
from pktproc.kernel.processes import ProcessReader, container_id, full_name
from pktproc.model import ProcessId

ID = "4f5e6d7c8b9a0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796"
OTHER_ID = "0" * 64
NAMES = [
    b"plain",
    b"with space",
    b"(parentheses)",
    b") S 1 2 3 (",
    b"new\nline",
    b'tab\tquote"',
    b"back\\slash",
    b"caf\xc3\xa9",
    b"broken\xff\xfe",
    b"",
    b"1) R 7 (",
]
# What a process may call itself to pass for another line of /proc/PID/status.
FORGERIES = [
    b"a\rUid:\t7\t7\t7",
    b"a\rTgid:\t7",
    b"a\rTgid:\tx",
    b"a\nUid:\t7\t7",
    b"\rUid:",
    b"a\x0bUid:\t7\t7",
    b"a\x85Uid:\t7\t7",
]


def decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("comm", NAMES, ids=repr)
def test_the_name_is_the_comm_whatever_it_holds(fake: FakeProc, comm: bytes) -> None:
    fake.start(42, comm, ppid=7, ticks=12345, uid=33)
    process = ProcessReader(fake.root).read(42)
    assert process is not None
    assert (process.pid, process.start_ticks, process.ppid, process.uid) == (42, 12345, 7, 33)
    assert process.name == decoded(comm)


@pytest.mark.parametrize("comm", FORGERIES, ids=repr)
def test_a_name_cannot_pass_for_other_facts(fake: FakeProc, comm: bytes) -> None:
    fake.start(42, comm, uid=33)
    process = ProcessReader(fake.root).read(42)
    assert process is not None
    assert (process.name, process.uid) == (decoded(comm), 33)


@pytest.mark.parametrize("comm", FORGERIES, ids=repr)
def test_a_real_process_cannot_pass_for_another(comm: bytes) -> None:
    with child_named(comm) as pid:
        process = ProcessReader().read(pid)
        assert process is not None
        assert process.uid == os.geteuid()


@contextmanager
def child_named(comm: bytes) -> Iterator[int]:
    """Run a child that calls itself so."""
    body = f"open('/proc/self/comm', 'wb').write({comm!r}); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", body], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        yield child.pid
        child.stdin.close()


@pytest.mark.parametrize(
    ("comm", "exe", "argv", "expected"),
    [
        (b"systemd-resolve", "/usr/lib/systemd/systemd-resolved", [b"systemd-resolved"], "systemd-resolved"),
        (
            b"a-very-long-nam",
            "/usr/bin/python3.11",
            [b"/opt/a-very-long-name-of-a-script"],
            "a-very-long-name-of-a-script",
        ),
        (b"a-very-long-nam", None, [b"a-very-long-name"], "a-very-long-name"),
        (b"a-very-long-nam", "/usr/bin/a-very-long-name (deleted)", None, "a-very-long-name"),
        (b"exactly-fifteen", "/usr/bin/exactly-fifteen", [b"exactly-fifteen"], "exactly-fifteen"),
        (b"short", "/usr/bin/shorter", [b"shorter"], "short"),
        (b"renamed-by-itse", "/usr/bin/program", [b"program"], "renamed-by-itse"),
        (b"a-very-long-nam", "/usr/bin/other", [b"--a-very-long-name"], "a-very-long-nam"),
        (b"fifteen-bytes-\xc3", None, [b"fifteen-bytes-\xc3\xa9"], "fifteen-bytes-é"),
    ],
)
def test_a_cut_name_is_completed(
    fake: FakeProc, comm: bytes, exe: str | None, argv: list[bytes] | None, expected: str
) -> None:
    fake.start(42, comm, exe=exe, argv=argv)
    process = ProcessReader(fake.root).read(42)
    assert process is not None
    assert process.name == expected


@given(st.binary(max_size=20), st.none() | st.text(), st.none() | st.lists(st.text()).map(tuple))
def test_completing_only_ever_adds(comm: bytes, exe: str | None, words: tuple[str, ...] | None) -> None:
    words = words or None
    try:
        name = full_name(comm, exe, words)
    except UnicodeEncodeError:
        # Lone surrogates other than those that stand for bytes cannot come from /proc.
        assert any("\ud800" <= letter <= "\udfff" for letter in "".join([exe or "", *(words or ())]))
        return
    assert os.fsencode(name).startswith(comm)
    assert len(comm) >= 15 or os.fsencode(name) == comm


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"12:pids:/docker/{ID}", ID),
        (f"0::/system.slice/docker-{ID}.scope", ID),
        (f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope", ID),
        (f"11:memory:/kubepods/burstable/podc4b6b3a4-8b1a-4c1e-9c39-1e6d7a1d3a01/{ID}", ID),
        (f"0::/kubepods.slice/kubepods-pod12.slice/crio-{ID}.scope", ID),
        (f"0::/machine.slice/libpod-{ID}.scope/container", ID),
        (f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope", ID),
        (f"4:cpu:/docker/{OTHER_ID}/docker/{ID}", ID),
        (f"0::/system.slice/containerd.service\n1:name=systemd:/docker/{ID}\n", ID),
        ("0::/user.slice/user-1000.slice/session-2.scope", None),
        ("0::/", None),
        ("", None),
        (f"0::/system.slice/{ID[:63]}", None),
        (f"0::/system.slice/{ID}0", None),
    ],
)
def test_the_container_is_in_the_cgroup_path(fake: FakeProc, path: str, expected: str | None) -> None:
    fake.start(42, cgroup=path + "\n")
    process = ProcessReader(fake.root).read(42)
    assert process is not None
    assert process.container_id == expected == container_id(path.encode())


def test_a_thread_is_not_a_process(fake: FakeProc) -> None:
    fake.start(42, b"main")
    fake.start(43, b"worker-thread", tgid=42)
    reader = ProcessReader(fake.root)
    assert reader.read(43) is None
    process = reader.read(42)
    assert process is not None
    assert process.name == "main"


def test_command_lines_are_words_and_can_be_left_out(fake: FakeProc) -> None:
    fake.start(42, argv=[b"curl", b"-H", b"", b"a b", b"\xff"])
    process = ProcessReader(fake.root).read(42)
    assert process is not None
    assert process.cmdline == ("curl", "-H", "", "a b", "\udcff")
    unread = ProcessReader(fake.root, cmdline=False).read(42)
    assert unread is not None
    assert unread.cmdline is None


def test_leaving_command_lines_out_does_not_change_names(fake: FakeProc) -> None:
    fake.start(42, b"a-very-long-nam", exe="/usr/bin/python3", argv=[b"a-very-long-name"])
    process = ProcessReader(fake.root, cmdline=False).read(42)
    assert process is not None
    assert (process.name, process.cmdline) == ("a-very-long-name", None)


def test_ancestors_run_from_the_parent_upward(fake: FakeProc) -> None:
    fake.start(1, b"init", ppid=0, ticks=1)
    fake.start(10, b"sshd: user", ppid=1, ticks=2)
    fake.start(20, b"bash", ppid=10, ticks=3)
    fake.start(42, b"curl", ppid=20, ticks=4)
    process = ProcessReader(fake.root).read(42)
    assert process is not None
    assert process.parent_name == "bash"
    assert process.ancestors == (ProcessId(20, 3), ProcessId(10, 2), ProcessId(1, 1))


def test_a_parent_that_is_gone_ends_the_line(fake: FakeProc) -> None:
    fake.start(42, ppid=20)
    process = ProcessReader(fake.root).read(42)
    assert process is not None
    assert (process.ppid, process.parent_name, process.ancestors) == (20, None, ())


def test_parents_that_go_in_circles_end(fake: FakeProc) -> None:
    fake.start(20, ppid=42)
    fake.start(42, ppid=20)
    process = ProcessReader(fake.root).read(42)
    assert process is not None
    assert len(process.ancestors) < 100


def test_the_last_forked_come_first_also_after_the_pids_began_anew(fake: FakeProc) -> None:
    for pid in (1, 300, 32000, 32700, 301):
        fake.start(pid)
    fake.latest_pid(301)
    assert ProcessReader(fake.root).pids_newest_first() == [301, 300, 1, 32700, 32000]


def test_without_loadavg_the_highest_pid_comes_first(fake: FakeProc) -> None:
    for pid in (1, 300, 200):
        fake.start(pid)
    (fake.root / "loadavg").unlink()
    reader = ProcessReader(fake.root)
    assert reader.latest_pid() is None
    assert reader.pids_newest_first() == [300, 200, 1]


def test_nobody_has_a_pid_that_is_gone(fake: FakeProc) -> None:
    reader = ProcessReader(fake.root)
    assert reader.read(42) is None
    assert reader.identity(42) is None
    fake.start(42, ticks=7)
    assert reader.identity(42) == ProcessId(42, 7)
    fake.end(42)
    assert reader.read(42) is None


@pytest.mark.parametrize("stat", [b"", b"42", b"42 (x", b"42 (x) S", b"42 (x) S a b c", b")42(", b"\0" * 100])
def test_a_broken_process_is_no_process(fake: FakeProc, stat: bytes) -> None:
    (fake.start(42) / "stat").write_bytes(stat)
    reader = ProcessReader(fake.root)
    assert reader.read(42) is None
    assert reader.identity(42) is None


def test_an_unknown_field_is_unknown(fake: FakeProc) -> None:
    directory = fake.start(42, exe=None, argv=None)
    for name in ("status", "cgroup", "cmdline"):
        (directory / name).unlink()
    process = ProcessReader(fake.root).read(42)
    assert process is not None
    assert (process.exe, process.cmdline, process.uid, process.container_id) == (None, None, None, None)


def test_a_process_that_may_not_be_seen_is_no_process(fake: FakeProc) -> None:
    """With hidepid=1 (proc(5)) the folders of other users cannot be entered."""
    fake.start(42).chmod(0)
    done = as_nobody(fake.root, "sys.exit(ProcessReader(Path('.')).read(42) is not None)")
    assert done.returncode == 0, done.stderr


def as_nobody(folder: Path, statement: str) -> subprocess.CompletedProcess[str]:
    """Run a statement in a folder as a user who owns nothing there."""
    body = f"""
import os, sys
from pathlib import Path
from pktproc.kernel.processes import ProcessReader
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
{statement}
"""
    command = [sys.executable, "-c", body]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=30)


def test_this_process_is_what_psutil_says() -> None:
    for oracle in (psutil.Process(), psutil.Process(os.getppid())):
        process = ProcessReader().read(oracle.pid)
        assert process is not None
        assert process.ppid == oracle.ppid()
        assert process.exe == (oracle.exe() or None)
        assert list(process.cmdline or ()) == oracle.cmdline()
        assert process.uid == oracle.uids().effective
        assert process.name == oracle.name()
        # psutil rounds the time of the boot to seconds.
        assert process.start_ns == pytest.approx(oracle.create_time() * 1e9, abs=1.1e9)
        assert [ancestor.pid for ancestor in process.ancestors] == [parent.pid for parent in oracle.parents()]


def test_a_new_process_started_just_now() -> None:
    before_ns = time.time_ns()
    with child_named(b"fresh") as pid:
        process = ProcessReader().read(pid)
        assert process is not None
        assert process.name == "fresh"
        assert before_ns - 20_000_000 <= process.start_ns <= time.time_ns() + 20_000_000
        assert pid in ProcessReader().pids_newest_first()
