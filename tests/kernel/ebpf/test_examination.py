"""What the doctor is told of the engine."""

from __future__ import annotations

from typing import Self

import pytest

from pktproc.errors import Denied
from pktproc.kernel.ebpf import examination
from pktproc.kernel.ebpf.programs import HOOKS, Hook
from pktproc.kernel.probe import State


class FakePrograms:
    """Programs on a kernel that lacks some hooks."""

    missing: dict[Hook, str] = {}  # noqa: RUF012 - replaced by tests

    @property
    def attached(self) -> set[Hook]:
        return set(HOOKS) - self.missing.keys()

    def attend_packets(self) -> None:
        pass

    def attend_sockets(self) -> bool:
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_here_all_hooks_are_on() -> None:
    (finding,) = examination.examine_hooks()
    assert finding.state is State.OK
    assert all((hook.program in finding.detail) == (not hook.instead_of) for hook in HOOKS)


def test_a_hook_that_is_off_has_a_row_with_what_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = next(hook for hook in HOOKS if hook.program == "sock_recv_length")
    monkeypatch.setattr(FakePrograms, "missing", {lacking: "the kernel does not have it"})
    monkeypatch.setattr(examination, "Programs", FakePrograms)
    engine, row = examination.examine_hooks()
    assert engine.state is State.LIMITED
    assert lacking.program not in engine.detail
    assert row.what == "ebpf: sock_recv_length"
    assert "who receives datagrams" in row.detail


def test_where_it_does_not_load_the_row_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        message = "eBPF: load: Operation not permitted: run as root"
        raise Denied(message)

    monkeypatch.setattr(examination, "Programs", refuse)
    (finding,) = examination.examine_hooks()
    assert finding.state is State.MISSING
    assert "run as root" in finding.detail
