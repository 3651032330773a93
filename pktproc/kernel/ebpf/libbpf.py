"""A thin layer over the system's libbpf (libbpf.h): open an object, load its programs, attach them, let go of all.

libbpf is reached through ctypes; what it would print is kept. Nothing is pinned: all ends with this process.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import re
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pktproc.errors import Denied, EngineError, Unsupported
from pktproc.kernel.probe import effective_capabilities

_NAMES = ("libbpf.so.1", "libbpf.so.0")
_STRICT_ALL = 0xFFFFFFFF  # libbpf_legacy.h; makes libbpf 0 report errors as libbpf 1 does
_CAP_NET_ADMIN, _CAP_SYS_ADMIN, _CAP_PERFMON, _CAP_BPF = 12, 21, 38, 39  # linux/capability.h
_LOCKDOWN = Path("/sys/kernel/security/lockdown")
_BTF_KIND_TYPEDEF = 8
_LIBBPF_DEBUG = 2  # libbpf.h, enum libbpf_print_level
_LOG_LINE_BYTES = 4096
_MOST_LOG_LINES = 200
_SOCKET_FILTER = 1  # enum bpf_prog_type, linux/bpf.h
_INSTRUCTION_BYTES = 8
_LICENSE = b"GPL"
_ITERATOR_BYTES = 1 << 16
_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_REFUSED = re.compile(r"prog '(\w+)': failed to load")
_POINTERS = (
    "bpf_object__open_mem",
    "bpf_object__next_program",
    "bpf_object__find_program_by_name",
    "bpf_object__find_map_by_name",
    "bpf_program__attach",
    "bpf_program__attach_cgroup",
    "btf__load_vmlinux_btf",
)


@functools.cache
def library() -> ctypes.CDLL:
    """Return libbpf; raise `Unsupported` where there is none."""
    for name in _NAMES:
        try:
            found = ctypes.CDLL(name, use_errno=True)
            break
        except OSError:
            continue
    else:
        raise Unsupported(f"no {' or '.join(_NAMES)}: apt install libbpf1")
    try:
        for function in _POINTERS:
            getattr(found, function).restype = ctypes.c_void_p
        found.bpf_program__name.restype = ctypes.c_char_p
        found.libbpf_set_print.restype = ctypes.c_void_p
    except AttributeError as error:
        raise Unsupported(f"libbpf is too old ({error}): apt install libbpf1") from error
    if hasattr(found, "libbpf_set_strict_mode"):
        found.libbpf_set_strict_mode(_STRICT_ALL)
    return found


class Log:
    """Keep the latest of what libbpf says instead of printing it, as long as this object is open.

    It tells of each instruction that it fits to the kernel, thousands of them, before it tells what the kernel refuses.
    """

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=_MOST_LOG_LINES)
        self._format = ctypes.CDLL(None).vsnprintf
        self._format.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p)
        self._hear = _PRINT(self._take)
        self._before = library().libbpf_set_print(self._hear)

    def _take(self, level: int, form: bytes, arguments: int) -> int:
        if level >= _LIBBPF_DEBUG:
            return 0
        line = ctypes.create_string_buffer(_LOG_LINE_BYTES)
        self._format(line, _LOG_LINE_BYTES, form, arguments)
        self.lines.append(line.value.decode(errors="replace"))
        return 0

    def refused(self) -> list[str]:
        """Return the names of the programs that the kernel refused to load."""
        return _REFUSED.findall("".join(self.lines))

    def close(self) -> None:
        """Let libbpf print again as before."""
        library().libbpf_set_print(ctypes.c_void_p(self._before))


def kernel_tracepoints(names: set[str]) -> set[str]:
    """Return which of some tracepoints the kernel's type information has; raise `Unsupported` if it has none."""
    found = library()
    types = found.btf__load_vmlinux_btf()
    if not types:
        message = "the kernel has no type information (/sys/kernel/btf/vmlinux): use one with CONFIG_DEBUG_INFO_BTF"
        raise Unsupported(message)
    try:
        kind = ctypes.c_uint32(_BTF_KIND_TYPEDEF)
        find = found.btf__find_by_name_kind
        return {name for name in names if find(ctypes.c_void_p(types), f"btf_trace_{name}".encode(), kind) > 0}
    finally:
        found.btf__free(ctypes.c_void_p(types))


