"""`pktproc sockets --close` and `--kill`: of every kind, and only what was named."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bed.namespaces import Namespace
from bed.program import Program
from bed.socket_tools import objects, pktproc_sockets, run
from bed.waiting import until
from pktproc.kernel.cgroups import cgroup_root

WAIT_S = 10.0
CONTAINER = hashlib.sha256(str(os.getpid()).encode()).hexdigest()


def of_ss(inside: Namespace, *words: str) -> list[str]:
    return run(["ss", "-Hn", *words], inside).stdout.splitlines()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("kind", ["udp-connected", "tcp-client"])
def test_a_connected_socket_is_taken_from_its_process(left: Namespace, kind: str, address: str) -> None:
    """The process says with which error; a second one to the same place is not touched."""
    letter = "-u" if kind.startswith("udp") else "-t"
    server = "udp_server" if kind.startswith("udp") else "tcp_server"
    with (
        Program(server, address, 7480, namespace=left).ready(),
        Program("closable", kind, address, 7480, namespace=left).ready() as wanted,
        Program("closable", kind, address, 7480, namespace=left).ready() as other,
    ):
        done = run(pktproc_sockets(letter, "dport", "=", ":7480", f"pid:{wanted.pid}", "--close", "--yes"), left)
        assert done.returncode == 0, done.stderr
        assert "1 socket closed" in done.stderr
        (taken,) = wanted.expect("taken")
        assert taken["error"] == "ECONNABORTED"
        assert other.events("taken") == []
        assert len(of_ss(left, letter, "dport", "=", ":7480")) == 1


def test_a_bound_datagram_socket_is_taken_from_its_process(left: Namespace) -> None:
    with Program("closable", "udp", "127.0.0.1", 7481, namespace=left).ready() as program:
        done = run(pktproc_sockets("-u", ":7481", "--close", "--yes"), left)
        assert done.returncode == 0, done.stderr
        (taken,) = program.expect("taken")
        assert taken["error"] == "ECONNABORTED"


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_listener_in_another_namespace_is_closed(left: Namespace, right: Namespace, address: str) -> None:
    """From here, by the name of the namespace; the same port in another one is left alone."""
    with (
        Program("closable", "tcp-listener", address, 7482, namespace=left).ready() as wanted,
        Program("closable", "tcp-listener", address, 7482, namespace=right).ready(),
    ):
        done = run(pktproc_sockets("-tl", ":7482", "--netns", left.name, "--close", "--yes"))
        assert done.returncode == 0, done.stderr
        assert f"[{wanted.pid}]" in done.stdout
        assert of_ss(left, "-tl", "sport", "=", ":7482") == []
        assert len(of_ss(right, "-tl", "sport", "=", ":7482")) == 1
        assert wanted.child.poll() is None


def test_what_the_kernel_does_not_close_says_so(left: Namespace, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with Program("closable", "unix", path, 0, namespace=left).ready() as program:
        done = run(pktproc_sockets(path, "--close", "--yes"), left)
        assert done.returncode == 1
        assert "the kernel closes no u_str sockets" in done.stderr
        assert "1 of 1 socket could not be closed" in done.stderr
        assert program.events("taken") == []
        assert [line for line in of_ss(left, "-xl") if str(path) in line]


def test_what_may_not_be_closed_says_why(left: Namespace) -> None:
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all,+dac_read_search",
              "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]  # fmt: skip
    with Program("closable", "udp", "127.0.0.1", 7483, namespace=left).ready() as program:
        done = run([*nobody, *pktproc_sockets("-u", ":7483", "--close", "--yes")], left)
        assert done.returncode == 3
        assert "CAP_NET_ADMIN" in done.stderr
        assert program.events("taken") == []


@pytest.mark.parametrize(
    ("word", "name"), [("HUP", "SIGHUP"), ("sigusr1", "SIGUSR1"), (str(int(signal.SIGUSR1)), "SIGUSR1")]
)
def test_the_signal_that_was_named_is_sent(left: Namespace, word: str, name: str) -> None:
    with Program("closable", "udp", "127.0.0.1", 7484, "--tell-signals", namespace=left).ready() as program:
        done = run(pktproc_sockets("--kill", word, ":7484", "--yes"), left)
        assert done.returncode == 0, done.stderr
        assert f"{name} sent to 1 process" in done.stderr
        (came,) = program.expect("signal")
        assert came["name"] == name
        assert program.child.poll() is None


def test_all_who_hold_a_socket_get_the_signal(left: Namespace) -> None:
    with Program("closable", "udp", "127.0.0.1", 7485, "--share", 2, namespace=left).ready() as program:
        (ready,) = program.events("ready")
        done = run(pktproc_sockets(":7485", "--kill", "TERM", "--yes"), left)
        assert done.returncode == 0, done.stderr
        assert "SIGTERM sent to 3 processes" in done.stderr
        assert program.child.wait(WAIT_S) == -signal.SIGTERM
        until(lambda: not any(Path(f"/proc/{child}/fd").exists() for child in ready["children"]))


@pytest.fixture
def container() -> Iterator[list[str]]:
    """Return what runs a command in a cgroup with the name that Docker gives to a container's."""
    made = cgroup_root(Path("/proc/self/mountinfo").read_text()) / f"docker-{CONTAINER}.scope"
    made.mkdir()
    yield ["sh", "-c", f'echo $$ >{made}/cgroup.procs; exec "$@"', "sh"]
    until(lambda: not (made / "cgroup.procs").read_text())
    made.rmdir()


def test_a_container_is_selected_by_the_beginning_of_its_id(left: Namespace, container: list[str]) -> None:
    """Its sockets in whatever namespace, and nobody else's; also to send a signal to."""
    with (
        Program("closable", "udp", "127.0.0.1", 7486, namespace=left, prefix=container).ready() as inside,
        Program("closable", "udp", "127.0.0.1", 7487, namespace=left).ready() as outside,
    ):
        for beginning in (CONTAINER[:12], CONTAINER):
            (entry,) = objects("--container", beginning)
            assert (entry["holders"][0]["pid"], entry["local"]["port"]) == (inside.pid, 7486)
            assert entry["process"]["container"]["id"] == CONTAINER
        done = run(pktproc_sockets("--container", CONTAINER[:12], "--kill", "KILL", "--yes"))
        assert done.returncode == 0, done.stderr
        assert inside.child.wait(WAIT_S) == -signal.SIGKILL
        assert outside.child.poll() is None


def test_descendants_are_selected_with_follow_alone(left: Namespace) -> None:
    program = ["sh", "-c", 'exec 3<&0; "$@" <&3 & wait', "sh"]
    with Program("closable", "udp", "127.0.0.1", 7488, namespace=left, prefix=program).ready() as parent:
        (entry,) = objects(":7488", inside=left)
        child = entry["holders"][0]["pid"]
        assert Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1] == str(parent.pid)
        assert objects("--pid", parent.pid, "-u") == []
        (found,) = objects("--pid", parent.pid, "--follow", "-u")
        assert found["holders"][0]["pid"] == child
        done = run(pktproc_sockets("--pid", parent.pid, "--follow", "-u", "--kill", "--yes"))
        assert done.returncode == 0, done.stderr
        until(lambda: parent.child.poll() is not None)
