"""Less than root: what the kernel permits is named, the rest has a reason, and never a wrong name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bed.namespaces import Namespace
from bed.program import Command, Program
from bed.sniff import Captured, Packet, Sniff, pktproc_command
from bed.verdict import fully_named, judge, judge_processes

NOBODY = "65534"
FOR_EBPF = ("net_raw", "bpf", "perfmon", "net_admin", "sys_ptrace")
ENGINES = pytest.mark.parametrize("engine", ["auto", "netlink", "procfs"])


def as_nobody(*capabilities: str) -> list[str]:
    """Return the prefix that runs a command as nobody with these capabilities at most.

    `dac_read_search` lets nobody reach an interpreter below somebody's home; it does not open other processes.
    """
    kept = ",".join(["-all", *(f"+{capability}" for capability in (*capabilities, "dac_read_search"))])
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return ["setpriv", *user, f"--inh-caps={kept}", f"--ambient-caps={kept}", f"--bounding-set={kept}"]


def as_bare_root(*capabilities: str) -> list[str]:
    """Return the prefix that runs a command as uid 0 with these capabilities alone."""
    kept = ",".join(["-all", *(f"+{capability}" for capability in capabilities)])
    return ["setpriv", f"--inh-caps={kept}", f"--bounding-set={kept}"]


USERS = pytest.mark.parametrize("prefix", [as_nobody("net_raw"), as_bare_root("net_raw")], ids=["nobody", "bare root"])


def capture(
    left: Namespace, right: Namespace, sniffer: list[str], client: list[str], engine: str
) -> tuple[Captured, tuple[str, str, int], int]:
    """Return what a sniffer with one set of privileges sees of a client with another, the client's end and pid."""
    with (
        Program("udp_server", right.v4, 7800, namespace=right).ready(),
        Sniff("--engine", engine, "udp port 7800", inside=left, prefix=sniffer) as sniff,
        Program("udp_client", right.v4, 7800, "--count", 3, namespace=left, prefix=client) as program,
    ):
        (done,) = program.expect("done")
        return sniff.stop(), ("udp", left.v4, done["local"][1]), program.pid


@ENGINES
def test_own_processes_are_named_without_root(left: Namespace, right: Namespace, engine: str) -> None:
    captured, end, pid = capture(left, right, as_nobody("net_raw"), as_nobody(), engine)
    assert fully_named(captured.packets, {end: pid}).total == 6


@ENGINES
@USERS
def test_processes_of_others_have_a_reason_and_the_lack_is_said_once(
    left: Namespace, right: Namespace, engine: str, prefix: list[str]
) -> None:
    captured, end, pid = capture(left, right, prefix, [], engine)
    verdict = judge(captured.packets, {end: pid})
    assert verdict.unknown == {"permission": 6}, verdict
    notes = [line for line in captured.talk.splitlines() if "may not be inspected" in line]
    assert len(notes) == 1, captured.talk


def test_everything_is_named_with_the_two_capabilities_that_it_takes(left: Namespace, right: Namespace) -> None:
    captured, end, pid = capture(left, right, as_nobody("net_raw", "sys_ptrace"), [], "netlink")
    assert fully_named(captured.packets, {end: pid}).total == 6


def test_the_kernel_tells_all_to_who_has_the_capabilities_for_it_and_not_root(left: Namespace) -> None:
    """A server that is older than the capture, and a storm of processes that no look can catch."""
    assert_all_are_named(*capture_storm(as_nobody(*FOR_EBPF), inside=left))


def test_who_gave_up_root_is_told_all_by_the_kernel(left: Namespace) -> None:
    assert_all_are_named(*capture_storm([], "-Z", "nobody", on=left))


