"""UDP between namespaces and on loopback, look-ups of names, fragments."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from bed.namespaces import Namespace
from bed.program import Command, Program
from bed.sniff import Sniff, sends, sniffing_both
from bed.verdict import Verdict, fully_named, judge, processes_at


@pytest.mark.parametrize("engine", ["ebpf", "netlink", "procfs"])
def test_echo_clients_and_servers_are_named(left: Namespace, right: Namespace, engine: str) -> None:
    """By IPv4 and IPv6, from a connected socket and from one that is not."""
    with (
        Program("udp_server", right.v4, 9000, namespace=right) as by_v4,
        Program("udp_server", right.v6, 9000, namespace=right) as by_v6,
        sniffing_both("--engine", engine, "udp port 9000", on=(left, right)) as (near, far),
        ExitStack() as opened,
    ):
        servers = {right.v4: by_v4.ready(), right.v6: by_v6.ready()}
        clients: dict[tuple[str, str, int], int | None] = {}
        for ours, theirs in ((left.v4, right.v4), (left.v6, right.v6)):
            for options in ([], ["--unconnected"]):
                words = (theirs, 9000, "--count", 5, *options)
                client = opened.enter_context(Program("udp_client", *words, namespace=left))
                (done,) = client.expect("done")
                clients["udp", ours, done["local"][1]] = client.pid
        client_side, server_side = near.stop().packets, far.stop().packets
    for end, pid in clients.items():
        assert fully_named(client_side, {end: pid}).total == 10
    for address, server in servers.items():
        assert fully_named(server_side, {("udp", address, 9000): server.pid}).total == 20


def test_both_ends_are_named_on_loopback(left: Namespace) -> None:
    with (
        Program("udp_server", "::1", 9001, namespace=left).ready() as server,
        Sniff("udp port 9001", on=left, interface="lo") as sniff,
        Program("udp_client", "::1", 9001, "--count", 5, namespace=left) as client,
    ):
        (done,) = client.expect("done")
        packets = sniff.stop().packets
    truth = {("udp", "::1", 9001): server.pid, ("udp", *done["local"]): client.pid}
    assert len(packets) == 10
    assert fully_named(packets, truth).total == 20


def test_a_client_that_leaves_with_its_last_datagram_keeps_its_name(left: Namespace, right: Namespace) -> None:
    with (
        Program("udp_server", right.v4, 9002, namespace=right).ready(),
        Sniff("udp port 9002", on=left) as sniff,
        Program("udp_client", right.v4, 9002, "--count", 2, "--paced", "--leave", namespace=left) as client,
    ):
        client.say()
        sniff.wait_for(sends("udp", right.v4, 9002))
        client.say()
        (done,) = client.expect("done")
        client.finish()
        packets = sniff.stop().packets
    assert fully_named(packets, {("udp", *done["local"]): client.pid}).total == 4


def look_up(
    left: Namespace, right: Namespace, configuration: Path, resolver: list[str], delay_ms: float
) -> tuple[Verdict, Verdict, list[str]]:
    """Return the verdicts on the resolver's and the server's side of one look-up, and what the resolver's side shows.

    The resolver configuration is put in place in a mount namespace that ends with the resolver.
    """
    configuration.write_text(f"nameserver {right.v4}\n")
    script = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    with (
        Program("dns_server", right.v4, "10.77.0.99", "--delay-ms", delay_ms, namespace=right).ready() as server,
        sniffing_both("udp port 53", on=(left, right)) as (near, far),
        Command(["unshare", "--mount", "sh", "-c", script, str(configuration), *resolver], left) as client,
    ):
        assert client.finish() == 0, client.describe()
        (query,) = server.expect("query")
        client_side, server_side = near.stop().packets, far.stop().packets
    assert client.stdout.so_far()[0].startswith("10.77.0.99")
    of_client = judge(client_side, {("udp", *query["remote"]): client.pid})
    of_server = judge(server_side, {("udp", right.v4, 53): server.pid})
    names = [name for _, name in processes_at(client_side, left.v4)] if of_client.right == 2 else []
    assert of_client.total == of_server.total == 2
    return of_client, of_server, names


ATTEMPTS = 5
GETENT = ["getent", "ahostsv4", "host.example"]
GETADDRINFO = [
    sys.executable,
    "-S",
    "-c",
    "import socket; print(socket.getaddrinfo('host.example', 53, socket.AF_INET)[0][4][0])",
]


@pytest.mark.parametrize(("resolver", "delay_ms"), [(GETENT, 20), (GETADDRINFO, 20)], ids=["getent", "getaddrinfo"])
def test_a_look_up_names_the_resolvers_process(
    left: Namespace, right: Namespace, tmp_path: Path, resolver: list[str], delay_ms: float
) -> None:
    """The resolver closes its socket with the answer, which keeps its name if it is read within 50 ms.

    A machine that is too busy for that must leave it open, so that another look-up is tried.
    """
    for _ in range(ATTEMPTS):
        of_client, of_server, names = look_up(left, right, tmp_path / "resolv.conf", resolver, delay_ms)
        assert of_client.wrong == 0, of_client
        assert of_server.right == 2, of_server
        if of_client.right == 2:
            break
    assert of_client.right == 2, of_client
    assert {name[:6] for name in names} == {Path(resolver[0]).name[:6]}


def test_a_resolver_that_is_gone_with_the_answer_is_never_named_wrongly(
    left: Namespace, right: Namespace, tmp_path: Path
) -> None:
    of_client, of_server, _ = look_up(left, right, tmp_path / "resolv.conf", GETENT, 0)
    assert of_client.wrong == 0, of_client
    assert of_server.right == 2, of_server


@pytest.mark.parametrize("version", ["v4", "v6"])
def test_every_fragment_of_a_datagram_is_named(left: Namespace, right: Namespace, version: str) -> None:
    address = getattr(right, version)
    with (
        Program("udp_server", address, 9003, namespace=right).ready() as server,
        sniffing_both("udp or ip6 proto 44", on=(left, right)) as (near, far),
        Program("udp_client", address, 9003, "--count", 2, "--bytes", 4000, namespace=left) as client,
    ):
        (done,) = client.expect("done")
        near.wait_for(sends("udp", address, 9003), 6)
        client_side, server_side = near.stop().packets, far.stop().packets
    assert fully_named(client_side, {("udp", *done["local"]): client.pid}).total == 12
    assert fully_named(server_side, {("udp", address, 9003): server.pid}).total == 12


def test_neighbours_in_number_and_family_are_kept_apart(left: Namespace) -> None:
    """Two IPv4 loopback addresses and the IPv6 one, each with a server on the same port."""
    addresses = ["127.0.0.1", "127.0.0.2", "::1"]
    truth: dict[tuple[str, str, int], int | None] = {}
    with ExitStack() as stack:
        for address in addresses:
            server = stack.enter_context(Program("udp_server", address, 9004, namespace=left)).ready()
            truth["udp", address, 9004] = server.pid
        sniff = stack.enter_context(Sniff("udp port 9004", on=left, interface="lo"))
        for address in addresses:
            client = stack.enter_context(Program("udp_client", address, 9004, "--count", 3, namespace=left))
            (done,) = client.expect("done")
            truth["udp", done["local"][0], done["local"][1]] = client.pid
        packets = sniff.stop().packets
    assert Counter(
        packet["destination"]["ip"] for packet in packets if packet["destination"]["port"] == 9004
    ) == dict.fromkeys(addresses, 3)
    assert fully_named(packets, truth).total == 36
