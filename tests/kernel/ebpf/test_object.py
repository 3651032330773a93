"""The object in the repository: what its source gives, and laid out as the decoder reads it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from kernel.ebpf.type_information import enumerators, sections, structures
from pktproc.kernel import ebpf
from pktproc.kernel.ebpf import events
from pktproc.kernel.ebpf.descriptors import OBJECT as DESCRIPTORS
from pktproc.kernel.ebpf.programs import HOOKS, MOST_EVENTS, MOST_EXECUTIONS, OBJECT, Programs

ROOM = Path(ebpf.__file__).parent
LAYOUTS = {
    "process_facts": events.PROCESS,
    "ends": events.ENDS,
    "event": events.EVENT,
    "execution": events.EXECUTION,
    "holding": events.HOLDING,
}


@pytest.fixture(scope="module")
def btf() -> bytes:
    return sections((ROOM / OBJECT).read_bytes())[".BTF"]


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_the_layouts_are_those_of_the_object(btf: bytes, name: str) -> None:
    structure, layout = structures(btf)[name], LAYOUTS[name]
    assert layout.itemsize == structure.size
    assert layout.fields is not None
    ours = {field: offset for field, (_, offset, *_) in layout.fields.items() if field != "padding"}
    assert ours == {field: offset for field, offset in structure.offsets.items() if field != "padding"}


def test_the_kinds_are_those_of_the_object(btf: bytes) -> None:
    assert enumerators(btf, "kind") == {kind.name: kind.value for kind in events.Kind}


def test_every_hook_has_its_program_and_every_program_its_hook() -> None:
    names = sections((ROOM / OBJECT).read_bytes()).keys()
    programs = [name for name in names if name.startswith(("tp_btf/", "cgroup", "iter/"))]
    assert len(programs) == len(HOOKS)


def test_the_maps_have_as_many_places_as_are_read() -> None:
    with Programs() as programs:
        names = {"ring": MOST_EVENTS, "executions": MOST_EXECUTIONS}
        for name, places in names.items():
            told = Path(f"/proc/self/fdinfo/{programs.map_descriptor(name)}").read_text().split()
            assert int(told[told.index("max_entries:") + 1]) == places


def test_the_object_is_what_the_source_gives_wherever_it_lies(tmp_path: Path) -> None:
    copy = tmp_path / "a" / "copy"
    shutil.copytree(ROOM, copy)
    built = tmp_path / "built"
    built.mkdir()
    subprocess.run([copy / "build.sh", built], check=True, timeout=60)
    for name in (OBJECT, DESCRIPTORS):
        assert (built / name).read_bytes() == (ROOM / name).read_bytes()
