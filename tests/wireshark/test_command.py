"""`pktproc wireshark`: where the files are, put in place for the right user, and taken away again."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bed.sniff import pktproc_command
from wireshark.commented_file import write
from wireshark.tshark import LUA, environment, frames

PLUGIN = Path(".local/lib/wireshark/plugins/pktproc.lua")
OLD_EXTCAP = Path(".config/wireshark/extcap/pktproc")
NEW_EXTCAP = Path(".local/lib/wireshark/extcap/pktproc")
FINE, FAILED, USAGE = 0, 1, 2


def told_folders(home: Path) -> dict[str, Path]:
    """Return Wireshark's own account of its folders."""
    done = subprocess.run(
        ["tshark", "-G", "folders"], env=environment(home), capture_output=True, text=True, check=True, timeout=60
    )
    parts = (line.partition(":") for line in done.stdout.splitlines())
    return {name: Path(path.strip()) for name, _, path in parts}


def expected(home: Path) -> set[Path]:
    """Return the paths of the files by Wireshark's account."""
    folders = told_folders(home)
    extcap = folders.get("Personal Extcap path", folders["Personal configuration"] / "extcap")
    return {folders["Personal Lua Plugins"] / "pktproc.lua", extcap / "pktproc"}


def run(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = pktproc_command("wireshark", *arguments)
    return subprocess.run(
        command, env=environment(home, **more), capture_output=True, text=True, check=False, timeout=60
    )


def present(home: Path) -> set[Path]:
    return {path for path in home.rglob("*") if path.is_file()}


def test_it_says_where_the_lua_file_is_and_what_to_do(tmp_path: Path) -> None:
    told = run(tmp_path)
    assert (told.returncode, told.stderr) == (FINE, "")
    assert str(LUA) in told.stdout
    assert "--install" in told.stdout
    assert {line for line in told.stdout.splitlines() if line.endswith(": not installed")} == {
        f"{path}: not installed" for path in expected(tmp_path)
    }
    assert present(tmp_path) == set()


def test_the_command_that_it_shows_works(tmp_path: Path) -> None:
    (once,) = (line for line in run(tmp_path).stdout.splitlines() if line.startswith("once:"))
    path = write(tmp_path / "FILE", [["pktproc src.pid=1 src.name=curl"], ["pktproc src.pid=2 src.name=dig"]])
    shown = subprocess.run(
        ["sh", "-c", once.partition(":")[2]],
        cwd=path.parent,
        env=environment(tmp_path),
        capture_output=True,
        check=True,
    )
    assert len(shown.stdout.splitlines()) == 1


def test_install_puts_both_files_where_wireshark_looks(tmp_path: Path) -> None:
    told = run(tmp_path, "--install")
    assert (told.returncode, told.stderr) == (FINE, "")
    assert present(tmp_path) == expected(tmp_path)
    for path in expected(tmp_path):
        assert f"{path}: installed" in told.stdout.splitlines()
    path = write(tmp_path / "file.pcapng", [["pktproc src.pid=1 src.name=curl"], []])
    assert frames(tmp_path, path, 'pktproc.name == "curl"', lua=None) == [1]


def test_install_twice_is_install_once(tmp_path: Path) -> None:
    run(tmp_path, "--install")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in present(tmp_path)}
    told = run(tmp_path, "--install")
    assert told.returncode == FINE
    assert told.stdout.count("already installed") == len(before) == 2
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in present(tmp_path)} == before
    assert run(tmp_path).stdout.count(": installed\n") == 2


def test_install_renews_what_another_version_left(tmp_path: Path) -> None:
    run(tmp_path, "--install")
    plugin = tmp_path / PLUGIN
    plugin.write_bytes(LUA.read_bytes() + b"-- older\n")
    assert f"{plugin}: installed, from another pktproc" in run(tmp_path).stdout
    assert f"{plugin}: installed\n" in run(tmp_path, "--install").stdout
    assert plugin.read_bytes() == LUA.read_bytes()


def test_uninstall_removes_what_install_put_there_and_nothing_else(tmp_path: Path) -> None:
    other = tmp_path / PLUGIN.with_name("other.lua")
    other.parent.mkdir(parents=True)
    other.write_text("-- mine\n")
    run(tmp_path, "--install")
    told = run(tmp_path, "--uninstall")
    assert (told.returncode, told.stdout.count(": removed\n")) == (FINE, 2)
    assert present(tmp_path) == {other}
    assert run(tmp_path, "--uninstall").stdout == "nothing to remove\n"


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    foreign = tmp_path / PLUGIN
    foreign.parent.mkdir(parents=True)
    foreign.write_text("-- mine\n")
    told = run(tmp_path, "--install")
    assert (told.returncode, told.stdout) == (FAILED, "")
    assert told.stderr == f"pktproc: {foreign} is not pktproc's: move it away first\n"
    assert run(tmp_path, "--uninstall").returncode == FINE
    assert present(tmp_path) == {foreign}
    assert foreign.read_text() == "-- mine\n"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / ".local").write_text("")
    told = run(tmp_path, "--install")
    assert told.returncode == FAILED
    (line,) = told.stderr.splitlines()
    assert str(tmp_path / ".local") in line


