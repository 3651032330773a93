"""The network interfaces of a namespace (netdevice(7))."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from pktproc.model import Interface

_SIOCGIFFLAGS, _SIOCGIFHWADDR = 0x8913, 0x8927
_IFF_UP, _IFF_LOOPBACK, _IFF_RUNNING = 0x1, 0x8, 0x40
_IFREQ = struct.Struct("16sH22x")


def flags(name: str) -> int:
    """Return the flags (IFF_*) of an interface of this thread's namespace; 0 if it is gone."""
    return _ask(_SIOCGIFFLAGS, name) or 0


def hardware_type(name: str) -> int | None:
    """Return the ARPHRD_ number (linux/if_arp.h) of an interface of this thread's namespace; None if it is gone."""
    return _ask(_SIOCGIFHWADDR, name)


def _ask(request: int, name: str) -> int | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            answer = fcntl.ioctl(control, request, _IFREQ.pack(os.fsencode(name), 0))
        except OSError:
            return None
    return int(_IFREQ.unpack(answer)[1])


def interfaces(netns: int) -> dict[int, Interface]:
    """Return the interfaces of this thread's namespace, whose inode number is `netns`, by index."""
    return {
        index: Interface(name, index, netns, loopback=bool(flags(name) & _IFF_LOOPBACK))
        for index, name in socket.if_nameindex()
    }


def is_up(name: str) -> bool:
    """Say whether an interface of this thread's namespace is up."""
    return bool(flags(name) & _IFF_UP)


def states(name: str) -> str:
    """Return what tcpdump -D says of an interface: `Up, Running, Loopback`, as far as it applies."""
    found = flags(name)
    words = ((_IFF_UP, "Up"), (_IFF_RUNNING, "Running"), (_IFF_LOOPBACK, "Loopback"))
    return ", ".join(word for bit, word in words if found & bit)
