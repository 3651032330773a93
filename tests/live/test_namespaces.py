"""Ways into network namespaces that lead nowhere, elsewhere, or end while they are used."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bed.namespaces import Namespace, NamespacePair
from bed.program import TIMEOUT, Command, Program
from bed.socket_tools import pktproc_sockets, run
from pktproc.capture.live import CaptureOptions, LiveCapture
from pktproc.errors import UsageError
from pktproc.kernel import namespaces
from pktproc.kernel.netlink_engine import NetlinkEngine
from pktproc.kernel.tables import Tables


@pytest.fixture
def stale(pair: NamespacePair) -> Iterator[Path]:
    """Leave a name without a namespace, as `ip netns add` does when it fails half way."""
    path = pair.left.path.with_name(f"{pair.left.name}-stale")
    path.touch()
    yield path
    path.unlink(missing_ok=True)


def test_a_name_that_is_left_alone_is_no_namespace(stale: Path, left: Namespace) -> None:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert stale.name in listed.stdout
    found = namespaces.discover()
    assert left.inode in found
    assert stale.stat().st_ino not in found
    assert stale.name not in namespaces.names().values()
    with Program("udp_server", left.v4, 7498, namespace=left).ready():
        done = run(pktproc_sockets("--netns", "all", "-ua", "sport", "=", ":7498"))
    assert done.returncode == 0, done.stderr
    assert stale.name not in done.stderr


@pytest.mark.parametrize("command", [("sockets",), ("sniff", "-c", "1"), ("sniff", "-D"), ("sniff", "--", "true")])
def test_a_name_that_is_left_alone_is_refused_with_the_cure(stale: Path, command: tuple[str, ...]) -> None:
    first, *rest = command
    for given in (stale.name, str(stale)):
        done = run([sys.executable, "-m", "pktproc", first, "--netns", given, *rest])
        assert done.returncode == 2
        assert f"only the name '{given}' of a network namespace is left" in done.stderr
    subprocess.run(["ip", "netns", "delete", stale.name], check=True)
    assert f"`ip netns delete {stale.name}` removes it" in done.stderr


def test_the_namespaces_of_a_capture_that_cannot_begin_are_let_go_of(left: Namespace) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(UsageError, match="no-such-namespace"):
        LiveCapture(CaptureOptions(interfaces=("lo",), netns=(left.name, "no-such-namespace")))
    assert set(Path("/proc/self/fd").iterdir()) == before


@pytest.mark.parametrize("kind", ["file", "pipe", "folder", "socket", "namespace of another kind"])
def test_what_is_no_network_namespace_is_refused(kind: str, tmp_path: Path) -> None:
    place = Path("/proc/self/ns/uts") if kind == "namespace of another kind" else tmp_path / kind
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(str(place))
    elif kind == "folder":
        place.mkdir()
    elif kind == "file":
        place.touch()
    done = run(pktproc_sockets("--netns", place))
    assert done.returncode == 2
    assert done.stderr == (
        f"pktproc: '{place}' is no network namespace: give a name of `ip netns list`, a pid or a path\n"
    )


def test_a_way_that_leads_to_another_namespace_is_not_taken(left: Namespace, right: Namespace) -> None:
    path = right.path
    assert namespaces.run_inside(path, namespaces.current, right.inode) == right.inode
    with pytest.raises(FileNotFoundError):
        namespaces.run_inside(path, namespaces.current, left.inode)
    with pytest.raises(FileNotFoundError):
        Tables(left.inode, path)


@pytest.mark.parametrize("goes", ["ends", "moves"])
def test_a_namespace_is_entered_though_the_process_that_stood_for_it_is_gone(goes: str, pair: NamespacePair) -> None:
    left, right = pair.left, pair.right
    script = f"echo here; read _; exec nsenter --net={right.path} sh -c 'echo there; read _'"
    with Command(["sh", "-c", script], left) as eldest:
        assert eldest.stdout.find("here".__eq__, 1, TIMEOUT)
        engine = NetlinkEngine()
        with Program("udp_server", left.v4, 7498, namespace=left).ready():
            if goes == "ends":
                eldest.child.kill()
                eldest.child.wait()
            else:
                eldest.say()
                assert eldest.stdout.find("there".__eq__, 1, TIMEOUT)
            assert {found.local_port for found in engine.sockets(left.inode)} == {7498}
            assert engine.limits == []
        engine.close()
