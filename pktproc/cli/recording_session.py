"""One run of `pktproc record` or `pktproc snapshot`: from the open store to the closing summary."""

from __future__ import annotations

import time

import click

from pktproc.cli import garbage
from pktproc.cli.signals import StopFlag, ended_by_signals
from pktproc.cli.talk import say
from pktproc.output.counting import counted
from pktproc.output.escape import escape
from pktproc.recording import NS_PER_S, Recording


def look_once(recording: Recording, name: str) -> None:
    """Look once and say what was kept."""
    with recording:
        _say_all(recording.notes)
        recording.look()
        counts = recording.counts
    say(f"{counted(counts.sockets, 'socket')} and {counted(counts.processes, 'process')} kept in {escape(name)}")
    _say_all(recording.shortfalls())


def run(recording: Recording, name: str, *, duration_ns: int | None) -> None:
    """Record until Ctrl-C, SIGTERM or the end of a time; then print the summary on stderr."""
    begin_ns, stop = time.monotonic_ns(), StopFlag()
    try:
        with ended_by_signals(stop.set), recording:
            _say_all(recording.notes)
            say(f"recording into {escape(name)}, engine {recording.engine.name}")
            garbage.look_no_more()
            begin_ns = time.monotonic_ns()
            recording.run(stop, duration_ns=duration_ns)
    finally:  # once the store is closed, which takes the log over into it
        click.echo(_summary(recording, (time.monotonic_ns() - begin_ns) / NS_PER_S), err=True, nl=False)
        _say_all(recording.shortfalls())


def _summary(recording: Recording, seconds: float) -> str:
    counts, size = recording.counts, recording.store.file_bytes()
    lines = [
        counted(counts.looks, f"look in {seconds:.1f} s"),
        counted(counts.sockets, "socket recorded"),
        f"{counts.unseen_sockets} more of which only the end was heard",
        counted(counts.processes, "process recorded"),
    ]
    if size:
        lines.append(counted(size, "byte in the store"))
    return "".join(f"{line}\n" for line in lines)


def _say_all(texts: list[str]) -> None:
    for text in texts:
        say(text)
