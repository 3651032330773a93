"""Names of cgroups: the folders of cgroup v2 by their ids, which are inode numbers (cgroups(7))."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from pktproc.errors import Unsupported

_MOUNTS = Path("/proc/self/mountinfo")


def paths() -> dict[int, str]:
    """Return the paths of all cgroups below the mount of cgroup v2, by id; none where it is not mounted."""
    root = mount()
    return {number: path.removeprefix(root) or "/" for number, path in _walk(root)} if root else {}


def mount() -> str:
    """Return where cgroup v2 is mounted, nothing where it is not."""
    try:
        return str(cgroup_root(_MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")))
    except Unsupported:
        return ""


def _walk(root: str) -> Iterator[tuple[int, str]]:
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            yield os.stat(folder).st_ino, folder  # noqa: PTH116 - as many as there are containers and services
            waiting += [entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue


def cgroup_root(mountinfo: str) -> Path:
    """Return where cgroup v2 is mounted, from the text of /proc/PID/mountinfo; raise `Unsupported` if it is not."""
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if "-" in fields[6:] and fields[fields.index("-", 6) + 1] == "cgroup2":
            return Path(os.fsdecode(fields[4].encode().decode("unicode_escape").encode("latin-1")))
    raise Unsupported("cgroup v2 is not mounted: mount -t cgroup2 none /sys/fs/cgroup/unified")
