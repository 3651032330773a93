"""What this kernel and this user's privileges permit: features are tried, never inferred from a version.

No probe raises; what goes wrong in an unforeseen way is itself a finding. Nothing is changed, sent, or captured.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pktproc.errors import PktprocError, Unsupported
from pktproc.kernel import namespaces
from pktproc.kernel.sock_diag import DiagSocket, EndedSockets
from pktproc.model import Protocol


class State(StrEnum):
    """How well something works: entirely, in part, or not at all."""

    OK = "ok"
    LIMITED = "limited"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the doctor's table.

    `area` groups rows, `what` names the thing, `detail` is what was seen. `cure` is a command or a sentence, None where
    there is nothing to cure. Sniffing works unless a finding that is `needed` is missing.
    """

    area: str
    what: str
    state: State
    detail: str
    cure: str | None = None
    needed: bool = False


_ROOT = (
    "run as a root user with all capabilities; in a container, see --privileged and --cap-add"
    if os.geteuid() == 0
    else f"run as root: sudo {sys.executable} -m pktproc ..."
)
_CAPABILITIES = (
    ("CAP_NET_RAW", 13, "open packet sockets", True),
    ("CAP_NET_ADMIN", 12, "hear of sockets that end; large capture buffers; eBPF at cgroups", False),
    ("CAP_SYS_PTRACE", 19, "look into the processes of other users", False),
    ("CAP_DAC_READ_SEARCH", 2, "list the open files of other users' processes", False),
    ("CAP_SYS_ADMIN", 21, "enter other network namespaces", False),
    ("CAP_BPF", 39, "load eBPF programs", False),
    ("CAP_PERFMON", 38, "attach eBPF programs to kernel events", False),
)
_TABLES = ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6", "packet")
_NEEDED_TABLES = frozenset({"tcp", "udp"})
_SOL_PACKET = 263
_PACKET_VERSION = 10
_TPACKET_V3 = 2
_BPF_MAP_TYPE_RINGBUF = 27
_BPF_PROG_TYPE_CGROUP_SKB = 8
_LIBBPF = ("libbpf.so.1", "libbpf.so.0")

Probe = Callable[[], Iterator[Finding]]


def examine() -> list[Finding]:
    """Return the findings about privileges, engines and kernel features, in the order of the doctor's table."""
    findings: list[Finding] = []
    for probe in (_privileges, _reach, _procfs, _netlink, _ebpf, _release, _packet_socket, _namespaces, _hidepid):
        findings += _guarded(probe)
    return findings


def _guarded(probe: Probe) -> list[Finding]:
    findings: list[Finding] = []
    try:
        findings.extend(probe())
    except Exception as error:  # noqa: BLE001 - a probe may not end the examination
        what = probe.__name__.strip("_").replace("_", " ")
        cure = "mount -t proc proc /proc" if isinstance(error, FileNotFoundError) else "report this as a bug of pktproc"
        findings.append(Finding("kernel", what, State.LIMITED, f"not examined: {type(error).__name__}: {error}", cure))
    return findings


def effective_capabilities(status: str) -> int:
    """Return the bit mask of effective capabilities from the text of /proc/PID/status (proc(5)), 0 without one."""
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "CapEff":
            return int(value, 16)
    return 0


def _privileges() -> Iterator[Finding]:
    held = effective_capabilities(Path("/proc/self/status").read_text(encoding="utf-8", errors="replace"))
    for name, bit, purpose, needed in _CAPABILITIES:
        if held >> bit & 1:
            yield Finding("privileges", name, State.OK, purpose, needed=needed)
        else:
            yield Finding("privileges", name, State.MISSING, f"not held: {purpose}", _ROOT, needed)


