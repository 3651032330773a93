"""Lines for people: the process where the eye looks for it, and the options of tcpdump."""

from __future__ import annotations

import subprocess

import pytest

from bed.namespaces import Namespace
from bed.program import Program
from bed.sniff import Sniff, pktproc_command


def lines_of(left: Namespace, right: Namespace, *options: object, count: int = 4) -> tuple[list[str], int, int]:
    """Return the lines of a capture of a UDP exchange, the client's pid and its port."""
    with (
        Program("udp_server", right.v4, 7950, namespace=right).ready(),
        Sniff("-n", *options, "-c", count, "udp port 7950", on=left, json_lines=False) as sniff,
        Program("udp_client", right.v4, 7950, "--count", count // 2, namespace=left) as client,
    ):
        (done,) = client.expect("done")
        assert sniff.finish() == 0, sniff.describe()
        return sniff.stdout.so_far(), client.pid, done["local"][1]


def test_a_line_has_addresses_as_tcpdump_writes_them_and_the_process(left: Namespace, right: Namespace) -> None:
    lines, pid, port = lines_of(left, right)
    assert len(lines) == 4
    for line in lines:
        assert f"{left.v4}.{port}" in line
        assert f"{right.v4}.7950" in line
        assert f"[{pid}]" in line
        assert "python" in line


def test_no_colour_goes_into_a_pipe(left: Namespace, right: Namespace) -> None:
    lines, _, _ = lines_of(left, right)
    assert [line for line in lines if "\x1b" in line] == []


def test_verbose_adds_exe_command_line_user_and_parent(left: Namespace, right: Namespace) -> None:
    lines, pid, _ = lines_of(left, right, "-v")
    text = "\n".join(lines)
    assert f"[{pid}]" in text
    assert "bed.programs.udp_client" in text
    assert "root" in text
    assert "UDP" in text


@pytest.mark.parametrize(("option", "shown"), [("-x", "4500"), ("-X", "4500"), ("-A", "E..")])
def test_contents_are_dumped(left: Namespace, right: Namespace, option: str, shown: str) -> None:
    lines, _, _ = lines_of(left, right, option)
    assert sum(shown in line for line in lines) >= 4


def test_link_headers_are_shown(left: Namespace, right: Namespace) -> None:
    lines, _, _ = lines_of(left, right, "-e")
    assert all(left.mac in line and right.mac in line for line in lines), lines


@pytest.mark.parametrize(("direction", "port_first"), [("out", False), ("in", True)])
def test_a_direction_is_selected(left: Namespace, right: Namespace, direction: str, *, port_first: bool) -> None:
    with (
        Program("udp_server", right.v4, 7951, namespace=right).ready(),
        Sniff("-Q", direction, "udp port 7951", on=left) as sniff,
        Program("udp_client", right.v4, 7951, "--count", 3, namespace=left) as client,
    ):
        client.expect("done")
        packets = sniff.stop().packets
    assert [packet["source"]["port"] == 7951 for packet in packets] == [port_first] * 3


def test_a_filter_is_read_from_a_file(
    left: Namespace, right: Namespace, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("filter") / "filter"
    file.write_text("udp dst port 7952\n")
    with (
        Program("udp_server", right.v4, 7952, namespace=right).ready(),
        Sniff("-F", str(file), on=left) as sniff,
        Program("udp_client", right.v4, 7952, "--count", 3, namespace=left) as client,
    ):
        client.expect("done")
        packets = sniff.stop().packets
    assert [packet["destination"]["port"] for packet in packets] == [7952] * 3


def test_interfaces_are_listed(left: Namespace) -> None:
    listed = subprocess.run(
        left.enter(pktproc_command("sniff", "-D")), capture_output=True, text=True, check=True, timeout=30
    )
    assert left.interface in listed.stdout
    assert "lo" in listed.stdout
    assert "any" in listed.stdout


def test_packets_are_selected_by_process(left: Namespace, right: Namespace) -> None:
    with (
        Program("udp_server", right.v4, 7953, namespace=right).ready(),
        Program("udp_client", right.v4, 7953, "--count", 3, "--paced", namespace=left) as wanted,
        Program("udp_client", right.v4, 7953, "--count", 3, "--paced", namespace=left) as other,
    ):
        wanted.ready()
        other.ready()
        with (
            Sniff("udp port 7953", "--pid", wanted.pid, on=left) as by_pid,
            Sniff("udp port 7953", "--name", "pyth*", "--user", "root", on=left) as by_name,
            Sniff("udp port 7953", "--name", "nosuch", on=left) as by_other_name,
        ):
            for _ in range(3):
                other.say()
                wanted.say()
            (done,) = wanted.expect("done")
            other.expect("done")
            selected = by_pid.stop().packets
            all_named = by_name.stop().packets
            none_named = by_other_name.stop().packets
    port = done["local"][1]
    assert [port in (packet["source"]["port"], packet["destination"]["port"]) for packet in selected] == [True] * 6
    assert len(all_named) == 12
    assert none_named == []
