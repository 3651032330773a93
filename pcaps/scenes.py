"""The scenes: real programs that talk, each told of by who sits at its ends."""  # noqa: INP001 - see record.py

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bed.evidence import Recorder
from bed.namespaces import Namespace
from bed.program import Command, Program
from bed.recorded import Owner
from bed.web import WebServer

PYTHON = "/usr/bin/python3"
DOCUMENT_BYTES = 40_000
BYTES_A_SECOND = "20k"
VLAN = 7
Child = TypeVar("Child", bound=Command)


@dataclass
class Stage:
    """Where a scene plays: `left` and `right` are recorded and captured; programs end with the scene."""

    left: Namespace
    right: Namespace
    directory: Path
    recorder: Recorder
    programs: ExitStack = field(default_factory=ExitStack)

    def run(self, command: Child) -> Child:
        """Have a program ended with the scene."""
        return self.programs.enter_context(command)

    def program(self, name: str, *arguments: object, where: Namespace) -> Program:
        """Start one of the bed's programs with the system's own Python."""
        return self.run(Program(name, *arguments, namespace=where, interpreter=Path(PYTHON)).ready())

    def server(self, name: str, *arguments: object, where: Namespace | None = None) -> Program:
        """Start one of the bed's servers and wait until it was recorded."""
        server = self.program(name, *arguments, where=where or self.right)
        self.recorder.saw(server.pid, server.events("ready")[0]["local"][1])
        return server

    def exchange(self, name: str, address: str, port: int, *options: object, count: int = 3) -> Owner:
        """Let one of the bed's clients exchange data, at first and when it was recorded; return it."""
        client = self.program(name, address, port, "--paced", "--count", count, *options, where=self.left)
        local = client.events("ready")[0]["local"]
        client.say()
        self.recorder.saw(client.pid, local[1])
        for _ in range(count - 1):
            client.say()
        client.expect("done")
        self.recorder.looked_again()
        assert client.finish() == 0, client.describe()
        return Owner(name.partition("_")[0], *local, client.pid, "python3")


def web4(stage: Stage) -> list[Owner]:
    """Fetch a document slowly over IPv4."""
    return _web(stage, stage.right.v4)


def web6(stage: Stage) -> list[Owner]:
    """Fetch a document slowly over IPv6."""
    return _web(stage, stage.right.v6)


def _web(stage: Stage, address: str) -> list[Owner]:
    """Fetch a document; the buffers of the sockets are small, so that the server is not done long before curl."""
    stage.left.run("sysctl", "-q", "net.ipv4.tcp_rmem=4096 4096 4096")
    stage.right.run("sysctl", "-q", "net.ipv4.tcp_wmem=4096 4096 4096")
    (stage.directory / "index.html").write_bytes(bytes(DOCUMENT_BYTES))
    server = stage.run(WebServer(address, 8000, stage.directory, stage.right, interpreter=PYTHON))
    stage.recorder.saw(server.pid, 8000)
    host = f"[{address}]" if ":" in address else address
    report = "%{stdout}%{local_ip} %{local_port}\n"
    options = ["--silent", "--fail", "--limit-rate", BYTES_A_SECOND, "--output", "/dev/null", "--write-out", report]
    client = stage.run(Command(["curl", *options, f"http://{host}:8000/"], stage.left))
    assert client.finish() == 0, client.describe()
    local, port = client.stdout.so_far()[-1].split()
    return [Owner("tcp", local, int(port), client.pid, "curl"), Owner("tcp", address, 8000, server.pid, "python3")]


def dns(stage: Stage) -> list[Owner]:
    """Look up names by the C library's resolver; answers take longer than a look.

    The resolver's configuration is put in place in a mount namespace that ends with the resolver.
    """
    server = stage.server("dns_server", stage.right.v4, "10.77.0.99", "--delay-ms", 700)
    configuration = stage.directory / "resolv.conf"
    configuration.write_text(f"nameserver {stage.right.v4}\noptions timeout:10\n")
    owners = [Owner("udp", stage.right.v4, 53, server.pid, "python3")]
    for count, name in enumerate(("host.example", "www.example"), 1):
        mount = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
        resolver = ["unshare", "--mount", "sh", "-c", mount, str(configuration), "getent", "ahostsv4", name]
        client = stage.run(Command(resolver, stage.left))
        assert client.finish() == 0, client.describe()
        owners.append(Owner("udp", *server.expect("query", count)[-1]["remote"], client.pid, "getent"))
    return owners


