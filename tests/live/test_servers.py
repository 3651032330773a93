"""Servers: pre-fork, several owners of a port, listeners on wildcard addresses, TCP and UDP on one port."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from bed.namespaces import Namespace
from bed.program import Program
from bed.sniff import Sniff, end_of
from bed.ss import socket_holders
from bed.verdict import fully_named, judge
from kernel.ebpf.exact_bed import ExactProgram

ENGINES = pytest.mark.parametrize("engine", ["ebpf", "netlink", "procfs"])


@ENGINES
def test_a_prefork_worker_is_named_for_the_connection_that_it_serves(
    left: Namespace, right: Namespace, engine: str
) -> None:
    with (
        Program("tcp_prefork", right.v4, 7100, "--workers", 4, namespace=right).ready() as server,
        Sniff("--engine", engine, "tcp port 7100", on=right) as sniff,
        Program("parallel_clients", right.v4, 7100, "--clients", 4, namespace=left) as clients,
    ):
        clients.expect("client", 4)
        served = {event["remote"][1]: event["pid"] for event in server.expect("accepted", 4)}
        packets = sniff.stop().packets
    verdicts = {
        port: fully_named(
            [packet for packet in packets if port in (packet["source"]["port"], packet["destination"]["port"])],
            {("tcp", right.v4, 7100): pid},
        )
        for port, pid in served.items()
    }
    assert sum(verdict.total for verdict in verdicts.values()) == len(packets)


@ENGINES
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_two_owners_of_a_port_are_never_confused(
    left: Namespace, right: Namespace, engine: str, transport: str
) -> None:
    told = "datagram" if transport == "udp" else "accepted"
    kind = ("--udp", "--port", 20000) if transport == "udp" else ()
    with (
        Program(f"{transport}_server", right.v4, 7101, "--reuseport", namespace=right).ready() as first,
        Program(f"{transport}_server", right.v4, 7101, "--reuseport", namespace=right).ready() as second,
        Sniff("--engine", engine, f"{transport} port 7101", on=right) as sniff,
        ExactProgram("crowd", right.v4, 7101, "--count", 12, "--wait", *kind, namespace=left).ready() as clients,
    ):
        clients.say()
        clients.expect("done")
        packets = sniff.stop().packets
        owner = {event["remote"][1]: server.pid for server in (first, second) for event in server.events(told)}
    assert len(owner) == 12
    for port, pid in owner.items():
        own = [packet for packet in packets if port in (packet["source"]["port"], packet["destination"]["port"])]
        verdict = judge(own, {(transport, right.v4, 7101): pid})
        assert verdict.total >= 2
        assert verdict.wrong == 0, verdict


@ENGINES
def test_tcp_and_udp_on_one_port_are_kept_apart(left: Namespace, right: Namespace, engine: str) -> None:
    with (
        Program("udp_server", right.v4, 7102, namespace=right).ready() as of_udp,
        Program("tcp_server", right.v4, 7102, namespace=right).ready() as of_tcp,
        Sniff("--engine", engine, "port 7102", on=right) as sniff,
        Program("udp_client", right.v4, 7102, "--source-port", 7103, namespace=left) as udp_client,
        Program("tcp_client", right.v4, 7102, "--source-port", 7103, namespace=left) as tcp_client,
    ):
        udp_client.expect("done")
        tcp_client.expect("done")
        packets = sniff.stop().packets
    truth = {("udp", right.v4, 7102): of_udp.pid, ("tcp", right.v4, 7102): of_tcp.pid}
    assert fully_named(packets, truth).total == len(packets) >= 7


@ENGINES
def test_a_listener_on_the_wildcard_is_named(left: Namespace, right: Namespace, engine: str) -> None:
    """By the wildcard of either version of IP, and by that of IPv6 for IPv4, too; each on a port of its own."""
    wildcards = (("0.0.0.0", (), right.v4), ("::", ("--dual",), right.v4), ("::", (), right.v6))
    with ExitStack() as opened:
        servers = {
            (transport, address, port): opened.enter_context(
                Program(f"{transport}_server", listen, port, *options, namespace=right)
            )
            for port, (listen, options, address) in enumerate(wildcards, 7110)
            for transport in ("udp", "tcp")
        }
        sniff = opened.enter_context(Sniff("--engine", engine, "portrange 7110-7112", on=right))
        for server in servers.values():
            server.ready()
        for transport, address, port in servers:
            opened.enter_context(Program(f"{transport}_client", address, port, namespace=left)).expect("done")
        packets = sniff.stop().packets
    for end, server in servers.items():
        own = [packet for packet in packets if end in (end_of(packet, "source"), end_of(packet, "destination"))]
        assert fully_named(own, {end: server.pid}).total == len(own) >= 2


@ENGINES
def test_a_client_with_a_mapped_address_is_named(left: Namespace, right: Namespace, engine: str) -> None:
    with (
        Program("udp_server", right.v4, 7105, namespace=right).ready(),
        Program("tcp_server", right.v4, 7105, namespace=right).ready(),
        Sniff("--engine", engine, "port 7105", on=left) as sniff,
        Program("udp_client", right.v4, 7105, "--mapped", namespace=left) as by_udp,
        Program("tcp_client", right.v4, 7105, "--mapped", namespace=left) as by_tcp,
    ):
        clients = {"udp": by_udp, "tcp": by_tcp}
        ports = {transport: client.expect("done")[0]["local"][1] for transport, client in clients.items()}
        holders = {transport: socket_holders(left, transport) for transport in clients}
        packets = sniff.stop().packets
    for transport, client in clients.items():
        own = [packet for packet in packets if packet["network"]["transport"] == transport]
        assert holders[transport][left.v4, ports[transport]] == {client.pid}
        assert fully_named(own, {(transport, left.v4, ports[transport]): client.pid}).total == len(own) >= 2


def test_a_server_on_ipv6_only_does_not_take_ipv4s_packets(left: Namespace, right: Namespace) -> None:
    """`::` with IPV6_V6ONLY and `0.0.0.0` on the same port are two servers."""
    right.run("sysctl", "-qw", "net.ipv6.bindv6only=1")
    with (
        Program("udp_server", "0.0.0.0", 7106, namespace=right).ready() as of_v4,
        Program("udp_server", "::", 7106, namespace=right).ready() as of_v6,
        Sniff("udp port 7106", on=right) as sniff,
        Program("udp_client", right.v4, 7106, namespace=left) as to_v4,
        Program("udp_client", right.v6, 7106, namespace=left) as to_v6,
    ):
        to_v4.expect("done")
        to_v6.expect("done")
        packets = sniff.stop().packets
    right.run("sysctl", "-qw", "net.ipv6.bindv6only=0")
    truth = {("udp", right.v4, 7106): of_v4.pid, ("udp", right.v6, 7106): of_v6.pid}
    assert fully_named(packets, truth).total == len(packets) == 4
