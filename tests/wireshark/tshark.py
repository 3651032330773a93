"""tshark with pktproc's fields, in a home of its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pktproc

LUA = Path(pktproc.__file__).parent / "wireshark" / "pktproc.lua"
Fields = dict[str, list[str]]


def environment(home: Path, **more: str) -> dict[str, str]:
    """Return the environment of a user with that home who never called sudo."""
    foreign = ("XDG_", "SUDO_", "WIRESHARK_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**own, "HOME": str(home), **more}


def tshark(home: Path, *arguments: object, lua: Path | None = LUA) -> str:
    """Return what tshark prints; AssertionError if it fails or anything goes wrong in Lua."""
    script = [f"-Xlua_script:{lua}"] if lua else []
    done = subprocess.run(
        ["tshark", "-n", *script, *map(str, arguments)],
        env=environment(home),
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "Lua" not in done.stderr
    return done.stdout


def fields(home: Path, path: Path, *names: str, lua: Path | None = LUA) -> list[Fields]:
    """Return the values of fields of each packet, all of them in order; a field that does not occur is missing."""
    wanted = [word for name in (*names, "_ws.lua.error") for word in ("-e", name)]
    packets: list[dict[str, Any]] = json.loads(tshark(home, "-r", path, "-T", "json", *wanted, lua=lua))
    found = [packet["_source"].get("layers", {}) for packet in packets]
    assert not [layers for layers in found if "_ws.lua.error" in layers]
    return found


def frames(home: Path, path: Path, filter_: str, lua: Path | None = LUA) -> list[int]:
    """Return the numbers of the packets that pass a display filter."""
    numbers = tshark(home, "-r", path, "-Y", filter_, "-T", "fields", "-e", "frame.number", lua=lua)
    return [int(number) for number in numbers.split()]