def ping(stage: Stage) -> list[Owner]:
    """Ping over IPv4 and IPv6 at once; ping itself tells the identifiers of its echoes."""
    ends = (("icmp", stage.left.v4, stage.right.v4), ("ipv6-icmp", stage.left.v6, stage.right.v6))
    clients = [stage.run(Command(["ping", "-n", "-v", "-c", "5", "-i", "0.3", end[2]], stage.left)) for end in ends]
    owners = []
    for (transport, local, _), client in zip(ends, clients, strict=True):
        assert client.finish() == 0, client.describe()
        identifiers = re.findall(r" ident=(\d+) ", "\n".join(client.stdout.so_far()))
        owners.append(Owner(transport, local, int(identifiers[0]), client.pid, "ping"))
    return owners


def prefork(stage: Stage) -> list[Owner]:
    """Hold connections that different workers of one server accepted."""
    server = stage.server("tcp_prefork", stage.right.v4, 8000, "--workers", 3)
    owners = []
    clients = []
    for stream in range(3):
        client = stage.program("tcp_client", stage.right.v4, 8000, "--paced", "--count", 4, where=stage.left)
        clients.append(client)
        worker = server.expect("accepted", stream + 1)[-1]
        local = client.events("ready")[0]["local"]
        assert worker["remote"] == local
        stage.recorder.saw(client.pid, local[1])
        owners.append(Owner("tcp", *local, client.pid, "python3"))
        owners.append(Owner("tcp", stage.right.v4, 8000, worker["pid"], "python3", stream=stream))
    stage.recorder.looked_again()
    for _ in range(4):
        for client in clients:
            client.say()
    for client in clients:
        client.expect("done")
        assert client.finish() == 0, client.describe()
    return owners


def reuse(stage: Stage) -> list[Owner]:
    """Let two processes use the same TCP ports one after the other."""
    server = stage.server("tcp_server", stage.right.v4, 7100)
    used = _reuse(stage)
    return [
        Owner("tcp", stage.right.v4, 7100, server.pid, "python3"),
        *(owner._replace(stream=stream, payload_bytes=None) for stream, owner in enumerate(used)),
    ]


def reuse_udp(stage: Stage) -> list[Owner]:
    """Let two processes use the same UDP ports one after the other; each sends payloads of its own size."""
    server = stage.server("udp_server", stage.right.v4, 7100)
    return [Owner("udp", stage.right.v4, 7100, server.pid, "python3"), *_reuse(stage, "--udp")]


def _reuse(stage: Stage, *options: str) -> list[Owner]:
    arguments = (stage.right.v4, 7100, "--source-port", 7200, "--paced", *options)
    users = stage.program("tuple_reuse", *arguments, where=stage.left)
    users.say()
    owners = []
    for count in (1, 2):
        user = users.expect("used", count)[-1]
        stage.recorder.saw(user["pid"], 7200)
        users.say()
        transport = "udp" if options else "tcp"
        owners.append(Owner(transport, *user["local"], user["pid"], "python3", payload_bytes=user["bytes"]))
    users.expect("done")
    return owners


def loopback(stage: Stage) -> list[Owner]:
    """Talk TCP over 127.0.0.1 and UDP over ::1."""
    tcp = stage.server("tcp_server", "127.0.0.1", 8000, where=stage.left)
    udp = stage.server("udp_server", "::1", 7000, where=stage.left)
    return [
        Owner("tcp", "127.0.0.1", 8000, tcp.pid, "python3"),
        Owner("udp", "::1", 7000, udp.pid, "python3"),
        stage.exchange("tcp_client", "127.0.0.1", 8000),
        stage.exchange("udp_client", "::1", 7000),
    ]


def vlan(stage: Stage) -> list[Owner]:
    """Fetch a document and talk UDP over a VLAN; the frames on the parent interface are tagged."""
    for side, address in ((stage.left, "10.77.7.1"), (stage.right, "10.77.7.2")):
        name = f"{side.interface}.{VLAN}"
        stage.program("vlan_tap", side.interface, name, VLAN, where=side)
        side.run("ip", "link", "set", name, "address", side.mac, "up")
        side.run("ip", "address", "add", f"{address}/24", "dev", name)
    stage.recorder.looked_again()
    udp = stage.server("udp_server", "10.77.7.2", 7000)
    talk = stage.exchange("udp_client", "10.77.7.2", 7000)
    return [*_web(stage, "10.77.7.2"), Owner("udp", "10.77.7.2", 7000, udp.pid, "python3"), talk]


def fragments(stage: Stage) -> list[Owner]:
    """Echo UDP datagrams of three fragments over IPv4 and IPv6."""
    owners = []
    for address in (stage.right.v4, stage.right.v6):
        server = stage.server("udp_server", address, 7000)
        owners.append(Owner("udp", address, 7000, server.pid, "python3"))
        owners.append(stage.exchange("udp_client", address, 7000, "--bytes", 4000, count=2))
    return owners


SCENES: dict[str, Callable[[Stage], list[Owner]]] = {
    scene.__name__: scene for scene in (web4, web6, dns, ping, prefork, reuse, reuse_udp, loopback, vlan, fragments)
}
