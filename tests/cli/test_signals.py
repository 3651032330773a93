from __future__ import annotations

import signal
import threading

import pytest

from pktproc.cli.signals import StopFlag


@pytest.mark.timeout(30)
def test_a_handler_may_set_the_flag_at_any_moment_of_a_wait() -> None:
    """With threading.Event some of these never come back: the handler waits for the lock of the wait that it is in."""
    flags: list[StopFlag] = []
    before = signal.signal(signal.SIGALRM, lambda *_: flags[-1].set())
    try:
        for number in range(300):
            flags.append(StopFlag())
            signal.setitimer(signal.ITIMER_REAL, 0.0002 + number * 0.000001)
            while not flags[-1].wait(0.00001):
                pass
            assert flags[-1].is_set()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_flag_that_nobody_sets_is_waited_for_no_longer_than_told() -> None:
    flag = StopFlag()
    assert not flag.wait(0.01)
    assert not flag.is_set()
    threading.Timer(0.01, flag.set).start()
    assert flag.wait(30)
    assert flag.wait(0)
