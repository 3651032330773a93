"""`pktproc sockets` beside ss, lsof, netstat and psutil, on hosts with sockets of every kind, in two namespaces."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bed.namespaces import Namespace, NamespacePair
from bed.program import Program
from bed.socket_tools import Line, Netstat, lsof, netstat, objects, ours, psutil_connections, ss
from pktproc.output.escape import escape

Value = TypeVar("Value")
_TRIES = 8


@pytest.fixture(scope="module")
def hosts(pair: NamespacePair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Program]]:
    left, right = (tmp_path_factory.mktemp(name) for name in ("l", "r"))
    with (
        Program("all_kinds", left, namespace=pair.left).ready() as first,
        Program("all_kinds", right, "--share", namespace=pair.right).ready() as second,
    ):
        yield {"left": first, "right": second}


@pytest.fixture(params=["left", "right"])
def place(request: pytest.FixtureRequest, pair: NamespacePair, hosts: dict[str, Program]) -> Namespace:
    del hosts
    space: Namespace = getattr(pair, request.param)
    return space


def same(mine: Callable[[], Value], theirs: Callable[[], Value]) -> None:
    """Assert that two looks see the same; what lies in a queue may change between them, so they are taken again."""
    for _ in range(_TRIES):
        seen, expected = mine(), theirs()
        if seen == expected:
            break
    assert seen == expected
    assert expected


def as_ss(lines: list[Line], kind: str) -> Counter[Line]:
    """Return lines as a multiset; ss without its column Netid is of `kind`."""
    return Counter(line._replace(kind=line.kind or kind, local=escape(line.local), remote=escape(line.remote))
                   for line in lines)  # fmt: skip


def without_peer_name(line: Line) -> Line:
    """Return a line without the name of a unix socket's peer, of which ss shows the inode alone."""
    return line._replace(remote=f"* {line.remote.rpartition(' ')[2]}") if line.kind.startswith("u_") else line


def safe(lines: list[Line]) -> Counter[Line]:
    """Return lines as a multiset, with names as a terminal may be shown them."""
    return Counter(line._replace(local=escape(line.local), remote=escape(line.remote)) for line in lines)


@pytest.mark.parametrize(
    ("letters", "kind"),
    [
        ("-t", "tcp"),
        ("-ta", "tcp"),
        ("-tl", "tcp"),
        ("-t4a", "tcp"),
        ("-t6a", "tcp"),
        ("-u", "udp"),
        ("-ua", "udp"),
        ("-ul", "udp"),
        ("-wa", "raw"),
        ("-wl", "raw"),
        ("-Ma", "mptcp"),
        ("-Ml", "mptcp"),
        ("-tua", ""),
        ("-tul", ""),
        ("-tuwa6", ""),
        ("-0a", ""),
        ("-0", ""),
        ("-x", ""),
        ("-xa", ""),
        ("-xl", ""),
        ("-tuxa", ""),
        ("-tunap", ""),
    ],
)
def test_each_selection_is_that_of_ss(place: Namespace, letters: str, kind: str) -> None:
    state = "UNCONN" if letters.startswith("-0") else "ESTAB"
    same(
        lambda: Counter(map(without_peer_name, ours(letters, inside=place))),
        lambda: safe(ss(letters, inside=place, kind=kind, state=state)),
    )


@pytest.mark.parametrize("letters", ["-tua", "-xa"])
def test_both_ends_of_what_ss_lists_are_named(
    place: Namespace, hosts: dict[str, Program], pair: NamespacePair, letters: str
) -> None:
    program = hosts["left" if place == pair.left else "right"]
    (facts,) = program.events("ready")
    listed = {entry.get("inode"): entry for entry in objects(letters, inside=place)}
    fds = {name: found["fd"] for name, found in facts["sockets"].items()}
    pairs = [("client", "accepted"), ("mapped client", "mapped accepted"), ("six client", "six accepted"),
             ("udp client", "udp"), ("kept alive", "kept alive's peer")]  # fmt: skip
    if letters == "-xa":
        pairs = [("unix client", "unix accepted"), ("pair 0", "pair 1"), ("abstract client", "abstract")]
    pids = {program.pid, facts["child"]} - {0}
    for one, other in pairs:
        for name, opposite in ((one, other), (other, one)):
            peer = listed[facts["sockets"][name]["inode"]].get("peer", {})
            if name in ("udp", "abstract"):
                assert not peer  # who is bound without being connected has no one end that is the other
                continue
            assert peer["inode"] == facts["sockets"][opposite]["inode"]
            assert {(holder["pid"], *holder["fds"]) for holder in peer["holders"]} == {
                (pid, fds[opposite]) for pid in pids
            }


