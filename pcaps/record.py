"""Record the scenes: for each one a capture, a store and the truth, in the folder `recorded`.

Usage, as root, from the checkout: python pcaps/record.py [SCENE]...

A scene is saved only if its packets are named as they must be, and nothing in its files tells of this machine. What
other programs do at the same time can spoil one: it is tried again.
"""  # noqa: INP001 - a program, not a package

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from scenes import SCENES, Stage
from scrub import scrub

from bed.evidence import Dump, Recorder, enrich
from bed.namespaces import NamespacePair
from bed.recorded import assert_well_named, judge_recorded, read_owners, shown, write_owners
from bed.verdict import Verdict

HERE = Path(__file__).resolve().parent
RECORDED = HERE / "recorded"
SUFFIXES = (".pcap", ".db", ".truth.json")
LARGEST_BYTES = 100_000
TRIES = 5
INTERFACES = {"loopback": "lo"}
HOMES = (b"/root", b"/home", b"/tmp", b"/var", b"/work", b"/opt", b"venv")


def record(name: str, directory: Path) -> None:
    """Play a scene, record and capture it into a directory, and scrub the store."""
    store = directory / f"{name}.db"
    with (
        NamespacePair() as pair,
        Recorder(store, "--no-cmdline") as recorder,
        Dump(directory / f"{name}.pcap", pair.left, interface=INTERFACES.get(name)) as dump,
    ):
        stage = Stage(pair.left, pair.right, directory, recorder)
        with stage.programs:
            owners = SCENES[name](stage)
            recorder.looked_again()
            dump.stop()
            recorder.stop()
        namespaces = (pair.left.inode, pair.right.inode)
    scrub(store, namespaces)
    write_owners(directory / f"{name}.truth.json", owners)


def judge(name: str, directory: Path) -> Verdict:
    """Return the verdict over a recorded scene; AssertionError if it may not be saved."""
    capture, store, truth = (directory / f"{name}{suffix}" for suffix in SUFFIXES)
    owners = read_owners(truth)
    verdict = judge_recorded(shown(capture), enrich(capture, "-s", store).packets, owners)
    assert_well_named(verdict, owners)
    for path in (capture, store, truth):
        assert path.stat().st_size <= LARGEST_BYTES, f"{path} has {path.stat().st_size} bytes"
        assert not (found := traces(path.read_bytes())), f"{path} tells of this machine: {found}"
    return verdict


def traces(data: bytes) -> list[bytes]:
    """Return the texts, as strings(1) finds them, that tell of this machine."""
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    words = (*HOMES, os.uname().release.encode(), boot_id, bytes(HERE.parent), bytes(Path(sys.prefix)))
    host = re.compile(rb"\b%s\b" % re.escape(socket.gethostname().encode()))
    texts = re.findall(rb"[\x20-\x7e]{4,}", data)
    return [text for text in texts if any(word in text for word in words) or (len(text) > 5 and host.search(text))]


def main(names: list[str]) -> None:
    """Record scenes and say how each one is named."""
    RECORDED.mkdir(exist_ok=True)
    for name in names or SCENES:
        for left in reversed(range(TRIES)):
            with tempfile.TemporaryDirectory() as directory:
                try:
                    record(name, Path(directory))
                    verdict = judge(name, Path(directory))
                except AssertionError as error:
                    sys.stdout.write(f"{name}: {error}\n")
                    if not left:
                        raise SystemExit(f"{name} is not saved") from error
                    continue
                for suffix in SUFFIXES:
                    shutil.copyfile(Path(directory) / f"{name}{suffix}", RECORDED / f"{name}{suffix}")
            sys.stdout.write(f"{name}: {verdict}\n")
            break


if __name__ == "__main__":
    main(sys.argv[1:])
