"""Give up root once everything is open, keeping the capabilities that finding processes needs (capabilities(7))."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import struct
import threading

from pktproc.errors import Denied, UsageError

_PR_SET_KEEPCAPS = 8
_PR_SET_TIMERSLACK = 29
_PR_SET_CHILD_SUBREAPER = 36
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_READ_SEARCH, _CAP_NET_ADMIN, _CAP_SYS_PTRACE, _CAP_SYS_ADMIN, _CAP_SYS_NICE = 2, 12, 19, 21, 23
# /proc/PID/fd of other users, entering the namespaces of new containers, notice of closed sockets in them, priority.
# That is little less than root where programs are concerned; files and everything else are the user's.
_KEPT = (_CAP_DAC_READ_SEARCH, _CAP_NET_ADMIN, _CAP_SYS_PTRACE, _CAP_SYS_ADMIN, _CAP_SYS_NICE)

_NICENESS = -20


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends, so that they can still be recognised as such."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def bury_orphans(child: int) -> None:
    """Take note of the ends of adopted processes, so that none stays a zombie; `child` is left to whoever waits."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid == child:
                return
            os.waitpid(ended.si_pid, os.WNOHANG)
        except ChildProcessError:
            return


def hurry() -> None:
    """Let this thread run before others as far as that is permitted, and wake up when its time is over (prctl(2)).

    Priority takes CAP_SYS_NICE. The default slack of 50 us is what a thread would wait each time for the interpreter.
    """
    _prctl(_PR_SET_TIMERSLACK, 1)
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)


def become(user: str) -> None:
    """Become a user with all its groups, keeping the few capabilities that the engines need.

    Raise `UsageError` if there is no such user and `Denied` if this process is not root.
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise UsageError(f"no user {user!r} on this host: `getent passwd` lists them") from None
    try:
        _prctl(_PR_SET_KEEPCAPS, 1)
        os.initgroups(user, entry.pw_gid)
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
        _keep(_KEPT)
    except PermissionError as error:
        raise Denied(f"cannot become {user}: only root can") from error


def _keep(capabilities: tuple[int, ...]) -> None:
    mask = sum(1 << capability for capability in capabilities)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    data = struct.pack("=IIIIII", mask & 0xFFFFFFFF, mask & 0xFFFFFFFF, 0, mask >> 32, mask >> 32, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset(header, data) != 0:
        raise PermissionError(ctypes.get_errno(), "capset")
