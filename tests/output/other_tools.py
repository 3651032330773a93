"""What other people's tools make of a capture file."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

# They say this even if all is well.
_BENIGN = ("Running as user", "reading from file", "dropped privs to")
PACKET_FIELDS = ("frame.time_epoch", "frame.len", "frame.cap_len", "frame.interface_id", "frame.md5_hash")
"""What must not change in a packet; the last is of its bytes."""


def run(*command: str | Path) -> str:
    """Return what a tool prints; AssertionError if it fails or complains."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if line.strip() and not line.startswith(_BENIGN)]
    assert (done.returncode, complaints) == (0, []), command
    return done.stdout


def fields(path: Path, *names: str, options: Sequence[str] = ()) -> list[list[str]]:
    """Return fields of each packet by tshark."""
    wanted = [word for name in names for word in ("-e", name)]
    hashed = ("-o", "frame.generate_md5_hash:TRUE")
    printed = run("tshark", "-n", *hashed, *options, "-r", path, "-T", "fields", *wanted)
    return [line.split("\t") for line in printed.splitlines()]


def packets(path: Path) -> list[list[str]]:
    """Return `PACKET_FIELDS` of each packet."""
    return fields(path, *PACKET_FIELDS)


def accept(path: Path, *, tcpdump: bool = True) -> None:
    """Let all tools read a file, tshark among them; AssertionError if one of them minds anything.

    libpcap, hence tcpdump, reads only files whose interfaces have all the same link type.
    """
    run("capinfos", path)
    if tcpdump:
        run("tcpdump", "-n", "-r", path)
    plain = packets(path)
    for command in (("editcap", path), ("mergecap", "-w")):
        copy = path.with_name(f"{path.name}.{command[0]}")
        run(*command, copy, *([path] if command[0] == "mergecap" else []))
        assert packets(copy) == plain
