"""What to say when the file system refuses: whose file it is, and as whom to run."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pktproc.errors import Denied, PktprocError


@contextmanager
def with_cures() -> Iterator[None]:
    """Turn refusals of the file system within a with block into `Denied`, which names the cure."""
    try:
        yield
    except (OSError, PktprocError) as error:
        refusal = error if isinstance(error, PermissionError) else error.__cause__
        if not isinstance(refusal, PermissionError) or refusal.filename is None or isinstance(error, Denied):
            raise
        raise Denied(f"{refusal.filename}: permission denied; {_cure(Path(os.fsdecode(refusal.filename)))}") from error


def _cure(path: Path) -> str:
    place, owner = _owned(path)
    whose = "it" if place == path else str(place)
    if owner == os.geteuid():
        return f"{whose} is yours, but its mode forbids that: see `ls -ld {place}` and chmod(1)"
    try:
        name = pwd.getpwuid(owner).pw_name
    except KeyError:
        name = str(owner)
    return f"{whose} belongs to {name}: run as {name} (sudo{'' if owner == 0 else f' -u {name}'})"


def _owned(path: Path) -> tuple[Path, int]:
    """Return the part of a path that can be looked at and is nearest to its end, and its owner."""
    for place in (path, *path.absolute().parents):
        try:
            return place, place.stat().st_uid
        except OSError:
            continue
    return Path("/"), 0
