"""What ss(8) says about who holds which socket: a second witness beside the programs."""

from __future__ import annotations

import re

from bed.namespaces import Namespace

_HOLDER = re.compile(r"pid=(\d+),fd=\d+")


def socket_holders(namespace: Namespace, transport: str) -> dict[tuple[str, int], set[int]]:
    """Return the pids behind each local address and port of `tcp` or `udp`, listeners included."""
    holders: dict[tuple[str, int], set[int]] = {}
    for line in namespace.run("ss", f"-Hanp{transport[0]}").splitlines():
        address, _, port = line.split()[3].rpartition(":")
        key = address.strip("[]").split("%")[0].removeprefix("::ffff:"), int(port)
        holders.setdefault(key, set()).update(int(pid) for pid in _HOLDER.findall(line))
    return holders


def states_of(namespace: Namespace, local: tuple[str, int]) -> list[str]:
    """Return the states of all TCP sockets with a local address and port."""
    return [line.split()[0] for line in namespace.run("ss", "-Hant", f"src {local[0]}:{local[1]}").splitlines()]