@pytest.mark.parametrize(
    "words",
    [
        ["state", "established"],
        ["state", "listening"],
        ["state", "time-wait"],
        ["state", "connected"],
        ["state", "synchronized"],
        ["state", "bucket"],
        ["state", "big"],
        ["exclude", "listening"],
        ["state", "close-wait", "state", "listening"],
        ["sport", "=", ":7400"],
        ["dport", "=", ":7400"],
        ["sport", "gt", ":7403"],
        ["sport", "<=", ":7401"],
        ["dport", "!=", ":7400"],
        ["src", "127.0.0.0/8"],
        ["dst", "127.0.0.1:7400"],
        ["src", "[::1]"],
        ["src", "[::1]:7404"],
        ["( sport = :7400 or dport = :7400 ) and not src [::1]"],
        ["sport", ":7400", "or", "sport", ":7404"],
        ["state", "established", "( dport = :7400 or dport = :7404 )"],
    ],
    ids=" ".join,
)
def test_filters_mean_what_they_mean_to_ss(place: Namespace, words: list[str]) -> None:
    state = {"listening": "LISTEN", "time-wait": "TIME-WAIT"}.get(words[1] if len(words) > 1 else "", "ESTAB")
    same(
        lambda: Counter(ours("-ta", *words, inside=place)),
        lambda: safe(ss("-ta", *words, inside=place, kind="tcp", state=state)),
    )


def test_netlink_sockets_are_those_of_ss(place: Namespace, hosts: dict[str, Program], pair: NamespacePair) -> None:
    """Both tools have some themselves while they look, which are not the same ones."""
    program = hosts["left" if place == pair.left else "right"]
    theirs = [line for line in ss("-a", "-f", "netlink", inside=place) if line.local.endswith(f":{program.pid}")]
    found = [line for line in ours("-a", "--netlink", inside=place) if program.pid in {pid for pid, _ in line.holders}]
    # The kernel tells sockets that listen to a group twice, which ss passes on.
    assert {(line.queues, line.local.replace("0:", "rtnl:")) for line in theirs} == {
        (line.queues, line.local) for line in found
    }
    assert len(found) == 1
    assert not [
        line for line in ours("-a", "--netlink", inside=place) if line.local.endswith(":kernel") and line.holders
    ]
    kernels = {line.local.split(":")[1] for line in ours("-a", "--netlink", inside=place) if not line.holders}
    assert kernels == {"kernel"}


def test_inet_sockets_are_those_of_netstat(place: Namespace) -> None:
    """netstat names one of several holders: it must be one of ours."""

    def theirs() -> Counter[Netstat]:
        return Counter(line._replace(pid=None) for line in netstat("-tuUwa", inside=place))

    same(lambda: Counter(map(as_netstat, objects("-tuUwa", inside=place))), theirs)
    named = {line.inode: line.pid for line in netstat("-tuUwa", inside=place) if line.pid is not None}
    holders = {
        entry["inode"]: {holder["pid"] for holder in entry["holders"]}
        for entry in objects("-tuUwa", inside=place)
        if "inode" in entry
    }
    assert named
    assert {inode for inode, pid in named.items() if pid not in holders[inode]} == set()


NETSTAT_STATES = {"established": "ESTABLISHED", "listening": "LISTEN", "time-wait": "TIME_WAIT",
                  "close-wait": "CLOSE_WAIT", "fin-wait-2": "FIN_WAIT2", "last-ack": "LAST_ACK"}  # fmt: skip


def as_netstat(entry: dict[str, Any]) -> Netstat:
    kind = entry["network"]["transport"]
    six = entry["family"] == "inet6"
    state = NETSTAT_STATES.get(entry["state"], "7" if kind == "raw" else "")
    number = {"icmp": 1, "ipv6-icmp": 58}
    protocol = entry["network"].get("protocol", "")
    raw_port = number.get(protocol) or (int(protocol) if protocol.isdecimal() else 0)
    port = raw_port if kind == "raw" else entry["local"]["port"]
    label = "udpl" if kind == "udplite" else kind
    return Netstat(
        f"{label}{'6' if six else ''}",
        (entry["receive_queue"], 0 if state == "LISTEN" else entry["send_queue"]),
        f"{entry['local']['ip']}:{port or '*'}",
        f"{entry['remote']['ip']}:{entry['remote'].get('port') or '*'}",
        state,
        int(entry.get("user", {}).get("id", 0)),
        entry.get("inode", 0),
        None,
    )


