"""ss's filter words for interfaces, marks, cgroups and chosen ports: the same sets as ss."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from bed.namespaces import Namespace, NamespacePair
from bed.program import Program
from bed.socket_tools import Line, objects, ours, pktproc_sockets, run, ss
from pktproc.kernel.cgroups import cgroup_root

ROOT = cgroup_root(Path("/proc/self/mountinfo").read_text())
CGROUP = f"pktproc-test-{os.getpid()}"


@pytest.fixture(scope="module", autouse=True)
def host(pair: NamespacePair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Sockets of every kind in the root of cgroup v2, and a listener with a connection in a cgroup of its own."""
    made = ROOT / CGROUP
    made.mkdir()
    inside = ["sh", "-c", f'echo $$ >{made}/cgroup.procs; exec "$@"', "sh"]
    try:
        with (
            Program("all_kinds", tmp_path_factory.mktemp("host"), namespace=pair.left).ready() as program,
            Program("tcp_server", "127.0.0.1", 7470, namespace=pair.left, prefix=inside).ready(),
            Program("tcp_client", "127.0.0.1", 7470, namespace=pair.left) as client,
        ):
            client.expect("done")
            yield program
    finally:
        made.rmdir()


def of_ss(left: Namespace, letters: str, words: list[str]) -> Counter[Line]:
    state = "UNCONN" if letters.startswith("-0") else "ESTAB"
    return Counter(ss(letters, *words, inside=left, kind={"-ta": "tcp", "-ua": "udp"}.get(letters, ""), state=state))


@pytest.mark.parametrize(
    "words",
    [
        ["dev", "lo"],
        ["dev", "=", "1"],
        ["dev", "!=", "lo"],
        ["dev lo or sport = :7400"],
        ["not", "dev", "lo", "and", "sport", "=", ":7410"],
        ["fwmark", "=", "0x15"],
        ["fwmark", "=", "0x01/0x03"],
        ["fwmark", "21/0xff"],
        ["fwmark", "!=", "0x15"],
        ["fwmark", "=", "0"],
        ["autobound"],
        ["autobound and dst 127.0.0.1"],
        ["autobound", "or", "sport", "=", ":7400"],
        ["cgroup", "=", f"/{CGROUP}"],
        ["cgroup", CGROUP],
        ["cgroup", f"{ROOT}/{CGROUP}"],
        ["cgroup", "!=", f"/{CGROUP}"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("letters", ["-ta", "-ua", "-tua"])
def test_each_word_means_what_it_means_to_ss(left: Namespace, letters: str, words: list[str]) -> None:
    expected = of_ss(left, letters, words)
    assert Counter(ours(letters, *words, inside=left)) == expected
    assert expected or letters != "-tua"


def test_the_root_of_cgroups_is_one_too(left: Namespace) -> None:
    """ss takes this for the root of the file system, but shows which sockets are of this cgroup."""
    lines = left.run("ss", "-HOtuae").splitlines()
    theirs = {word for line in lines for word in line.split() if "cgroup:/" in line.split() and word[:3] == "sk:"}
    assert {f"sk:{entry['cookie']:x}" for entry in objects("-tua", "cgroup", "/", inside=left)} == theirs
    assert theirs


def test_packet_sockets_have_interfaces_too(left: Namespace, host: Program) -> None:
    (facts,) = host.events("ready")
    found = objects("-0a", "dev", "lo", inside=left)
    assert [entry["holders"][0]["fds"] for entry in found] == [[facts["sockets"]["cooked"]["fd"]]]
    assert Counter(ours("-0a", "dev", "lo", inside=left)) == of_ss(left, "-0a", ["dev", "lo"])


def test_a_port_that_was_asked_for_is_not_autobound_even_if_the_kernel_gives_such_ports_out(
    left: Namespace, host: Program
) -> None:
    (facts,) = host.events("ready")
    chosen = {entry["inode"] for entry in objects("-ua", "autobound", inside=left) if "inode" in entry}
    assert facts["sockets"]["any port"]["inode"] in chosen
    assert facts["sockets"]["asked for"]["inode"] not in chosen
    # ss shows neither with a port that a listener gave to its connections; here a socket fits one of both.
    others = {entry["inode"] for entry in objects("-ua", "not", "autobound", inside=left) if "inode" in entry}
    every = {entry["inode"] for entry in objects("-ua", inside=left) if "inode" in entry}
    assert (chosen | others, chosen & others) == (every, set())


def test_unix_sockets_without_a_name_of_their_own_are_autobound(left: Namespace) -> None:
    theirs = {line.local.rpartition(" ")[2] for line in ss("-xa", "autobound", inside=left)}
    found = {str(entry["inode"]) for entry in objects("-xa", "autobound", inside=left)}
    assert theirs == found
    assert all("path" not in entry.get("local", {}) for entry in objects("-xa", "autobound", inside=left))


@pytest.mark.parametrize("words", [["fwmark", "x"], ["fwmark", "1/"], ["dev"], ["dev", ">", "lo"], ["cgroup"]], ids=str)
def test_what_means_nothing_is_refused(left: Namespace, words: list[str]) -> None:
    done = run(pktproc_sockets("-ta", *words), left)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
