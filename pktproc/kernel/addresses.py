"""The addresses of a network namespace, over rtnetlink or from procfs (rtnetlink(7))."""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from pktproc.attribution.engine import Addresses
from pktproc.kernel import netlink
from pktproc.model import V4_MAPPED_PREFIX

_RTM_GETADDR = 22
_RTM_NEWADDR = 20
_IFADDRMSG = struct.Struct("=BBBBI")
_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_BROADCAST = 4
_TIMEOUT_S = 2.0
_FIB_LEAF = re.compile(r"\|-- (\d+\.\d+\.\d+\.\d+)")
_FIB_HOST = re.compile(r"/32 (?:host|link) (LOCAL|BROADCAST)")


class AddressSocket:
    """List the addresses of the network namespace in which this object was made."""

    def __init__(self) -> None:
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.settimeout(_TIMEOUT_S)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def addresses(self) -> Addresses:
        """Return the addresses of all interfaces."""
        self._sequence += 1
        request = netlink.build(
            _RTM_GETADDR,
            netlink.NLM_F_REQUEST | netlink.NLM_F_DUMP,
            self._sequence,
            _IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0),
        )
        self._socket.send(request)
        local: set[bytes] = set()
        broadcast: set[bytes] = set()
        for own, everybody in self._receive():
            local.add(own)
            broadcast |= everybody
        return Addresses(frozenset(local), frozenset(broadcast))

    def _receive(self) -> Iterator[tuple[bytes, frozenset[bytes]]]:
        while True:
            for message in netlink.messages(self._socket.recv(1 << 16)):
                if message.sequence != self._sequence:
                    continue
                if message.type in (netlink.NLMSG_DONE, netlink.NLMSG_ERROR):
                    return
                if message.type == _RTM_NEWADDR and len(message.payload) >= _IFADDRMSG.size:
                    yield from _parse_address(message.payload)


def _parse_address(payload: memoryview) -> Iterator[tuple[bytes, frozenset[bytes]]]:
    """Yield an address with the broadcast addresses that come with it."""
    # On a point-to-point link IFA_ADDRESS is the peer and IFA_LOCAL this host (linux/if_addr.h).
    found = dict(netlink.attributes(payload[_IFADDRMSG.size :]))
    value = found.get(_IFA_LOCAL, found.get(_IFA_ADDRESS, memoryview(b"")))
    if len(value) == 4:
        network = bytes(found.get(_IFA_ADDRESS, value))
        everybody = {bytes(found.get(_IFA_BROADCAST, b"")), _last_of_network(network, payload[1])}
        yield (
            V4_MAPPED_PREFIX + bytes(value),
            frozenset(V4_MAPPED_PREFIX + address for address in everybody if len(address) == 4),
        )
    elif len(value) == 16:
        yield bytes(value), frozenset()


def _last_of_network(address: bytes, prefix_bits: int) -> bytes:
    """Return the last address of a network, which the kernel takes for broadcasts whether it was told so or not.

    See fib_add_ifaddr in net/ipv4/fib_frontend.c. Empty for networks that are too small to have one (RFC 3021).
    """
    if prefix_bits >= 31:
        return b""
    hosts = (1 << 32 - prefix_bits) - 1
    return (int.from_bytes(address) | hosts).to_bytes(4)


def from_procfs(net: Path) -> Addresses:
    """Return the addresses that `fib_trie` and `if_inet6` under `net` (/proc/PID/net) list; none of a missing file."""
    local = set(_if_inet6(net / "if_inet6"))
    broadcast: set[bytes] = set()
    for address, kind in _fib_trie(net / "fib_trie"):
        (local if kind == "LOCAL" else broadcast).add(address)
    return Addresses(frozenset(local), frozenset(broadcast))


def _fib_trie(path: Path) -> Iterator[tuple[bytes, str]]:
    leaf = ""
    try:
        with path.open() as lines:
            for line in lines:
                if matched := _FIB_LEAF.search(line):
                    leaf = matched[1]
                elif leaf and (kind := _FIB_HOST.search(line)):
                    yield V4_MAPPED_PREFIX + ipaddress.IPv4Address(leaf).packed, kind[1]
    except (OSError, ValueError):
        return


def _if_inet6(path: Path) -> Iterator[bytes]:
    try:
        with path.open() as lines:
            for line in lines:
                word, _, _ = line.partition(" ")
                if len(word) == 32:
                    yield bytes.fromhex(word)
    except (OSError, ValueError):
        return
