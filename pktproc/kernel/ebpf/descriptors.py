"""Which descriptors are sockets, told by an iterator in the kernel at a tenth of what /proc/PID/fd costs."""

from __future__ import annotations

import os
import struct
import threading
from contextlib import closing
from pathlib import Path

from pktproc.errors import EngineError, Unsupported
from pktproc.kernel.descriptor_table import Descriptors
from pktproc.kernel.ebpf.libbpf import BpfObject, Log

OBJECT = "descriptors.bpf.o"
RECORD = struct.Struct("=IIQQ")
"""struct descriptor: pid, number, inode, start of the process in ns since boot; here it is read by columns."""

_PROGRAM = "descriptors"
_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
# The number of the first pid namespace is part of the ABI (include/uapi/linux/nsfs.h, PID_NS_INIT_INO).
_FIRST_PID_NAMESPACE = 0xEFFFFFFC


class DescriptorIterator:
    """Read all descriptors that are sockets again and again.

    The program is loaded in a thread of its own, where most of the time is spent in libbpf and the kernel.
    """

    def __init__(self) -> None:
        self._object: BpfObject | None = None
        self._link = 0
        self._refusal: Exception | None = None
        self._loading = threading.Thread(target=self._load, name="pktproc-descriptors")
        self._loading.start()

    def look(self) -> Descriptors:
        """Return all descriptors that are sockets.

        Raise `Unsupported`, `Denied` or OSError where that cannot be told this way: in a container, whose pids are
        others than those of the kernel, without libbpf, or without privileges.
        """
        self._loading.join()
        if self._object is None:
            raise self._refusal or Unsupported("eBPF: closed")
        found = Descriptors()
        told = self._object.iterate(self._link)
        if told:
            words, longs = memoryview(told).cast("I"), memoryview(told).cast("Q")
            found.take(longs[1::3].tolist(), words[0::6].tolist(), words[1::6].tolist())
            began = dict(zip(found.pids, longs[2::3].tolist(), strict=True))
            found.starts = {pid: start_ns // _NS_PER_TICK for pid, start_ns in began.items()}
        found.looked_at = len(found.starts)
        return found

    def close(self) -> None:
        """Unload the program."""
        self._loading.join()
        if self._object is not None:
            self._object.close()
            self._object = None

    def _load(self) -> None:
        try:
            self._object, self._link = _loaded()
        except (EngineError, OSError) as error:
            self._refusal = error


def _loaded() -> tuple[BpfObject, int]:
    """Return the loaded program and its link."""
    if Path("/proc/self/ns/pid").stat().st_ino != _FIRST_PID_NAMESPACE:
        raise Unsupported("eBPF: this is not the pid namespace of the host")
    image = Path(__file__).with_name(OBJECT).read_bytes()  # importlib.resources takes 6 ms to import
    with closing(Log()):
        loaded = BpfObject(image)
        try:
            loaded.load()
            link = loaded.attach(_PROGRAM)
        except BaseException:
            loaded.close()
            raise
    return loaded, link