class BpfObject:
    """An object file with programs and maps: opened, then loaded, then attached; `close` undoes all of it."""

    def __init__(self, image: bytes) -> None:
        self._library = library()
        self._links: list[int] = []
        self._pointer = self._call("bpf_object__open_mem", image, ctypes.c_size_t(len(image)), None)

    def _call(self, name: str, *arguments: Any) -> int:
        ctypes.set_errno(0)
        pointer: int | None = getattr(self._library, name)(*arguments)
        if not pointer:
            raise failure(name.partition("__")[2].replace("_", " "), ctypes.get_errno())
        return pointer

    def programs(self) -> Iterator[str]:
        """Yield the names of all programs."""
        program = None
        following: Callable[..., int | None] = self._library.bpf_object__next_program
        while program := following(ctypes.c_void_p(self._pointer), ctypes.c_void_p(program)):
            yield self._library.bpf_program__name(ctypes.c_void_p(program)).decode()

    def leave_out(self, program: str) -> None:
        """Do not load a program."""
        self._library.bpf_program__set_autoload(ctypes.c_void_p(self._program(program)), ctypes.c_bool(False))

    def load(self) -> None:
        """Load maps and programs into the kernel; raise `EngineError` if it takes one of them not."""
        code = self._library.bpf_object__load(ctypes.c_void_p(self._pointer))
        if code:
            raise failure("load", -code)

    def attach(self, program: str) -> int:
        """Attach a program to the tracepoint or iterator that it names; return the link, which this object keeps."""
        self._links.append(self._call("bpf_program__attach", ctypes.c_void_p(self._program(program))))
        return self._links[-1]

    def iterate(self, link: int) -> bytes:
        """Run an attached iterator and return what it wrote."""
        descriptor = self._library.bpf_iter_create(self._library.bpf_link__fd(ctypes.c_void_p(link)))
        if descriptor < 0:
            raise failure("iterate", ctypes.get_errno())
        try:
            return b"".join(iter(lambda: _read(descriptor), b""))
        finally:
            os.close(descriptor)

    def attach_to_cgroup(self, program: str, descriptor: int) -> None:
        """Attach a program to an open directory of cgroup v2, beside what others have attached there.

        Raise `Denied` where they leave no room for others (kernel/bpf/cgroup.c, __cgroup_bpf_attach). EPERM tells of
        that and of a lack of CAP_NET_ADMIN alike, and not every kernel takes CAP_SYS_ADMIN instead
        (kernel/bpf/syscall.c, bpf_prog_attach_check_attach_type).
        """
        pointer = ctypes.c_void_p(self._program(program))
        try:
            self._links.append(self._call("bpf_program__attach_cgroup", pointer, ctypes.c_int(descriptor)))
        except EngineError as error:
            if ctypes.get_errno() not in (errno.EPERM, errno.E2BIG) or not _holds(_CAP_NET_ADMIN):
                raise
            why = "other programs leave no room at this hook of the cgroup: `bpftool cgroup tree` shows them"
            raise Denied(f"eBPF: attach {program}: {why}") from error

    def program_descriptor(self, name: str) -> int:
        """Return the descriptor of a loaded program, which belongs to this object."""
        return int(self._library.bpf_program__fd(ctypes.c_void_p(self._program(name))))

    def map_descriptor(self, name: str) -> int:
        """Return the descriptor of a map, which belongs to this object."""
        pointer = self._call("bpf_object__find_map_by_name", ctypes.c_void_p(self._pointer), name.encode())
        return int(self._library.bpf_map__fd(ctypes.c_void_p(pointer)))

    def close(self) -> None:
        """Detach and unload everything."""
        while self._links:
            self._library.bpf_link__destroy(ctypes.c_void_p(self._links.pop()))
        if self._pointer:
            self._library.bpf_object__close(ctypes.c_void_p(self._pointer))
            self._pointer = 0

    def _program(self, name: str) -> int:
        return self._call("bpf_object__find_program_by_name", ctypes.c_void_p(self._pointer), name.encode())


class Map:
    """A map by its descriptor: keys and values are bytes, as long as the map wants them."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = ctypes.c_int(descriptor)
        self._library = library()

    def put(self, key: bytes, value: bytes) -> None:
        """Set the value of a key; raise `EngineError` if the kernel refuses."""
        code = self._library.bpf_map_update_elem(self._descriptor, key, value, ctypes.c_uint64(0))
        if code:
            raise failure("map update", abs(code))

    def remove(self, key: bytes) -> None:
        """Remove a key, if it is there."""
        self._library.bpf_map_delete_elem(self._descriptor, key)


def load_socket_filter(code: bytes) -> int:
    """Load eBPF instructions as a filter of sockets; return the program's descriptor, which belongs to the caller."""
    found, count = library(), ctypes.c_size_t(len(code) // _INSTRUCTION_BYTES)
    kind = ctypes.c_int(_SOCKET_FILTER)
    if hasattr(found, "bpf_load_program"):  # libbpf 0
        descriptor = found.bpf_load_program(kind, code, count, _LICENSE, ctypes.c_uint32(0), None, ctypes.c_size_t(0))
    else:
        descriptor = found.bpf_prog_load(kind, None, _LICENSE, code, count, None)
    if descriptor < 0:
        raise failure("load of a filter", -descriptor if descriptor < -1 else ctypes.get_errno())
    return int(descriptor)


def _read(descriptor: int) -> bytes:
    """Read on in an iterator, which pauses now and then if it finds nothing to write (kernel/bpf/bpf_iter.c)."""
    while True:
        try:
            return os.read(descriptor, _ITERATOR_BYTES)
        except BlockingIOError:
            continue


def _holds(capability: int) -> bool:
    held = effective_capabilities(Path("/proc/self/status").read_text(encoding="utf-8", errors="replace"))
    return bool(held >> capability & 1)


def _lacks_privileges() -> bool:
    """Say whether the verifier may refuse, with EACCES, what it permits to the privileged."""
    return not (_holds(_CAP_SYS_ADMIN) or (_holds(_CAP_BPF) and _holds(_CAP_PERFMON)))


def _is_locked_down(lockdown: Path) -> bool:
    """Say whether the kernel keeps what is in its memory from programs, too (kernel_lockdown(7))."""
    try:
        return "[confidentiality]" in lockdown.read_text(encoding="ascii")
    except OSError:  # not mounted, or a kernel without it
        return False


def failure(what: str, code: int, lockdown: Path = _LOCKDOWN) -> EngineError:
    """Return the error for what the kernel or libbpf refused with an errno; `lockdown` is where it tells its mode."""
    text = f"eBPF: {what}: {os.strerror(code) if code else 'refused'}"
    if code == errno.EPERM or (code == errno.EACCES and _lacks_privileges()):
        return Denied(f"{text}: run as root, or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN")
    if code in (errno.EACCES, errno.EINVAL) and _is_locked_down(lockdown):
        return Unsupported(f"{text}: kernel lockdown is at confidentiality: boot with lockdown=integrity or less")
    if code in (errno.EACCES, errno.ENOENT, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ESRCH):
        return Unsupported(f"{text}: use a kernel with CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF and CONFIG_DEBUG_INFO_BTF")
    return EngineError(text)
