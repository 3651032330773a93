"""Which packets a user asked for, by the processes at their ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from scapy.layers.inet import IP, UDP

from attribution.host import Host
from attribution.traffic import OURS, THEIRS, Walk
from pktproc.attribution.answers import AttributedBatch
from pktproc.attribution.process_selection import ProcessSelection
from pktproc.attribution.selection import ProcessSieve
from pktproc.model import Attribution, Match, Process, Reason

CONTAINER = "4f5e6d" + "0" * 58


def gone(_pid: int) -> Process | None:
    return None


def table(*processes: Process) -> dict[int, Process]:
    return {process.pid: process for process in processes}


def attributed(walk: Walk, owners: Iterable[Attribution | None], *, received: bool = False) -> AttributedBatch:
    """A block with a packet, of a flow of its own, for each owner."""
    ends = list(owners)
    packets = [IP(src=OURS, dst=THEIRS) / UDP(sport=1 + number, dport=53) for number in range(len(ends))]
    block = walk.attributor.attribute(walk.block(packets))
    nobody: list[Attribution | None] = [None] * len(ends)
    return replace(block, source=nobody if received else ends, destination=ends if received else nobody)


def held(*processes: Process) -> Attribution:
    match = Match.EXACT if len(processes) == 1 else Match.SHARED
    return Attribution(processes[0], match, "double", holders=processes)


def rows(
    walk: Walk, selection: ProcessSelection, *owners: Attribution | None, alive: Iterable[Process] = ()
) -> list[int]:
    sieve = ProcessSieve(selection, table(*alive).get)
    found: list[int] = sieve.rows(attributed(walk, owners)).tolist()
    return found


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (ProcessSelection(pids=frozenset({1000})), ["curl"]),
        (ProcessSelection(pids=frozenset({1000, 1002})), ["curl", "dockerd"]),
        (ProcessSelection(names=("c*",)), ["curl", "cron"]),
        (ProcessSelection(names=("c*", "dock?rd")), ["curl", "cron", "dockerd"]),
        (ProcessSelection(names=("C*",)), []),
        (ProcessSelection(names=("[abc]url",)), ["curl"]),
        (ProcessSelection(uids=frozenset({0})), ["cron", "dockerd"]),
        (ProcessSelection(containers=("4f5e6d",)), ["curl"]),
        (ProcessSelection(containers=(CONTAINER,)), ["curl"]),
        (ProcessSelection(containers=("5e6d",)), []),
        (ProcessSelection(names=("c*",), uids=frozenset({0})), ["cron"]),
        (ProcessSelection(names=("c*",), pids=frozenset({1002})), []),
    ],
)
def test_options_combine_and_repeat(walk: Walk, host: Host, selection: ProcessSelection, expected: list[str]) -> None:
    processes = [
        replace(host.start("curl", pid=1000, uid=33), container_id=CONTAINER),
        host.start("cron", pid=1001, uid=0),
        host.start("dockerd", pid=1002, uid=0),
    ]
    found = rows(walk, selection, *map(held, processes))
    assert [processes[row].name for row in found] == expected


def test_without_options_everything_passes(walk: Walk, host: Host) -> None:
    unknown = Attribution(reason=Reason.NO_SOCKET)
    assert ProcessSieve(ProcessSelection(), gone).takes_everything
    assert rows(walk, ProcessSelection(), held(host.start("curl")), None, unknown) == [0, 1, 2]


def test_nobodys_packets_do_not_pass_a_selection(walk: Walk, host: Host) -> None:
    candidate = host.start("curl")
    owners = [None, Attribution(reason=Reason.NO_SOCKET), Attribution(reason=Reason.AMBIGUOUS, holders=(candidate,))]
    assert rows(walk, ProcessSelection(names=("*",)), *owners) == []


def test_the_receiver_counts_as_well_as_the_sender(walk: Walk, host: Host) -> None:
    curl = host.start("curl")
    sieve = ProcessSieve(ProcessSelection(names=("curl",)), gone)
    assert sieve.rows(attributed(walk, [held(curl), None], received=True)).tolist() == [0]


def test_any_holder_of_a_shared_socket_counts(walk: Walk, host: Host) -> None:
    parent = host.start("nginx")
    worker = host.fork(parent, "worker")
    assert rows(walk, ProcessSelection(pids=frozenset({worker.pid})), held(parent, worker)) == [0]


def test_descendants_pass_only_when_followed(walk: Walk, host: Host) -> None:
    shell = host.start("sh")
    child = host.start("make", parent=shell)
    grandchild = host.start("curl", parent=child)
    other = host.start("curl")
    owners = [held(process) for process in (shell, child, grandchild, other)]
    alive = (shell, child, grandchild, other)
    pids = frozenset({shell.pid})
    assert rows(walk, ProcessSelection(pids=pids), *owners, alive=alive) == [0]
    assert rows(walk, ProcessSelection(pids=pids, follow=True), *owners, alive=alive) == [0, 1, 2]
    assert rows(walk, ProcessSelection(names=("m*",), follow=True), *owners, alive=alive) == [1, 2]


def test_descendants_of_an_ancestor_that_is_gone_pass(walk: Walk, host: Host) -> None:
    shell = host.start("sh")
    child = host.start("curl", parent=shell)
    assert rows(walk, ProcessSelection(pids=frozenset({shell.pid}), follow=True), held(child)) == [0]


def test_an_ancestor_must_fit_in_every_respect(walk: Walk, host: Host) -> None:
    shell = host.start("sh", uid=0)
    child = host.start("curl", parent=shell, uid=0)
    selection = ProcessSelection(pids=frozenset({shell.pid}), uids=frozenset({33}), follow=True)
    assert rows(walk, selection, held(shell), alive=(shell, child)) == []
    assert rows(walk, selection, held(child), alive=(shell, child)) == []


def test_a_pid_that_is_used_again_is_no_ancestor(walk: Walk, host: Host) -> None:
    shell = host.start("sh", pid=77)
    child = host.start("curl", parent=shell)
    another = host.start("sshd", pid=77)
    assert rows(walk, ProcessSelection(names=("sshd",), follow=True), held(child), alive=(another, child)) == []


def test_a_process_that_becomes_another_program_is_judged_anew(walk: Walk, host: Host) -> None:
    """A shell forks, its child inherits a socket and then runs curl: the same process by pid and start."""
    before = host.start("sh")
    after = replace(before, name="curl")
    sieve = ProcessSieve(ProcessSelection(names=("curl",)), gone)
    assert sieve.rows(attributed(walk, [held(before)])).tolist() == []
    assert sieve.rows(attributed(walk, [held(after)])).tolist() == [0]
