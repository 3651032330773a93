"""Names of processes: long ones, nasty ones, and those of threads."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bed.namespaces import Namespace
from bed.program import Command, Program
from bed.sniff import Captured, Sniff
from bed.verdict import processes_at

ENGINES = pytest.mark.parametrize("engine", ["ebpf", "netlink", "procfs"])
COMM_BYTES = 15
NASTY = (
    "two words",
    "new\nline",
    "tab\tstop",
    "\x1b[31mred\x1b[0m",
    "key=value",
    'quo"te',
    "back\\slash",
    "größe",
    "(a) b)",
)


def interpreter_called(name: str, directory: Path) -> Path:
    """Return the path of the Python interpreter under another name, which becomes comm and argv[0]."""
    link = directory / name
    link.symlink_to(Path(sys.executable).resolve())
    return link


@contextmanager
def client_called(name: str, directory: Path, left: Namespace, right: Namespace, port: int = 7400) -> Iterator[Program]:
    """Run a client that was sent to and fro twice, under a name that is its comm."""
    interpreter = interpreter_called(name, directory)
    with Program("udp_client", right.v4, port, "--count", 2, namespace=left, interpreter=interpreter) as client:
        client.expect("done")
        assert Path(f"/proc/{client.pid}/comm").read_text(errors="surrogateescape").removesuffix("\n") == name
        yield client


def exchanged(captured: Captured, namespace: Namespace, client: Program) -> list[tuple[int, str]]:
    """Return who is named at the client's end of each of its packets."""
    port = client.events("done")[0]["local"][1]
    own = [packet for packet in captured.packets if port in (packet["source"]["port"], packet["destination"]["port"])]
    return processes_at(own, namespace.v4)


@ENGINES
def test_a_nasty_name_arrives_unchanged_in_json(left: Namespace, right: Namespace, tmp_path: Path, engine: str) -> None:
    with (
        Program("udp_server", right.v4, 7400, namespace=right).ready(),
        Sniff("--engine", engine, "udp port 7400", on=left) as sniff,
        ExitStack() as opened,
    ):
        clients = {name: opened.enter_context(client_called(name, tmp_path, left, right)) for name in NASTY}
        captured = sniff.stop()
    for name, client in clients.items():
        assert exchanged(captured, left, client) == [(client.pid, name)] * 4


def test_a_name_that_is_not_utf8_is_valid_json(left: Namespace, right: Namespace, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    with (
        Program("udp_server", right.v4, 7400, namespace=right).ready(),
        Sniff("udp port 7400", on=left) as sniff,
        client_called(name, tmp_path, left, right) as client,
    ):
        captured = sniff.stop()
        lines = sniff.stdout.so_far()
    assert all(line.isascii() or line.encode("utf-8", "strict") for line in lines)
    assert [(at, shown[:3]) for at, shown in processes_at(captured.packets, left.v4)] == [(client.pid, "caf")] * 4


@pytest.mark.parametrize("options", [(), ("-v",), ("-e", "-x")], ids=["plain", "verbose", "dump"])
def test_a_nasty_name_does_not_reach_a_terminal(
    left: Namespace, right: Namespace, tmp_path: Path, options: tuple[str, ...]
) -> None:
    names = ["new\nline", "\x1b[31mred", os.fsdecode(b"caf\xe9"), "bidi\u202ename"]
    with (
        Program("udp_server", right.v4, 7401, namespace=right).ready(),
        Sniff("-n", *options, "-c", 4 * len(names), "udp port 7401", on=left, json_lines=False) as sniff,
        ExitStack() as opened,
    ):
        clients = [opened.enter_context(client_called(name, tmp_path, left, right, 7401)) for name in names]
        assert sniff.finish() == 0
        lines = sniff.stdout.so_far()
    for client in clients:
        assert sum(f"[{client.pid}]" in line for line in lines) >= 4
    assert [line for line in lines if not line.replace("\t", "").isprintable()] == []


@ENGINES
@pytest.mark.parametrize("copy", [False, True], ids=["from argv[0]", "from exe"])
def test_a_name_longer_than_comm_is_completed(
    left: Namespace, right: Namespace, tmp_path: Path, engine: str, *, copy: bool
) -> None:
    name = "a-program-with-a-long-name"
    program = tmp_path / name
    if copy:
        program.write_bytes(Path("/bin/bash").read_bytes())
        program.chmod(0o755)
        # argv[0] says nothing here: only exe has the rest of the name.
        script = f"exec -a sh {program} -c 'exec 3<>/dev/udp/{right.v4}/7402; echo >&3; read -r <&3; read -r'"
        command = ["bash", "-c", script]
    else:
        program.symlink_to("/bin/bash")
        command = [str(program), "-c", f"exec 3<>/dev/udp/{right.v4}/7402; echo >&3; read -r <&3; read -r"]
    with (
        Program("udp_server", right.v4, 7402, namespace=right).ready() as server,
        Sniff("--engine", engine, "udp port 7402", on=left) as sniff,
        Command(command, left) as client,
    ):
        server.expect("datagram")
        assert Path(f"/proc/{client.pid}/comm").read_text() == name[:COMM_BYTES] + "\n"
        packets = sniff.stop().packets
    assert processes_at(packets, left.v4) == [(client.pid, name)] * 2


@ENGINES
def test_a_name_of_exactly_15_bytes_is_not_lengthened(
    left: Namespace, right: Namespace, tmp_path: Path, engine: str
) -> None:
    name = "fifteen-bytes-x"
    with (
        Program("udp_server", right.v4, 7400, namespace=right).ready(),
        Sniff("--engine", engine, "udp port 7400", on=left) as sniff,
        client_called(name, tmp_path, left, right) as client,
    ):
        captured = sniff.stop()
    assert processes_at(captured.packets, left.v4) == [(client.pid, name)] * 4


@ENGINES
def test_the_processs_name_is_shown_and_not_its_threads(left: Namespace, right: Namespace, engine: str) -> None:
    with (
        Program("udp_server", right.v4, 7403, namespace=right).ready(),
        Sniff("--engine", engine, "udp port 7403", on=left) as sniff,
        Program("threaded_client", right.v4, 7403, namespace=left) as client,
    ):
        (done,) = client.expect("done")
        packets = sniff.stop().packets
    assert (done["process_name"], done["thread_name"]) == ("the-process", "the-thread")
    assert processes_at(packets, left.v4) == [(client.pid, "the-process")] * 6