def test_both_ways_at_once_is_wrong_use(tmp_path: Path) -> None:
    told = run(tmp_path, "--install", "--uninstall")
    assert told.returncode == USAGE
    assert len(told.stderr.splitlines()) == 1
    assert present(tmp_path) == set()


def without_tshark(tmp_path: Path) -> str:
    """Return a PATH on which there is no tshark."""
    empty = tmp_path / "bin"
    empty.mkdir()
    return str(empty)


def test_without_tshark_the_documented_folders_of_all_versions_are_used(tmp_path: Path) -> None:
    home = tmp_path / "home"
    told = run(home, "--install", PATH=without_tshark(tmp_path))
    assert (told.returncode, told.stderr) == (FINE, "")
    assert present(home) == {home / PLUGIN, home / OLD_EXTCAP, home / NEW_EXTCAP}
    assert run(home, "--uninstall").stdout.count(": removed\n") == 3
    assert present(home) == set()


def test_the_configuration_folder_follows_xdg(tmp_path: Path) -> None:
    home, configuration = tmp_path / "home", tmp_path / "configuration"
    run(home, "--install", PATH=without_tshark(tmp_path), XDG_CONFIG_HOME=str(configuration))
    assert present(configuration) == {configuration / "wireshark" / "extcap" / "pktproc"}
    assert present(home) == {home / PLUGIN, home / NEW_EXTCAP}


def test_a_home_with_blanks_and_quotes_does_no_harm(tmp_path: Path) -> None:
    home = tmp_path / "it's a home"
    assert run(home, "--install").returncode == FINE
    assert present(home) == expected(home)


class Caller(NamedTuple):
    """A user who calls sudo: `prefix` runs a command where the user exists, `home` is a folder of the user's."""

    name: str
    uid: int
    home: Path
    prefix: tuple[str, ...]


@pytest.fixture
def caller() -> Iterator[Caller]:
    """Make up a user, in a mount namespace with a user database of its own."""
    name, uid = "pktproc-caller", 54321
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)
        home = place / "home"
        home.mkdir()
        os.chown(home, uid, uid)
        entry = f"{name}:x:{uid}:{uid}::{home}:/bin/sh\n"
        (place / "passwd").write_text(Path("/etc/passwd").read_text() + entry)
        script = 'mount --bind "$0" /etc/passwd && exec "$@"'
        yield Caller(name, uid, home, ("unshare", "--mount", "sh", "-c", script, str(place / "passwd")))


def under_sudo(caller: Caller, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the command as sudo does: as root with root's home, and the caller named."""
    command = [*caller.prefix, *pktproc_command("wireshark", *arguments)]
    surroundings = {**environment(Path("/root"), **more), "SUDO_USER": caller.name}
    return subprocess.run(command, env=surroundings, capture_output=True, text=True, check=False, timeout=60)


def test_under_sudo_the_files_are_the_callers(caller: Caller, tmp_path: Path) -> None:
    told = under_sudo(caller, "--install", XDG_CONFIG_HOME=str(tmp_path))
    assert told.stdout.count(": installed\n") == 2
    assert len(told.stderr.splitlines()) <= 1
    assert present(caller.home) == expected(caller.home)
    assert {(path.stat().st_uid, path.stat().st_gid) for path in caller.home.rglob("*")} == {(caller.uid, caller.uid)}
    assert under_sudo(caller, "--uninstall").stdout.count(": removed\n") == 2
    assert present(caller.home) | present(tmp_path) == set()


def test_a_caller_who_cannot_run_this_pktproc_is_told(caller: Caller) -> None:
    user = ["setpriv", f"--reuid={caller.uid}", f"--regid={caller.uid}", "--clear-groups", "--bounding-set=-all"]
    can = (
        subprocess.run([*user, "test", "-x", sys.executable], capture_output=True, check=False, timeout=60).returncode
        == 0
    )
    told = under_sudo(caller, "--install")
    assert told.returncode == (FINE if can else FAILED)
    assert (told.stderr == "") == can
    assert (f"you may not run {sys.executable}" in told.stderr) != can


def test_root_does_not_follow_a_callers_links(caller: Caller, tmp_path: Path) -> None:
    victim = tmp_path / "pktproc.lua"
    victim.write_bytes(LUA.read_bytes() + b"-- roots\n")
    (caller.home / ".local/lib/wireshark").mkdir(parents=True)
    (caller.home / ".local/lib/wireshark/plugins").symlink_to(tmp_path)
    told = under_sudo(caller, "--install")
    assert told.returncode == FAILED
    assert len(told.stderr.splitlines()) == 1
    assert victim.read_bytes().endswith(b"-- roots\n")
