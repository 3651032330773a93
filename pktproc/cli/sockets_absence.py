"""What `pktproc sockets` says where there is nothing of what was named."""

from __future__ import annotations

import os

from pktproc.attribution.process_selection import ProcessJudge
from pktproc.cli.sockets_options import SocketsOptions
from pktproc.kernel.processes import ProcessReader
from pktproc.output.escape import escape


def absence(options: SocketsOptions) -> str:
    """Return in one line that no socket was found, and whether the process is missing that should hold it."""
    undone = ", so that no signal was sent" if options.signal else ", so that none was closed" if options.close else ""
    return f"{_lack(options)}{undone}"


def _lack(options: SocketsOptions) -> str:
    whose = _described(options)
    if whose and not _exists(options):
        return f"there is no process {whose}"
    words = escape(" ".join(options.words))
    if not words:
        return f"no process {whose} holds such a socket"
    return f"there is no such socket: {words}{f', of a process {whose}' if whose else ''}"


def _described(options: SocketsOptions) -> str:
    """Return how the processes that were selected are called."""
    chosen = options.selection
    groups = (
        ("", [str(pid) for pid in sorted(chosen.pids)]),
        ("named ", [f"'{escape(name)}'" for name in chosen.names]),
        ("of user ", [str(uid) for uid in sorted(chosen.uids)]),
        ("in container ", [escape(container) for container in chosen.containers]),
    )
    return " ".join(f"{label}{' or '.join(values)}" for label, values in groups if values)


def _exists(options: SocketsOptions) -> bool:
    """Say whether there is any process of those that were selected, this program apart."""
    reader = ProcessReader()
    judge = ProcessJudge(options.selection.selection(), reader.read)
    processes = (reader.read(pid) for pid in reader.pids_newest_first() if pid != os.getpid())
    return any(process is not None and judge.wants(process) for process in processes)
