"""Forked children that end with their parent."""

from __future__ import annotations

import ctypes
import os
import signal

PR_SET_PDEATHSIG = 1


def fork() -> int:
    """Fork; the kernel kills the child when the parent ends (prctl(2)). Return the child's pid, 0 in the child."""
    child = os.fork()
    if not child:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return child
