"""Where an address lives: in the namespace of the capture, in another one of this host, or elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address

from pktproc.attribution.engine import Addresses, Engine
from pktproc.model import UNSPECIFIED, UNSPECIFIED_V4, V4_MAPPED_PREFIX

NS_PER_S = 1_000_000_000
# Addresses and namespaces are read again when an unknown address turns up, at most this often.
REFRESH_NS = NS_PER_S
_EVERYONE_V4 = V4_MAPPED_PREFIX + b"\xff\xff\xff\xff"
_LOOPBACK_V6 = IPv6Address("::1").packed


def is_multicast(address: bytes) -> bool:
    """Say whether a 16-byte address is an IPv4 (RFC 5771) or IPv6 (RFC 4291 section 2.7) multicast address."""
    if address.startswith(V4_MAPPED_PREFIX):
        return address[12] & 0xF0 == 0xE0
    return address[0] == 0xFF


def is_loopback(address: bytes) -> bool:
    """Say whether a 16-byte address is in 127.0.0.0/8 or is ::1: every namespace has these."""
    return address == _LOOPBACK_V6 or (address.startswith(V4_MAPPED_PREFIX) and address[12] == 127)


def is_broadcast_everywhere(address: bytes) -> bool:
    """Say whether a 16-byte address is 255.255.255.255, the broadcast address of any network (RFC 919)."""
    return address == _EVERYONE_V4


class AddressBook:
    """Know which namespace of this host has which address; `clock` returns monotonic nanoseconds."""

    def __init__(self, engine: Engine, clock: Callable[[], int]) -> None:
        self._engine = engine
        self._clock = clock
        self._spaces: dict[int, Addresses] = {}
        self._homes: dict[bytes, list[int]] = {}
        self._read_ns = 0
        self.refresh()

    def refresh(self) -> None:
        """Read the addresses of all namespaces again."""
        self._spaces = {netns: self._engine.addresses(netns) for netns in self._engine.namespaces()}
        self._homes = {}
        for netns, addresses in self._spaces.items():
            for address in addresses.local:
                self._homes.setdefault(address, []).append(netns)
        self._read_ns = self._clock()

    def refresh_if_old(self) -> bool:
        """Read the addresses again unless that was done a moment ago; return whether it was done now."""
        if self._clock() - self._read_ns < REFRESH_NS:
            return False
        self.refresh()
        return True

    def is_local(self, netns: int, address: bytes) -> bool:
        """Say whether an address is one of a namespace's own; the unspecified address (as DHCP sends from) is."""
        if address in (UNSPECIFIED, UNSPECIFIED_V4) or is_loopback(address):
            return True
        return address in self._spaces.get(netns, _NOWHERE).local

    def is_broadcast(self, netns: int, address: bytes) -> bool:
        """Say whether a namespace takes packets to this address as broadcasts."""
        return is_broadcast_everywhere(address) or address in self._spaces.get(netns, _NOWHERE).broadcast

    def elsewhere(self, netns: int, address: bytes) -> list[int]:
        """Return the other namespaces of this host that have an address; none for loopback addresses."""
        if is_loopback(address):
            return []
        return [home for home in self._homes.get(address, ()) if home != netns]


_NOWHERE = Addresses()