def test_inet_sockets_are_those_of_lsof(place: Namespace) -> None:
    def theirs() -> set[tuple[int, int, str, str, str]]:
        return {
            (line.pid, line.fd, line.protocol.lower(), line.name, line.state.replace("_", "-").lower())
            for line in lsof("-i", "TCP", "-i", "UDP", inside=place)
        }

    same(lambda: {line for entry in objects("-tua", inside=place) for line in as_lsof(entry)}, theirs)


def as_lsof(entry: dict[str, Any]) -> Iterator[tuple[int, int, str, str, str]]:
    state = {"listening": "listen", "unconnected": ""}.get(entry["state"], entry["state"])
    kind = entry["network"]["transport"]
    local, remote = (lsof_end(entry[end]) for end in ("local", "remote"))
    name = local if remote == "*:*" else f"{local}->{remote}"
    for holder in entry["holders"]:
        for fd in holder["fds"]:
            yield holder["pid"], fd, kind, name, "" if kind == "udp" else state


def lsof_end(end: dict[str, Any]) -> str:
    address = ipaddress.ip_address(end["ip"])
    text = "*" if address.is_unspecified else f"[{address}]" if address.version == 6 else str(address)
    return f"{text}:{end['port'] or '*'}"


def test_inet_sockets_are_those_of_psutil(place: Namespace) -> None:
    """psutil names one of several holders: what it names must be among ours, and there must be nothing else."""
    theirs = {
        (pid, fd, plain(local), plain(remote), state)
        for pid, fd, _, _, local, remote, state in psutil_connections(place)
        if pid is not None
    }
    found = {line for entry in objects("-tua", inside=place) for line in as_psutil(entry)}
    assert theirs <= found
    assert {line[1:] for line in theirs} == {line[1:] for line in found}


def plain(end: list[Any]) -> tuple[Any, ...]:
    return (end[0].removeprefix("::ffff:"), *end[1:]) if end else ()


PSUTIL_STATES = {"unconnected": "NONE", "listening": "LISTEN", "established": "ESTABLISHED", "close-wait": "CLOSE_WAIT"}


def as_psutil(entry: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    local, remote = ((entry[end]["ip"], entry[end]["port"]) for end in ("local", "remote"))
    state = "NONE" if entry["network"]["transport"] == "udp" else PSUTIL_STATES.get(entry["state"], entry["state"])
    for holder in entry["holders"]:
        for fd in holder["fds"]:
            yield holder["pid"], fd, local, remote if remote[1] else (), state


def test_both_namespaces_are_listed_at_once_and_never_mixed(pair: NamespacePair, hosts: dict[str, Program]) -> None:
    listed = objects("-ta", "--netns", pair.left.name, "--netns", pair.right.name)
    for space, side in ((pair.left, "left"), (pair.right, "right")):
        (facts,) = hosts[side].events("ready")
        own = [entry for entry in listed if entry["netns"] == space.inode]
        assert {entry["netns_name"] for entry in own} == {space.name}
        holders = {
            holder["pid"]
            for entry in own
            for end in (entry, entry.get("peer", {}))
            for holder in end.get("holders", ())
        }
        assert holders == {hosts[side].pid, facts["child"]} - {0}
        alone = objects("-ta", inside=space)
        assert {entry.get("cookie") for entry in own} == {entry.get("cookie") for entry in alone}
    everywhere = objects("-ta", "--netns", "all")
    assert {pair.left.inode, pair.right.inode} <= {entry["netns"] for entry in everywhere}


def test_the_folder_of_a_unix_socket_is_read_from_its_row(
    place: Namespace, hosts: dict[str, Program], pair: NamespacePair
) -> None:
    program = hosts["left" if place == pair.left else "right"]
    (facts,) = program.events("ready")
    listed = {entry["inode"]: entry for entry in objects("-xa", inside=place) if "inode" in entry}
    path = Path(listed[facts["sockets"]["unix"]["inode"]]["local"]["path"])
    assert path.name == "so ck\x1b[31m:"
    assert path.is_socket()
    assert listed[facts["sockets"]["abstract"]["inode"]]["local"]["path"] == f"@pktproc-{program.pid}"
