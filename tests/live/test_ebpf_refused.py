"""Where another program has the cgroup's hook for itself: `ebpf` does without packets or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bed.program import Command, Program
from bed.socket_tools import pktproc_sockets, run
from pktproc.kernel.cgroups import cgroup_root
from pktproc.kernel.ebpf.libbpf import BpfObject
from pktproc.kernel.engines import open_engine

SOURCE = """
__attribute__((section("cgroup_skb/egress"), used)) int lets_pass(void *skb) { return 1; }
char LICENSE[] __attribute__((section("license"), used)) = "GPL";
"""
WHY = "eBPF: attach egress: other programs leave no room at this hook of the cgroup: `bpftool cgroup tree` shows them"
SNIFF = [sys.executable, "-m", "pktproc", "sniff", "-i", "lo", "--duration", "0.1"]


@pytest.fixture
def occupied(tmp_path: Path) -> Iterator[None]:
    """Attach a program that lets everything pass to the root of cgroup v2, without BPF_F_ALLOW_MULTI (bpf(2))."""
    source, compiled = tmp_path / "passing.bpf.c", tmp_path / "passing.bpf.o"
    source.write_text(SOURCE)
    subprocess.run(["clang", "-g", "-O2", "-target", "bpf", "-c", source, "-o", compiled], check=True)
    root = cgroup_root(Path("/proc/self/mountinfo").read_text())
    with closing(BpfObject(compiled.read_bytes())) as loaded:
        loaded.load()
        held = Path(f"/proc/self/fdinfo/{loaded.program_descriptor('lets_pass')}").read_text()
        (number,) = (line.split()[1] for line in held.splitlines() if line.startswith("prog_id:"))
        subprocess.run(["bpftool", "cgroup", "attach", root, "egress", "id", number], check=True)
        try:
            yield
        finally:
            subprocess.run(["bpftool", "cgroup", "detach", root, "egress", "id", number], check=True)


@pytest.mark.usefixtures("occupied")
def test_auto_goes_on_with_netlink_and_says_why() -> None:
    done = run(SNIFF)
    assert done.returncode == 0, done.stderr
    assert f"pktproc: engine netlink, since ebpf does not work: {WHY}" in done.stderr.splitlines()
    assert "pktproc: listening on lo, engine netlink" in done.stderr.splitlines()


@pytest.mark.usefixtures("occupied")
def test_ebpf_that_was_asked_for_ends_with_one_line() -> None:
    done = run([*SNIFF, "--engine", "ebpf"])
    assert done.returncode == 3
    assert done.stderr == f"pktproc: {WHY}\n"


@pytest.mark.usefixtures("occupied")
def test_nothing_stays_attached() -> None:
    def attached() -> int:
        listed = subprocess.run(["bpftool", "-j", "link", "show"], capture_output=True, text=True, check=True).stdout
        return len(json.loads(listed))

    before = attached()
    engine, notes = open_engine()
    assert engine.name == "netlink"
    assert len(notes) == 1
    assert attached() == before
    engine.close()


@pytest.mark.usefixtures("occupied")
def test_sockets_are_told_of_all_the_same() -> None:
    with Command(pktproc_sockets("-n", "--events", "--engine", "ebpf", "-u")) as events:
        assert events.stderr.find(lambda line: "watching" in line and "engine ebpf" in line, 1, 10), events.describe()
        with Program("udp_server", "127.0.0.1", 7620).ready() as server:
            told = f"[{server.pid}] fd"
            assert events.stdout.find(lambda line: ":7620 " in line and told in line, 1, 10), events.describe()