@pytest.mark.parametrize("lacking", ["net_admin", "bpf", "perfmon"])
def test_each_capability_that_the_kernel_s_word_takes_is_named_if_it_lacks(left: Namespace, lacking: str) -> None:
    prefix = as_nobody(*(capability for capability in FOR_EBPF if capability != lacking))
    with Command([*prefix, *pktproc_command("sniff", "--engine", "ebpf", "-i", left.interface)], left) as sniff:
        assert sniff.finish() == 3, sniff.describe()
    (line,) = sniff.stderr.so_far()
    assert f"CAP_{lacking.upper()}" in line


def capture_storm(
    prefix: list[str], *options: str, on: Namespace | tuple[()] = (), inside: Namespace | None = None
) -> tuple[int, dict[int, int], list[Packet]]:
    """Return what the engine ebpf sees of a storm on loopback, the server's pid, the clients' by their ports."""
    space = inside or on
    assert isinstance(space, Namespace)
    with (
        Program("tcp_server", "127.0.0.1", 7803, namespace=space).ready() as server,
        Sniff(
            "--engine", "ebpf", *options, "tcp port 7803", on=on, inside=inside, interface="lo", prefix=prefix
        ) as sniff,
        Program("storm", "127.0.0.1", 7803, "--count", 100, "--life-ms", 0, namespace=space).ready() as storm,
    ):
        storm.say()
        storm.expect("done")
        clients = {child["port"]: child["child"] for child in storm.events("child")}
        assert len(clients) == 100
        return server.pid, clients, sniff.stop().packets


def assert_all_are_named(server: int, clients: dict[int, int], packets: list[Packet]) -> None:
    """Raise AssertionError unless every end of every packet has its own process, by the word of the kernel."""
    ends = {("tcp", "127.0.0.1", port): pid for port, pid in clients.items()}
    assert fully_named(packets, {**ends, ("tcp", "127.0.0.1", 7803): server}).total == 2 * len(packets)
    of_storm = judge_processes(packets, ends)
    assert (of_storm.right, of_storm.wrong) == (100, 0), of_storm


@pytest.mark.parametrize("prefix", [as_nobody(), as_bare_root()], ids=["nobody", "bare root"])
def test_without_any_privilege_one_line_says_the_cure(left: Namespace, prefix: list[str]) -> None:
    with Command([*prefix, *pktproc_command("sniff", "-i", left.interface)], left) as sniff:
        assert sniff.finish() == 3, sniff.describe()
    (line,) = sniff.stderr.so_far()
    assert "CAP_NET_RAW" in line
    assert sniff.stdout.so_far() == []


def test_another_namespace_takes_a_privilege_that_is_named(left: Namespace) -> None:
    command = [*as_bare_root("net_raw"), *pktproc_command("sniff", "--netns", left.name, "-i", left.interface)]
    with Command(command) as sniff:
        assert sniff.finish() == 3, sniff.describe()
    (line,) = sniff.stderr.so_far()
    assert "CAP_SYS_ADMIN" in line


def test_who_gave_up_root_still_names_roots_processes(left: Namespace, right: Namespace) -> None:
    with (
        Program("udp_server", right.v4, 7802, namespace=right).ready(),
        Sniff("-Z", "nobody", "udp port 7802", on=left) as sniff,
        Program("udp_client", right.v4, 7802, "--count", 3, namespace=left) as client,
    ):
        status = Path(f"/proc/{sniff.pid}/status").read_text()
        (done,) = client.expect("done")
        packets = sniff.stop().packets
    uids = re.findall(r"^Uid:\s+(.*)$", status, re.MULTILINE)
    (effective,) = re.findall(r"^CapEff:\s+(\w+)$", status, re.MULTILINE)
    assert uids == ["\t".join([NOBODY] * 4)]
    kept = {2, 12, 19, 21, 23}  # capability.h: DAC_READ_SEARCH, NET_ADMIN, SYS_PTRACE, SYS_ADMIN, SYS_NICE
    assert {bit for bit in range(64) if int(effective, 16) >> bit & 1} <= kept
    assert fully_named(packets, {("udp", *done["local"]): client.pid}).total == 6
