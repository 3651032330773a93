"""The house plan, checked: imports run one way, pure rooms stay pure, and the front door opens fast."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import pktproc

PACKAGE = Path(pktproc.__file__).parent
ROOT = PACKAGE.parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# What every room may import; `model`, `errors` and `version` are the ground that all stand on.
GROUND = frozenset({"model", "errors", "version"})
ENGINE = frozenset({"attribution.engine"})
ALLOWED: dict[str, frozenset[str]] = {
    "model": frozenset(),
    "errors": frozenset(),
    "version": frozenset(),
    "packets": frozenset({"packets"}),
    "attribution": frozenset({"attribution", "packets"}),
    "inventory": frozenset({"inventory"}),
    "kernel": frozenset({"kernel", "packets", "inventory.rows", "inventory.states"}) | ENGINE,
    "capture": frozenset({"capture", "packets", "kernel.namespaces"}) | ENGINE,
    "output": frozenset({"output", "packets", "attribution", "capture.file_batch", "bandwidth.views", "inventory"}),
    "snapshots": frozenset({"snapshots", "packets", "attribution"}),
    "bandwidth": frozenset({"bandwidth", "packets", "attribution"}),
    "tui": frozenset({"tui", "bandwidth.views", "output"}),
}
# Modules that bring rooms together: everything but the command line.
JOINTS = frozenset({"attribution", "packets", "kernel", "capture", "output", "snapshots", "bandwidth", "inventory"})
# Rooms in which nothing may touch the world outside the process.
PURE = ("packets", "attribution", "inventory", "model", "errors")
OUTSIDE = frozenset(
    {"ctypes", "fcntl", "io", "mmap", "os", "pathlib", "select", "shutil", "socket", "subprocess", "tempfile", "time"}
)
LARGEST_MODULE = 330


class Import(NamedTuple):
    """An import of `target` (dotted, without `pktproc.` for our own) at a line of a module."""

    module: str
    line: int
    target: str
    own: bool


def dotted(path: Path) -> str:
    """Return the name of a module within the package; the package itself is the empty string."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path) -> Iterator[Import]:
    """Yield every import of a module, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            # `from pktproc.kernel import namespaces` means pktproc.kernel.namespaces where that is a module.
            names = [
                f"{node.module}.{alias.name}" if is_module(f"{node.module}.{alias.name}") else str(node.module)
                for alias in node.names
            ]
        else:
            continue
        for name in names:
            own = name == "pktproc" or name.startswith("pktproc.")
            yield Import(dotted(path), node.lineno, name.removeprefix("pktproc").lstrip(".") if own else name, own)


def is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def room(module: str) -> str:
    return module.partition(".")[0]


ALL = [found for path in MODULES for found in imports(path)]


def is_below(target: str, places: frozenset[str]) -> bool:
    return any(target == place or target.startswith(f"{place}.") for place in places)


def test_every_room_is_known() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders - {"cli"} <= ALLOWED.keys()


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_imports_of_a_room_run_one_way(name: str) -> None:
    wrong = [
        found
        for found in ALL
        if found.own and room(found.module) == name and not is_below(found.target, ALLOWED[name] | GROUND)
    ]
    assert wrong == []
    assert any(room(dotted(path)) == name for path in MODULES)


def test_what_joins_the_rooms_does_not_know_the_command_line() -> None:
    joints = {dotted(path) for path in PACKAGE.glob("*.py")} - ALLOWED.keys() - {"__main__"}
    siblings = frozenset(joints - {""})
    wrong = [
        found
        for found in ALL
        if found.own and found.module in joints and not is_below(found.target, JOINTS | GROUND | siblings)
    ]
    assert wrong == []
    assert "live" in joints


def test_nobody_but_the_door_imports_the_command_line() -> None:
    importers = {found.module for found in ALL if found.own and is_below(found.target, frozenset({"cli"}))}
    assert {module for module in importers if room(module) != "cli"} == {"__main__"}


def test_the_engines_do_not_know_the_join() -> None:
    """They know the protocol that the join states, nothing more of it."""
    known = {found.target for found in ALL if found.own and room(found.module) == "kernel"}
    assert {target for target in known if room(target) == "attribution"} == {"attribution.engine"}


def test_the_pure_rooms_touch_nothing_outside() -> None:
    wrong = [found for found in ALL if not found.own and room(found.module) in PURE and room(found.target) in OUTSIDE]
    assert wrong == []


def test_the_pure_rooms_open_no_file_and_print_nothing() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        if room(dotted(path)) in PURE
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"open", "print", "input"}
    ]
    assert wrong == []


def test_packets_needs_nothing_but_numpy() -> None:
    others = {room(found.target) for found in ALL if not found.own and room(found.module) == "packets"}
    assert others - sys.stdlib_module_names == {"numpy"}


def test_the_whole_of_scapy_is_never_imported() -> None:
    assert [found for found in ALL if is_below(found.target, frozenset({"scapy.all"}))] == []
    assert "scapy" in {room(found.target) for found in ALL if not found.own}


def test_only_capture_and_output_use_scapy() -> None:
    users = {room(found.module) for found in ALL if not found.own and room(found.target) == "scapy"}
    assert not users & {"packets", "attribution", "kernel", "model", "errors", "cli"}


def test_modules_can_be_read_in_one_sitting() -> None:
    sizes = {dotted(path): len(path.read_text().splitlines()) for path in MODULES}
    assert {name: size for name, size in sizes.items() if size > LARGEST_MODULE} == {}


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    words = {word for path in MODULES for word in (*dotted(path).split("."), *dotted(path).split("_"))}
    assert not words & {"utils", "util", "helpers", "helper", "manager", "misc", "common"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_the_front_door_imports_nothing_heavy(arguments: list[str]) -> None:
    body = f"""
import sys
sys.argv = ["pktproc", *{arguments!r}]
from pktproc.cli import main
try:
    main()
finally:
    print(sorted(sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=True)
    loaded = {room(name) for name in ast.literal_eval(done.stderr)}
    assert "click" in loaded
    assert not loaded & {"numpy", "scapy", "rich", "cachetools", "cypcap", "communityid", "asyncio", "sqlite3"}


def test_the_package_itself_imports_nothing_heavy() -> None:
    body = "import pktproc, sys; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=True)
    loaded = {room(name) for name in ast.literal_eval(done.stdout)}
    assert not loaded & {"numpy", "scapy", "rich", "click", "cachetools", "cypcap"}


def test_the_types_marker_is_installed() -> None:
    assert (PACKAGE / "py.typed").is_file()
