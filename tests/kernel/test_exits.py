"""Ends of processes are heard of at once, also of those that are gone before they are followed."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from pktproc.kernel import exits
from pktproc.kernel.exits import ExitWatch
from pktproc.kernel.processes import ProcessReader
from pktproc.model import Process

WAIT_MS = 10_000


@pytest.fixture
def watch() -> Iterator[ExitWatch]:
    watch = ExitWatch(ProcessReader())
    yield watch
    watch.close()


@contextlib.contextmanager
def running() -> Iterator[tuple[subprocess.Popen[bytes], Process]]:
    """Run a process that ends when its input does."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        try:
            process = ProcessReader().read(child.pid)
            assert process is not None
            yield child, process
        finally:
            child.kill()


def is_readable(watch: ExitWatch, timeout_ms: int) -> bool:
    poll = select.poll()
    poll.register(watch.fileno(), select.POLLIN)
    return bool(poll.poll(timeout_ms))


def test_the_end_of_a_followed_process_is_told_once(watch: ExitWatch) -> None:
    with running() as (child, process):
        watch.follow([process, process])
        assert watch.ended() == []
        assert not is_readable(watch, 0)
        child.kill()
        assert is_readable(watch, WAIT_MS)
        assert watch.ended() == [process.id]
        assert watch.ended() == []


def test_a_process_that_is_gone_before_it_is_followed_has_ended(watch: ExitWatch) -> None:
    with running() as (child, process):
        child.kill()
        child.wait()
        watch.follow([process])
        assert watch.ended() == [process.id]


def test_a_pid_that_is_used_again_is_not_the_process(watch: ExitWatch) -> None:
    with running() as (_, process):
        former = replace(process, start_ticks=process.start_ticks - 1)
        watch.follow([former, process])
        assert watch.ended() == [former.id]


def test_only_so_many_are_followed_and_no_descriptor_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "_MOST", 2)
    few = ExitWatch(ProcessReader())
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
    with contextlib.ExitStack() as stack:
        all_running = [stack.enter_context(running()) for _ in range(3)]
        for _, process in all_running:
            few.follow([process])
        for child, _ in all_running:
            child.kill()
            child.wait()
        assert set(few.ended()) == {process.id for _, process in all_running[1:]}
    few.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1  # noqa: PTH208 - a count
