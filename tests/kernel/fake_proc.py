"""A directory laid out like /proc, written as proc(5) describes it."""

from __future__ import annotations

import itertools
import socket
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

# net/tcp_states.h
ESTABLISHED, SYN_SENT, SYN_RECV, TIME_WAIT, CLOSE, LISTEN = 1, 2, 3, 6, 7, 10
HOME = 4026531840
End = tuple[str, int]

_TABLES = ("tcp", "tcp6", "udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6")
_HEADING = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


class FakeProc:
    """Build the tree under `root`; every process is in the namespace `netns` that it was started in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tables: dict[int, dict[str, list[str]]] = {}
        self._descriptors = itertools.count(3)
        root.mkdir(exist_ok=True)
        self.latest_pid(1)

    def latest_pid(self, pid: int) -> None:
        """Write the pid that was given out last."""
        (self.root / "loadavg").write_text(f"0.00 0.01 0.05 1/100 {pid}\n")

    def descriptors_from(self, number: int) -> None:
        """Let the descriptors that are written from now on begin with this number."""
        self._descriptors = itertools.count(number)

    def start(
        self,
        pid: int,
        comm: bytes = b"program",
        *,
        ppid: int = 1,
        ticks: int = 100,
        uid: int = 1000,
        exe: str | None = "/usr/bin/program",
        argv: Sequence[bytes] | None = (b"program",),
        cgroup: str = "0::/user.slice\n",
        netns: int = HOME,
        tgid: int | None = None,
        sockets: Iterable[int] = (),
    ) -> Path:
        """Write a process that holds sockets with these inodes; a `tgid` other than the pid makes it a thread."""
        directory = self.root / str(pid)
        (directory / "fd").mkdir(parents=True)
        (directory / "ns").mkdir()
        before_start, after_start = [pid, pid, 0, -1, 4194304, *[0] * 8, 20, 0, 1, 0], [4096, 1]
        fields = " ".join(map(str, ["S", ppid, *before_start, ticks, *after_start]))
        (directory / "stat").write_bytes(b"%d (%s) %s\n" % (pid, comm, fields.encode()))
        escaped = comm.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")  # string_escape_str in fs/proc/array.c
        status = b"Name:\t%s\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t%d\nPid:\t%d\n" % (escaped, tgid or pid, pid)
        # real, effective, saved, file system
        (directory / "status").write_bytes(status + b"PPid:\t%d\nUid:\t%d\t%d\t%d\t%d\n" % (ppid, 0, uid, uid, uid))
        (directory / "cmdline").write_bytes(b"".join(word + b"\0" for word in argv or ()))
        (directory / "cgroup").write_text(cgroup)
        if exe is not None:
            (directory / "exe").symlink_to(exe)
        (directory / "fd" / "0").symlink_to("/dev/null")
        (directory / "ns" / "net").symlink_to(f"net:[{netns}]")
        (directory / "net").symlink_to(self._net(netns))
        for inode in sockets:
            self.hold(pid, inode)
        self.latest_pid(pid)
        return directory

    def hold(self, pid: int, inode: int) -> None:
        """Give a process a descriptor of a socket."""
        number = next(self._descriptors)
        (self.root / str(pid) / "fd" / str(number)).symlink_to(f"socket:[{inode}]")

    def drop(self, pid: int, inode: int) -> None:
        """Close a process's descriptors of a socket."""
        for link in (self.root / str(pid) / "fd").iterdir():
            if str(link.readlink()) == f"socket:[{inode}]":
                link.unlink()

    def end(self, pid: int) -> None:
        """Remove a process."""
        directory = self.root / str(pid)
        for folder in ("fd", "ns"):
            for entry in (directory / folder).iterdir():
                entry.unlink()
            (directory / folder).rmdir()
        for entry in directory.iterdir():
            entry.unlink()
        directory.rmdir()

    def open(
        self,
        table: str,
        local: End,
        remote: End | None = None,
        *,
        state: int = ESTABLISHED,
        inode: int = 0,
        uid: int = 1000,
        netns: int = HOME,
    ) -> None:
        """Add a line to a table of /proc/net."""
        wide = table.endswith("6")
        remote = remote or ("::" if wide else "0.0.0.0", 0)
        ends = f"{_hexadecimal(local, wide=wide)} {_hexadecimal(remote, wide=wide)}"
        line = (
            f"   0: {ends} {state:02X} 00000000:00000000 00:00000000 00000000 {uid:5d}        0 {inode} 1 0000 100 0\n"
        )
        self._table(netns, table).append(line)
        self._write(netns, table)

    def close(self, table: str, inode: int, *, netns: int = HOME) -> None:
        """Remove a socket's line."""
        lines = self._table(netns, table)
        lines[:] = [line for line in lines if int(line.split()[9]) != inode]
        self._write(netns, table)

    def write_net(self, name: str, text: str, *, netns: int = HOME) -> None:
        """Write another file of /proc/net."""
        (self._net(netns) / name).write_text(text)

    def _net(self, netns: int) -> Path:
        net = self.root / f"net-{netns}"
        if not net.exists():
            net.mkdir()
            for table in _TABLES:
                self._write(netns, table)
        return net

    def _table(self, netns: int, table: str) -> list[str]:
        return self._tables.setdefault(netns, {}).setdefault(table, [])

    def _write(self, netns: int, table: str) -> None:
        (self._net(netns) / table).write_text(_HEADING + "".join(self._table(netns, table)))


def _hexadecimal(end: End, *, wide: bool) -> str:
    """Return an address as the kernel prints it on this machine: 32-bit words, each a number in host byte order."""
    packed = socket.inet_pton(socket.AF_INET6 if wide else socket.AF_INET, end[0])
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{end[1]:04X}"
