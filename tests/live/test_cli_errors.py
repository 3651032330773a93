"""What goes wrong is said in one line, with the right exit code; what ends normally ends with a summary."""

from __future__ import annotations

import re
import subprocess
import time

import pytest

from bed.namespaces import Namespace, NamespacePair
from bed.program import Command, Program
from bed.sniff import Sniff, pktproc_command

USAGE = 2


def run_to_failure(namespace: Namespace, *arguments: object) -> tuple[int, list[str]]:
    """Return exit code and standard error of a `pktproc sniff` that must not capture anything."""
    with Command(pktproc_command("sniff", *arguments), namespace) as sniff:
        code = sniff.finish()
        assert sniff.stdout.so_far() == []
        return code, sniff.stderr.so_far()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("-i", "nosuch0"), "nosuch0"),
        (("-i", "left0", "-i", "nosuch0"), "nosuch0"),
        (("-i", "left0", "udp prot 53"), "udp prot 53"),
        (("-i", "left0", "host", "no.such.name.invalid."), "no.such.name.invalid"),
        (("--netns", "no-such-namespace"), "no-such-namespace"),
        (("-i", "left0", "--engine", "nosuch"), "nosuch"),
        (("-i", "left0", "-c", "-1"), "-1"),
        (("-i", "left0", "-Q", "sideways"), "sideways"),
        (("-i", "left0", "-F", "/nonexistent/filter"), "/nonexistent/filter"),
        (("-i", "left0", "-F", "/bin/sh"), "/bin/sh"),
        (("-i", "left0", "tcp or \udcff"), "not UTF-8"),
        (("-i", "left0", "--nosuch-option"), "--nosuch-option"),
        (("-i", "left0", "--", "/nonexistent/command"), "/nonexistent/command"),
        (("--netns", "one", "--netns", "two", "--", "true"), "--netns"),
        (("-i", "left0", "--duration", "soon"), "soon"),
        (("-i", "left0", "--duration", "0"), "too short"),
        (("-i", "left0", "-Z", "nosuch-user"), "no user 'nosuch-user' on this host: `getent passwd` lists them"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_wrong_use_is_one_line_that_names_the_culprit(left: Namespace, arguments: tuple[str, ...], named: str) -> None:
    code, lines = run_to_failure(left, *arguments)
    assert code == USAGE, lines
    assert len(lines) == 1, lines
    assert named in lines[0]


def test_a_vanished_interface_ends_the_capture_with_one_line() -> None:
    with (
        NamespacePair() as pair,
        Sniff(on=pair.left) as sniff,
    ):
        before = len(sniff.stderr.so_far())
        pair.left.run("ip", "link", "del", pair.left.interface)
        assert sniff.finish() == 1, sniff.describe()
        after = sniff.stderr.so_far()[before:]
    about = [line for line in after if pair.left.interface in line]
    assert len(about) == 1, after
    assert [line for line in after if "Traceback" in line] == []


def test_an_interface_that_goes_down_and_comes_back_is_captured_on(pair: NamespacePair) -> None:
    left, right = pair.left, pair.right
    with (
        Program("udp_server", right.v4, 7900, namespace=right).ready(),
        Sniff("udp port 7900", on=right) as sniff,
    ):
        left.run("ip", "link", "set", left.interface, "down")
        right.run("ip", "link", "set", right.interface, "down")
        for space in (right, left):
            space.run("ip", "link", "set", space.interface, "up")
        with Program("udp_client", right.v4, 7900, namespace=left) as client:
            client.expect("done")
        for space in (right, left):
            space.run("ip", "address", "replace", f"{space.v6}/16", "dev", space.interface, "nodad")
        assert len(sniff.stop().packets) == 2


@pytest.mark.parametrize(("engine", "sockets"), [("ebpf", 1), ("netlink", 2), ("procfs", 2)])
def test_no_more_packet_sockets_are_opened_than_the_engine_needs(left: Namespace, engine: str, sockets: int) -> None:
    """One to capture; one that hears of first packets at once, where the kernel does not tell who sends them."""
    with Sniff("--engine", engine, on=left) as sniff:
        lines = left.run("ss", "-0", "-Hp").splitlines()
    assert sum(f"pid={sniff.pid}," in line for line in lines) == sockets, lines


def test_a_count_ends_the_capture(left: Namespace, right: Namespace) -> None:
    with (
        Program("udp_server", right.v4, 7901, namespace=right).ready(),
        Sniff("-c", 3, "udp port 7901", on=left) as sniff,
        Program("udp_client", right.v4, 7901, "--count", 100, namespace=left),
    ):
        assert len(sniff.ended().packets) == 3


@pytest.mark.parametrize("duration", ["0.5", "500ms"])
def test_a_duration_ends_the_capture(left: Namespace, duration: str) -> None:
    started = time.monotonic()
    with Sniff("--duration", duration, "udp port 7902", on=left) as sniff:
        listening = time.monotonic()
        assert sniff.ended().packets == []
        ended = time.monotonic()
    assert ended - started >= 0.5
    assert ended - listening < 5


def test_the_closing_summary_adds_up(left: Namespace, right: Namespace) -> None:
    with (
        Program("udp_server", right.v4, 7903, namespace=right).ready(),
        Sniff("udp port 7903", on=left) as sniff,
        Program("udp_client", right.v4, 7903, "--count", 20, namespace=left) as client,
    ):
        client.expect("done")
        captured = sniff.stop()
    assert len(captured.packets) == 40
    assert re.search(r"\b40\b[^\n]*\breceived\b|\breceived\b[^\n]*\b40\b", captured.talk), captured.talk
    assert re.search(r"\b0\b[^\n]*\bdropped\b|\bdropped\b[^\n]*\b0\b", captured.talk), captured.talk


def test_ctrl_c_in_the_middle_of_much_output_leaves_whole_lines(left: Namespace, right: Namespace) -> None:
    with (
        Program("udp_server", right.v4, 7905, namespace=right).ready(),
        Sniff("udp port 7905", on=left) as sniff,
        Program("udp_client", right.v4, 7905, "--count", 1000000, namespace=left),
    ):
        sniff.wait_for(lambda packet: packet["source"]["port"] == 7905, 3000)
        captured = sniff.stop()
    (shown,) = re.findall(r"(\d+) packets shown", captured.talk)
    assert len(captured.packets) == int(shown)


def test_a_closed_pipe_ends_quietly(left: Namespace, right: Namespace) -> None:
    command = " ".join([*pktproc_command("sniff", "--json", "-i", left.interface, "udp port 7904"), "| head -n 1"])
    script = command.replace("udp port 7904", "'udp port 7904'")
    with (
        Program("udp_server", right.v4, 7904, namespace=right).ready(),
        Command(["bash", "-o", "pipefail", "-c", script], left) as pipe,
    ):
        assert pipe.stderr.find(lambda line: "listening" in line.lower(), 1, 30)
        with Program("udp_client", right.v4, 7904, "--count", 200000, namespace=left):
            code = pipe.finish()
        assert len(pipe.stdout.so_far()) == 1
        assert code in (0, 128 + 13), pipe.describe()
        assert not any("Traceback" in line or "Broken" in line for line in pipe.stderr.so_far()), pipe.describe()


def test_help_comes_at_once() -> None:
    times = []
    for _ in range(10):
        started = time.perf_counter()
        shown = subprocess.run(pktproc_command("--help"), capture_output=True, text=True, check=True, timeout=30)
        times.append(time.perf_counter() - started)
    assert "sniff" in shown.stdout
    assert min(times) < 0.12, times
