"""`pktproc sockets` as a user meets it: the questions that it is for, and what it does beside listing."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pktproc
from bed.namespaces import Namespace, NamespacePair
from bed.program import Command, Program
from bed.socket_tools import objects, pktproc_sockets, run
from bed.waiting import until

WAIT_S = 10.0
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all,+dac_read_search",
          "--ambient-caps=-all,+dac_read_search", "--bounding-set=-all,+dac_read_search"]  # fmt: skip


@pytest.fixture(scope="module")
def host(pair: NamespacePair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    with Program("all_kinds", tmp_path_factory.mktemp("host"), namespace=pair.left).ready() as program:
        yield program


def facts(program: Program) -> dict[str, Any]:
    (told,) = program.events("ready")
    found = told["sockets"]
    assert isinstance(found, dict)
    return found


def table(*words: object, inside: Namespace | None = None) -> list[str]:
    done = run(pktproc_sockets("-n", *words), inside)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_who_holds_a_port(host: Program, left: Namespace) -> None:
    _, *lines = table(":7400", inside=left)
    (listening,) = [line for line in lines if "LISTEN" in line]
    name = Path(f"/proc/{host.pid}/comm").read_text().strip()
    assert f"{name}[{host.pid}] fd {facts(host)['listener']['fd']}" in listening
    assert all(":7400" in line for line in lines)


def test_what_a_descriptor_of_a_process_is_connected_to(host: Program) -> None:
    """From another namespace, in one command: each descriptor with the process at the other end of it."""
    heading, *lines = table("--pid", host.pid)
    assert heading.split()[0] == "FD"
    known = facts(host)
    by_fd = {int(line.split()[0]): line for line in lines if not line.split()[1].startswith("tcp:")}
    held = {int(fd.name) for fd in Path(f"/proc/{host.pid}/fd").iterdir() if "socket" in str(fd.readlink())}
    assert set(by_fd) == held == {found["fd"] for found in known.values()}
    assert by_fd[known["client"]["fd"]].rstrip().endswith(f"[{host.pid}] fd {known['accepted']['fd']}")
    assert by_fd[known["waiting"]["fd"]].rstrip().endswith("not accepted yet")
    assert [int(line.split()[0]) for line in lines] == sorted(int(line.split()[0]) for line in lines)


def test_a_socket_that_no_table_shows_is_named_by_its_protocol(host: Program) -> None:
    listed = {entry["inode"]: entry for entry in objects("--pid", host.pid) if "inode" in entry}
    known = facts(host)
    unbound = listed[known["unbound"]["inode"]]
    assert (unbound["network"]["transport"], unbound["network"]["protocol"]) == ("sock", "tcp")
    assert unbound["holders"][0]["fds"] == [known["unbound"]["fd"]]
    assert {found["inode"] for found in known.values()} <= listed.keys()


def test_who_is_at_the_other_end_of_a_unix_socket(host: Program, left: Namespace) -> None:
    known = facts(host)
    (listed,) = [e for e in objects("-xa", inside=left) if e.get("inode") == known["unix"]["inode"]]
    path = listed["local"]["path"]
    _, *lines = table(path.replace("[", "[[]"), inside=left)
    texts = [line for line in lines if f"fd {known['unix client']['fd']}" in line]
    assert len(texts) == 2  # the client's own line, and the one at whose other end it is
    assert all("\x1b" not in line and "\\x1b[31m" in line for line in texts)
    fds = {tuple(re.findall(r"fd (\d+)", line)) for line in texts}
    client, accepted = (str(known[name]["fd"]) for name in ("unix client", "unix accepted"))
    assert fds == {(client, accepted), (accepted, client)}


def test_sockets_that_share_a_port_say_so(host: Program, left: Namespace) -> None:
    listed = objects(":7402", inside=left)
    assert [entry["shared_by"] for entry in listed] == [2, 2]
    assert {entry["holders"][0]["fds"][0] for entry in listed} == {
        facts(host)[f"reuseport {index}"]["fd"] for index in range(2)
    }
    assert all("1 of 2 on this port" in line for line in table(":7402", inside=left)[1:])


def test_a_process_is_found_by_name_in_whatever_namespace_it_is(host: Program) -> None:
    name = Path(f"/proc/{host.pid}/comm").read_text().strip()
    for words in (["--name", name[:4] + "*"], [name]):
        pids = {holder["pid"] for entry in objects(*words, "--netns", "all") for holder in entry["holders"]}
        assert host.pid in pids
    assert objects("--name", "no such name") == []


def test_details_are_those_of_ss(host: Program, left: Namespace) -> None:
    """Token by token, those apart that change while one looks, and what algorithms tell of themselves."""
    del host
    ours = details(left, *pktproc_sockets("-n", "-O", "-H", "-a", "-t", "-o", "-e", "-m", "-i"))
    theirs = details(left, "ss", "-n", "-O", "-H", "-a", "-t", "-o", "-e", "-m", "-i")
    assert ours.keys() == theirs.keys()
    stable = re.compile(rf"({'|'.join(NUMBERS.split())}):.*|{WORDS}|timer:\((keepalive|timewait|on),.*")
    for cookie, tokens in theirs.items():
        expected = {coarse(token) for token in tokens if stable.fullmatch(token)}
        assert expected <= {coarse(token) for token in ours[cookie]}, (cookie, expected - set(ours[cookie]))


NUMBERS = """sk v6only skmem wscale mss pmtu rcvmss advmss cwnd ssthresh rto rtt bytes_sent bytes_acked bytes_received
    segs_out segs_in data_segs_out data_segs_in unacked rcv_space rcv_ssthresh minrtt snd_wnd delivered"""
WORDS = "ts|sack|cubic|bbr|reno|app_limited|<->|<--|-->"


def coarse(token: str) -> str:
    """Return a token without what time alone changes."""
    return re.sub(r"timer:\((\w+),[^,]+", r"timer:(\1", token)


def details(inside: Namespace, *command: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in run(command, inside).stdout.splitlines():
        tokens = set(line.split())
        found[next(token for token in tokens if token.startswith("sk:"))] = tokens
    return found


def test_a_signal_goes_to_those_who_hold_the_port_and_to_nobody_else(left: Namespace) -> None:
    with (
        Program("tcp_server", "127.0.0.1", 7450, namespace=left).ready() as wanted,
        Program("tcp_server", "127.0.0.1", 7451, namespace=left).ready() as other,
    ):
        refused = run(pktproc_sockets(":7450", "--kill"), left)
        assert refused.returncode == 2
        assert "--yes" in refused.stderr
        assert wanted.child.poll() is None
        done = run(pktproc_sockets(":7450", "--kill", "--yes"), left)
        assert done.returncode == 0, done.stderr
        assert f"[{wanted.pid}]" in done.stdout
        assert wanted.child.wait(WAIT_S) == -signal.SIGTERM
        assert other.child.poll() is None
        done = run(pktproc_sockets(":7451", "--kill", "KILL", "--yes"), left)
        assert other.child.wait(WAIT_S) == -signal.SIGKILL, done.stderr
    nobody = run(pktproc_sockets(":7450", "--kill", "--yes"), left)
    assert nobody.returncode == 1
    assert "no signal" in nobody.stderr


def test_on_a_terminal_it_asks_before_it_sends_a_signal(left: Namespace) -> None:
    with Program("tcp_server", "127.0.0.1", 7452, namespace=left).ready() as wanted:
        answers = {"n": 130, "y": 0}
        for answer, code in answers.items():
            script = ["script", "-qec", " ".join(left.enter(pktproc_sockets(":7452", "--kill"))), "/dev/null"]
            done = subprocess.run(script, input=f"{answer}\n", text=True, capture_output=True, timeout=30, check=False)
            assert f"Send SIGTERM to python3[{wanted.pid}]" in re.sub(r"python[\d.]*\[", "python3[", done.stdout)
            assert done.returncode == code, done.stdout
            assert (wanted.child.poll() is None) == (answer == "n") or wanted.child.wait(WAIT_S)


def test_a_connection_is_closed_under_the_hands_of_its_holder(left: Namespace) -> None:
    with (
        Program("tcp_server", "127.0.0.1", 7453, namespace=left).ready(),
        Program("tcp_client", "127.0.0.1", 7453, namespace=left).ready() as client,
    ):
        client.expect("done")
        until(lambda: len(objects("-t", "dport", "=", ":7453", inside=left)) == 1)
        done = run(pktproc_sockets("-t", "dport", "=", ":7453", "--close", "--yes"), left)
        assert done.returncode == 0, done.stderr
        assert "1 socket closed" in done.stderr
        assert objects("-t", "state", "established", "dport", "=", ":7453", inside=left) == []
        assert client.child.poll() is None


def test_sockets_are_told_as_they_open_and_close_with_their_owners(left: Namespace) -> None:
    with Command(pktproc_sockets("-t", "-E", "-n"), left) as events:
        assert events.stderr.find(lambda line: "watching" in line, 1, WAIT_S)
        with Program("tcp_server", "127.0.0.1", 7454, namespace=left).ready() as server:
            assert events.stdout.find(lambda line: " opened " in line and ":7454 " in line, 1, WAIT_S)
            pid = server.pid
        assert events.stdout.find(lambda line: " closed " in line and ":7454 " in line, 1, WAIT_S)
        lines = [line for line in events.stdout.so_far() if ":7454 " in line]
        events.child.send_signal(signal.SIGINT)
        assert events.finish() == 0, events.describe()
    assert [line.split()[1] for line in lines] == ["opened", "closed"]
    assert all(f"[{pid}] fd" in line for line in lines)


def test_events_are_json_lines_for_programs(left: Namespace) -> None:
    with Command(pktproc_sockets("-u", "--events", "--format", "json"), left) as events:
        assert events.stderr.find(lambda line: "watching" in line, 1, WAIT_S)
        with Program("udp_server", "127.0.0.1", 7455, namespace=left).ready() as server:
            assert events.stdout.find(lambda line: "7455" in line, 1, WAIT_S)
        assert events.stdout.find(lambda line: "socket-closed" in line and "7455" in line, 1, WAIT_S)
        told = [json.loads(line) for line in events.stdout.so_far()]
    assert {(each["event"]["action"], each["process"]["pid"]) for each in told if each["local"]["port"] == 7455} == {
        ("socket-opened", server.pid),
        ("socket-closed", server.pid),
    }


def test_the_last_owner_of_a_connection_is_remembered_while_watching(left: Namespace) -> None:
    with (
        Program("tcp_server", "127.0.0.1", 7456, namespace=left).ready(),
        Command(pktproc_sockets("-ta", "-n", "--watch", "0.2"), left) as watch,
        Program("tcp_client", "127.0.0.1", 7456, namespace=left).ready() as client,
    ):
        client.expect("done")
        assert watch.stdout.find(lambda line: f"[{client.pid}]" in line and "ESTAB" in line, 1, WAIT_S)
        client.close()
        assert watch.stdout.find(lambda line: "TIME-WAIT" in line and "was python" in line, 1, WAIT_S)
        line = next(line for line in watch.stdout.so_far() if "TIME-WAIT" in line and "was" in line)
        assert f"[{client.pid}]" in line


def test_the_last_owner_of_a_connection_is_known_from_a_store(left: Namespace, tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    with Program("tcp_server", "127.0.0.1", 7457, namespace=left).ready():
        with Program("tcp_client", "127.0.0.1", 7457, namespace=left).ready() as client:
            client.expect("done")
            until(lambda: len(objects("-t", "dport", "=", ":7457", inside=left)) == 1)
            done = run([*pktproc_sockets()[:3], "snapshot", "-o", str(store)], left)
            assert done.returncode == 0, done.stderr
        until(lambda: len(objects("-ta", "state", "time-wait", "dport", "=", ":7457", inside=left)) == 1)
        words = ["-ta", "state", "time-wait", "dport", "=", ":7457"]
        (alone,) = objects(*words, inside=left)
        assert alone["holders"] == []
        (entry,) = objects(*words, "--store", store, inside=left)
        assert [holder["pid"] for holder in entry["last_holders"]] == [client.pid]
        assert "holders" not in entry


def test_without_root_the_lack_is_said_once_with_its_cure(host: Program, left: Namespace) -> None:
    del host
    done = run([*NOBODY, *pktproc_sockets("-tan")], left)
    assert done.returncode == 0, done.stderr
    assert "?permission" in done.stdout
    (line,) = done.stderr.splitlines()
    assert "owners of their sockets are missing" in line
    assert "sudo" in line
    _, *lines = run([*NOBODY, *pktproc_sockets(":7400", "-n")], left).stdout.splitlines()
    assert sorted(" ".join(line.split()[6:]) for line in lines if "ESTAB" in line) == [
        "- ?permission",
        "?permission ?permission",
        "?permission ?permission",
        "?permission not accepted yet",
    ]
    with Program("udp_server", "127.0.0.1", 7458, namespace=left, prefix=NOBODY).ready() as own:
        done = run([*NOBODY, *pktproc_sockets(":7458", "-n")], left)
    assert f"[{own.pid}]" in done.stdout


def test_a_thousand_sockets_that_open_and_close_meanwhile_do_no_harm(right: Namespace) -> None:
    """No row is of a socket that was never there: all ports are those of the program that makes them."""
    with Program("socket_churn", "--rounds", 10**6, namespace=right).ready() as churn:
        (ready,) = churn.events("ready")
        for _ in range(10):
            for entry in objects("-tua", inside=right):
                # A datagram socket has a port of its own for a moment before it is connected.
                half_made = entry["network"]["transport"] == "udp" and not entry["remote"]["port"]
                ends = {entry["local"]["port"], entry["remote"]["port"]}
                assert ends & {ready["tcp"], ready["udp"]} or half_made
                assert entry["local"]["ip"] == "127.0.0.1" or half_made
                assert {holder["pid"] for holder in entry["holders"]} <= {churn.pid}
                assert entry.get("peer", {}).get("holders", []) == [] or entry["peer"]["holders"][0]["pid"] == churn.pid
        assert churn.child.poll() is None


def test_python_lists_the_same_sockets(left: Namespace, host: Program) -> None:
    found = pktproc.sockets(":7400", netns=left.name)
    listed = objects(":7400", "--netns", left.name)
    assert [(one.transport, one.local_port, one.remote_port, one.inode) for one in found] == [
        (one["network"]["transport"], one["local"]["port"], one["remote"]["port"], one.get("inode", 0))
        for one in listed
    ]
    (listener,) = [one for one in found if one.state == "listening"]
    assert (listener.pids, listener.local_address) == ((host.pid,), "127.0.0.1")
    (client,) = [one for one in found if one.inode == facts(host)["client"]["inode"]]
    assert client.peer is not None
    assert client.peer.inode == facts(host)["accepted"]["inode"]
    assert {one.pids for one in pktproc.sockets(pid=host.pid)} == {(host.pid,)}


def test_what_is_open_in_this_process_is_listed(left: Namespace) -> None:
    del left
    with socket.socket(socket.AF_UNIX) as own:
        inode = os.fstat(own.fileno()).st_ino
        (found,) = [one for one in pktproc.sockets(pid=os.getpid()) if one.inode == inode]
        assert found.holders[0].fds == (own.fileno(),)