def _reach() -> Iterator[Finding]:
    """Try whether the open files of processes can be listed; those that end meanwhile do not count."""
    readable = refused = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            for link in (entry / "fd").iterdir():
                link.readlink()
                break
            readable += 1
        except PermissionError:
            refused += 1
        except OSError:
            continue
    what = "open files of processes"
    if refused:
        detail = f"of {readable} processes, not of {refused}: their packets stay unnamed"
        yield Finding("privileges", what, State.LIMITED, detail, _ROOT)
    else:
        yield Finding("privileges", what, State.OK, f"of all {readable} processes that are visible")


def _procfs() -> Iterator[Finding]:
    unreadable = []
    for table in _TABLES:
        try:
            with Path("/proc/net", table).open("rb") as stream:
                stream.readline()
        except OSError:
            unreadable.append(table)
    what = "procfs"
    if _NEEDED_TABLES.intersection(unreadable):
        detail = f"/proc/net lacks {', '.join(unreadable)}"
        yield Finding("engines", what, State.MISSING, detail, "mount -t proc proc /proc", needed=True)
    elif unreadable:
        detail = f"sockets of these kinds have no table in /proc/net: {', '.join(unreadable)}"
        cure = "use a kernel that has these protocols, if their packets matter"
        yield Finding("engines", what, State.LIMITED, detail, cure, needed=True)
    else:
        yield Finding("engines", what, State.OK, f"tables {', '.join(_TABLES)}", needed=True)


def _netlink() -> Iterator[Finding]:
    yield _sock_diag()
    what = "netlink: sockets that end"
    try:
        EndedSockets(0).close()
    except PktprocError as error:
        cure = "use a kernel with CONFIG_INET_DIAG_DESTROY" if isinstance(error, Unsupported) else _ROOT
        yield Finding("engines", what, State.LIMITED, f"{error}; late packets of closed sockets stay unnamed", cure)
    except OSError as error:
        yield Finding("engines", what, State.LIMITED, f"netlink: {error.strerror}", _ROOT)
    else:
        yield Finding("engines", what, State.OK, "TCP and UDP, IPv4 and IPv6")


def _sock_diag() -> Finding:
    what = "netlink"
    lacking = []
    try:
        diag = DiagSocket(0)
        try:
            for protocol, module in ((Protocol.TCP, "tcp_diag"), (Protocol.UDP, "udp_diag")):
                try:
                    next(diag.dump(protocol), None)
                except Unsupported:
                    lacking.append(module)
        finally:
            diag.close()
    except (OSError, PktprocError) as error:
        detail = f"no answer from sock_diag: {error}"
        return Finding("engines", what, State.MISSING, detail, "modprobe inet_diag (procfs is used instead)")
    if lacking:
        detail = f"the kernel lacks {' and '.join(lacking)}"
        return Finding("engines", what, State.LIMITED, detail, f"modprobe -a {' '.join(lacking)}")
    return Finding("engines", what, State.OK, "sock_diag answers for TCP and UDP")


def _ebpf() -> Iterator[Finding]:
    yield Finding("engines", "ebpf", State.MISSING, "not tried", "see the rows below")  # the doctor tries it
    if os.access("/sys/kernel/btf/vmlinux", os.R_OK):
        yield Finding("engines", "ebpf: type information (BTF)", State.OK, "/sys/kernel/btf/vmlinux")
    else:
        cure = "use a kernel with CONFIG_DEBUG_INFO_BTF"
        yield Finding("engines", "ebpf: type information (BTF)", State.MISSING, "no /sys/kernel/btf/vmlinux", cure)
    mounts = [mount for mount in _mounts() if mount.kind == "cgroup2"]
    if mounts:
        yield Finding("engines", "ebpf: cgroup v2", State.OK, f"mounted at {mounts[0].where}")
    else:
        cure = "mount -t cgroup2 none /sys/fs/cgroup/unified"
        yield Finding("engines", "ebpf: cgroup v2", State.MISSING, "not mounted", cure)
    yield _libbpf()


