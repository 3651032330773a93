"""Where Wireshark looks for a user's Lua files and extcaps, and the two files that pktproc puts there.

Wireshark itself says where (`tshark -G folders`). Without it, the folders are those of its User's Guide, section
"Plugin folders". Extcaps of one's own are read from the configuration folder, from Wireshark 4.2 on from a folder
beside the plugins.
"""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pktproc.errors import PktprocError

LUA_FILE = Path(__file__).parents[1] / "wireshark" / "pktproc.lua"
_TSHARK_TIMEOUT_S = 20
_PLUGINS, _EXTCAP, _CONFIGURATION = "Personal Lua Plugins:", "Personal Extcap path:", "Personal configuration:"
_LUA_MARK = b"-- pktproc for Wireshark"
_WRAPPER_MARK = b"#!/bin/sh\n# pktproc for Wireshark"


def become_caller() -> None:
    """Under sudo, become the user who called it, for good: that user's folders are nothing for root to write into."""
    user = os.environ.get("SUDO_USER")
    if os.geteuid() != 0 or not user or user == "root":
        return
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return
    os.initgroups(user, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    os.environ["HOME"] = entry.pw_dir
    os.environ.pop("XDG_CONFIG_HOME", None)  # root's


@dataclass(frozen=True, slots=True)
class Folders:
    """Hold the folders for Lua files and for extcaps."""

    plugins: tuple[Path, ...]
    extcap: tuple[Path, ...]

    @classmethod
    def documented(cls) -> Self:
        """Return the documented folders, for extcaps those of old and of new versions."""
        home = Path.home()
        configuration = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "wireshark"
        beside = home / ".local" / "lib" / "wireshark"
        return cls((beside / "plugins",), (beside / "extcap", configuration / "extcap"))

    @classmethod
    def told(cls) -> Self:
        """Return the folders that tshark tells, the documented ones in place of what it does not."""
        told, documented = _ask_tshark(), cls.documented()
        plugins = (told[_PLUGINS],) if _PLUGINS in told else documented.plugins
        if _EXTCAP in told:
            return cls(plugins, (told[_EXTCAP],))
        if _CONFIGURATION in told:
            return cls(plugins, (told[_CONFIGURATION] / "extcap",))
        return cls(plugins, documented.extcap)

    def joined(self, other: Self) -> Self:
        """Return the folders of both, each once."""
        return type(self)(
            tuple(dict.fromkeys((*self.plugins, *other.plugins))),
            tuple(dict.fromkeys((*self.extcap, *other.extcap))),
        )


def _ask_tshark() -> dict[str, Path]:
    command = ["tshark", "-G", "folders"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TSHARK_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    parts = (line.partition("\t") for line in os.fsdecode(done.stdout).splitlines())
    return {name: Path(path.strip()) for name, _, path in parts if path.strip().startswith("/")}


@dataclass(frozen=True, slots=True)
class Installation:
    """Hold what one file has to be: `mark` is how it begins in every version, so that it is known for ours."""

    path: Path
    content: bytes
    mark: bytes
    mode: int

    def present(self) -> bytes | None:
        """Return what the file holds now, None if there is none; raise `PktprocError` if it is somebody else's."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return None
        if not content.startswith(self.mark):
            message = f"{self.path} is not pktproc's: move it away first"
            raise PktprocError(message)
        return content

    def write(self) -> None:
        """Put the file in place, whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f".{self.path.name}.new")
        fresh.write_bytes(self.content)
        fresh.chmod(self.mode)
        fresh.replace(self.path)


def installations(folders: Folders, lua: bytes) -> list[Installation]:
    """Return the files that belong into the folders; `lua` is the content of `LUA_FILE`."""
    return [
        *(Installation(folder / LUA_FILE.name, lua, _LUA_MARK, 0o644) for folder in folders.plugins),
        *(Installation(folder / "pktproc", _wrapper(), _WRAPPER_MARK, 0o755) for folder in folders.extcap),
    ]


def _wrapper() -> bytes:
    """Return the extcap: this pktproc, run by this interpreter; -P keeps modules of the current folder out."""
    command = f'exec {shlex.quote(sys.executable)} -P -m pktproc "$@"'
    return _WRAPPER_MARK + os.fsencode(f", written by `pktproc wireshark --install`\n{command}\n")


def is_usable() -> bool:
    """Say whether this user can run the pktproc that the extcap calls."""
    return os.access(sys.executable, os.X_OK) and os.access(LUA_FILE, os.R_OK)
