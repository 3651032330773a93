"""Programs of the bed, started in a namespace, and what they tell about themselves."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from bed.lines import Lines
from bed.namespaces import Namespace

Event = dict[str, Any]
TESTS = Path(__file__).parent.parent
TIMEOUT = 30.0


def program_command(name: str, *arguments: object) -> list[str]:
    """Return the command line of the bed's program `name` (a module of `bed.programs`)."""
    return [sys.executable, "-S", "-m", f"bed.programs.{name}", *map(str, arguments)]


def program_environment() -> dict[str, str]:
    """Return the environment in which the bed's programs find their package."""
    return {**os.environ, "PYTHONPATH": str(TESTS)}


class Command:
    """Run a command as a child whose input is a pipe and whose outputs are collected.

    A context manager that ends the child when it is left. `pid` is the command's own pid.
    """

    def __init__(
        self,
        command: Sequence[str],
        namespace: Namespace | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        # Nothing outlives the tests, however they end.
        leashed = ["setpriv", "--pdeathsig", "KILL", *command]
        self.command = leashed if namespace is None else namespace.enter(leashed)
        self.child = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        assert self.child.stdin
        assert self.child.stdout
        assert self.child.stderr
        self.stdin = self.child.stdin
        self.stdout = Lines(self.child.stdout)
        self.stderr = Lines(self.child.stderr)

    @property
    def pid(self) -> int:
        """Return the pid of the command."""
        return self.child.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child if it still runs, and reap it."""
        self._close_input()
        if self.child.poll() is None:
            self.child.terminate()
            if not self.has_ended(5):
                self.child.kill()
            self.child.wait()

    def _close_input(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.stdin.close()

    def has_ended(self, timeout: float) -> bool:
        """Wait for the child's end at most `timeout` seconds and say whether it came; Popen.wait looks now and then."""
        if self.child.poll() is None:
            descriptor = os.pidfd_open(self.child.pid)
            try:
                ends = select.poll()
                ends.register(descriptor, select.POLLIN)
                ends.poll(timeout * 1000)
            finally:
                os.close(descriptor)
        return self.child.poll() is not None

    def say(self, line: str = "") -> None:
        """Write a line to the child's input."""
        self.stdin.write(line.encode() + b"\n")
        self.stdin.flush()

    def finish(self, timeout: float = TIMEOUT) -> int:
        """Close the child's input, wait for its end and return its exit code; AssertionError when it does not end."""
        self._close_input()
        if not self.has_ended(timeout):
            raise AssertionError(f"did not end within {timeout} s: {self.describe()}")
        code = self.child.wait()
        self.stdout.to_the_end(timeout)
        self.stderr.to_the_end(timeout)
        return code

    def describe(self) -> str:
        """Return what a failing test should show about this child."""
        output, talk = ("\n".join(line[:300] for line in lines.so_far()[-10:]) for lines in (self.stdout, self.stderr))
        return f"{self.command} exit={self.child.poll()}\nstdout (end):\n{output}\nstderr (end):\n{talk}"


class Program(Command):
    """Run one of the bed's programs; its standard output is one JSON object a line, each with an `event`."""

    def __init__(
        self,
        name: str,
        *arguments: object,
        namespace: Namespace | None = None,
        prefix: Sequence[str] = (),
        interpreter: Path | None = None,
    ) -> None:
        command = program_command(name, *arguments)
        if interpreter is not None:
            command[0] = str(interpreter)
        super().__init__([*prefix, *command], namespace, program_environment())

    def events(self, kind: str) -> list[Event]:
        """Return the events of one kind that arrived until now."""
        return [event for line in self.stdout.so_far() if (event := json.loads(line))["event"] == kind]

    def expect(self, kind: str, count: int = 1, timeout: float = TIMEOUT) -> list[Event]:
        """Wait until `count` events of one kind have arrived and return them; AssertionError when they do not."""
        marker = json.dumps({"event": kind})[:-1]
        if not self.stdout.find(lambda line: line.startswith(marker), count, timeout):
            raise AssertionError(f"{len(self.events(kind))} of {count} {kind!r} events: {self.describe()}")
        return self.events(kind)[:count]

    def ready(self) -> Self:
        """Wait until the program says that it is ready."""
        try:
            self.expect("ready")
        except BaseException:
            self.close()
            raise
        return self