def _libbpf() -> Finding:
    """Load libbpf and let it try the features that the engine builds on (each creates and drops a map or a program)."""
    what = "ebpf: libbpf"
    library = _load(_LIBBPF)
    if library is None:
        return Finding("engines", what, State.MISSING, "no libbpf.so.1 or libbpf.so.0", "apt install libbpf1")
    if not hasattr(library, "libbpf_probe_bpf_map_type"):
        return Finding("engines", what, State.LIMITED, "older than 0.7, without feature probes", "apt install libbpf1")
    library.libbpf_set_print(None)
    tried = {
        "ring buffers": library.libbpf_probe_bpf_map_type(_BPF_MAP_TYPE_RINGBUF, None),
        "cgroup_skb programs": library.libbpf_probe_bpf_prog_type(_BPF_PROG_TYPE_CGROUP_SKB, None),
    }
    refused = [name for name, answer in tried.items() if answer != 1]
    if refused:
        return Finding("engines", what, State.LIMITED, f"loads, but the kernel refuses: {', '.join(refused)}", _ROOT)
    return Finding("engines", what, State.OK, f"the kernel has {', '.join(tried)}")


def _load(names: tuple[str, ...]) -> ctypes.CDLL | None:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None


def _release() -> Iterator[Finding]:
    system = os.uname()
    yield Finding("kernel", "release", State.OK, f"{system.sysname} {system.release} {system.machine}")


def _packet_socket() -> Iterator[Finding]:
    what = "packet sockets"
    try:
        # Protocol 0: such a socket receives nothing.
        probe = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    except OSError as error:
        refused = isinstance(error, PermissionError)
        cure = _ROOT if refused else "use a kernel with CONFIG_PACKET"
        yield Finding("kernel", what, State.MISSING, f"cannot be opened: {error.strerror}", cure, needed=True)
        return
    with probe:
        yield Finding("kernel", what, State.OK, "can be opened", needed=True)
        try:
            probe.setsockopt(_SOL_PACKET, _PACKET_VERSION, struct.pack("=i", _TPACKET_V3))
        except OSError as error:
            detail = f"refused: {error.strerror}; packets are read one by one, at a higher cost"
            yield Finding("kernel", "capture ring (TPACKET_V3)", State.LIMITED, detail, "use a kernel that has it")
        else:
            yield Finding("kernel", "capture ring (TPACKET_V3)", State.OK, "accepted")


def _namespaces() -> Iterator[Finding]:
    what = "network namespaces"
    try:
        namespaces.run_inside(Path("/proc/self/ns/net"), lambda: None)
    except (OSError, PktprocError) as error:
        detail = f"only the current one: {error}"
        yield Finding("kernel", what, State.LIMITED, detail, _ROOT)
    else:
        yield Finding("kernel", what, State.OK, "can be entered")


@dataclass(frozen=True, slots=True)
class _Mount:
    where: str
    kind: str
    options: tuple[str, ...]


def _mounts() -> Iterator[_Mount]:
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines():
        fields = line.split()
        if len(fields) >= 4:
            yield _Mount(fields[1], fields[2], tuple(fields[3].split(",")))


def _hidepid() -> Iterator[Finding]:
    """Read whether /proc hides the processes of others (proc(5), `hidepid`); the last mount there counts."""
    what = "processes in /proc"
    mounts = [mount for mount in _mounts() if mount.where == "/proc" and mount.kind == "proc"]
    if not mounts:
        yield Finding("kernel", what, State.MISSING, "/proc is not mounted", "mount -t proc proc /proc", needed=True)
        return
    hiding = [option for option in mounts[-1].options if option.startswith("hidepid=")]
    if not hiding or hiding[0] in ("hidepid=0", "hidepid=off"):
        yield Finding("kernel", what, State.OK, "none are hidden (no hidepid)", needed=True)
    elif Path("/proc/1/stat").exists() and os.geteuid() == 0:
        yield Finding("kernel", what, State.OK, f"{hiding[0]}, which does not concern root", needed=True)
    else:
        cure = f"{_ROOT}, or: mount -o remount,hidepid=0 /proc"
        yield Finding("kernel", what, State.LIMITED, f"mounted with {hiding[0]}", cure, needed=True)
