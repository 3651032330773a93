"""io_uring (io_uring_setup(2), io_uring_enter(2)) by bare system calls, for one request at a time."""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

SETUP, ENTER = 425, 426
SEND, RECEIVE = 26, 27
GET_EVENTS = 1
SUBMISSIONS_AT, COMPLETIONS_AT, ENTRIES_AT = 0, 0x8000000, 0x10000000
ENTRY = struct.Struct("=BBHiQQIIQ24x")
COMPLETION = struct.Struct("=QiI")
OFFSETS = struct.Struct("=8I8x")
LIBC = ctypes.CDLL(None, use_errno=True)


def transfer(operation: int, descriptor: int, buffer: ctypes.Array[ctypes.c_char]) -> int:
    """Send or receive by a ring of its own; return how many bytes it were, raise OSError if it fails."""
    parameters = ctypes.create_string_buffer(120)
    ring = _checked(LIBC.syscall(SETUP, 1, parameters))
    submissions, completions = (OFFSETS.unpack_from(parameters, at) for at in (40, 80))
    submission = mmap.mmap(ring, submissions[6] + 4, offset=SUBMISSIONS_AT)
    completion = mmap.mmap(ring, completions[5] + 2 * COMPLETION.size, offset=COMPLETIONS_AT)
    entries = mmap.mmap(ring, ENTRY.size, offset=ENTRIES_AT)
    address = ctypes.addressof(buffer)
    entries[: ENTRY.size] = ENTRY.pack(operation, 0, 0, descriptor, 0, address, len(buffer), 0, 0)
    submission[submissions[6] : submissions[6] + 4] = bytes(4)
    submission[submissions[1] : submissions[1] + 4] = struct.pack("=I", 1)
    _checked(LIBC.syscall(ENTER, ring, 1, 1, GET_EVENTS, None, 0))
    _, result, _ = COMPLETION.unpack_from(completion, completions[5])
    os.close(ring)
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return int(result)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
