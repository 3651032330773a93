"""Link layers: where a packet's network layer starts, and which one it is.

Link types are the LINKTYPE_ numbers of tcpdump.org/linktypes.html, which describes each header.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pktproc.packets.batch import Bytes, Column
from pktproc.packets.headers import ADDRESS_FAMILY, ETHERNET, SLL, SLL2, SNAP, VERSION, VLAN_TAG, gather

LINKTYPE_NULL = 0
LINKTYPE_ETHERNET = 1
LINKTYPE_RAW = 101
LINKTYPE_LOOP = 108
LINKTYPE_LINUX_SLL = 113
LINKTYPE_IPV4 = 228
LINKTYPE_IPV6 = 229
LINKTYPE_LINUX_SLL2 = 276
DLT_RAW = 12
"""What some BSDs write in place of LINKTYPE_RAW."""
DLT_RAW_OPENBSD = 14

ETHERTYPE_UNKNOWN = 0
ETHERTYPE_IPV4 = 0x0800
ETHERTYPE_ARP = 0x0806
ETHERTYPE_IPV6 = 0x86DD

NO_VLAN = -1

MAX_ENCAPSULATIONS = 8
"""VLAN tags and SNAP headers that are followed in one frame; two tags are usual, more is a test or an attack."""

_TAG = 1
_LENGTH = 2
_ENCAPSULATION = np.zeros(1 << 16, np.uint8)
_ENCAPSULATION[[0x8100, 0x88A8, 0x9100]] = _TAG
_ENCAPSULATION[1:0x0600] = _LENGTH
_ETHERTYPE_MINIMUM = 0x0600
_LLC_PROTOCOL = 4
"""ETH_P_802_2 (linux/if_ether.h): in a cooked header, says that an LLC header follows."""

_ARPHRD_WITHOUT_ETHERTYPE = np.zeros(1 << 16, bool)
_ARPHRD_WITHOUT_ETHERTYPE[[770, 803, 824]] = True  # FRAD, IEEE80211_RADIOTAP, NETLINK (linux/if_arp.h)

_SNAP_LLC = np.array([0xAA, 0xAA, 0x03], np.uint8)

_VERSION_ETHERTYPE = np.zeros(256, np.uint16)
_VERSION_ETHERTYPE[0x40:0x50] = ETHERTYPE_IPV4
_VERSION_ETHERTYPE[0x60:0x70] = ETHERTYPE_IPV6

_FAMILY_ETHERTYPE = np.zeros(256, np.uint16)
_FAMILY_ETHERTYPE[2] = ETHERTYPE_IPV4
_FAMILY_ETHERTYPE[[24, 28, 30]] = ETHERTYPE_IPV6  # AF_INET6 of NetBSD and OpenBSD, FreeBSD, Darwin


@dataclass(frozen=True, slots=True)
class Link:
    """Hold what the link layer of each packet says.

    `ethertype` uint16: the network protocol below all tags, 0 when unknown. `network_offset` int64: position of the
    first byte above the link layer, -1 where there is none or the ethertype is unknown. `vlan`, `inner_vlan` int16:
    VLAN ids of the outermost and the next tag, -1 for none.
    """

    ethertype: Column
    network_offset: Column
    vlan: Column
    inner_vlan: Column


def locate(data: Bytes, offset: Column, end: Column, linktype: Column) -> Link:
    """Find the network layer of every packet.

    `offset` and `end` are int64 positions within the uint8 buffer `data`; a packet may end before it starts. `linktype`
    is a column of LINKTYPE_ numbers, of which unknown ones give ethertype 0. Follows IEEE 802.1Q and 802.1ad tags and
    IEEE 802.3 LLC/SNAP up to `MAX_ENCAPSULATIONS` deep; beyond, and where a header is cut, the ethertype is 0.
    """
    ethertype, position = _frame(data, offset, end, linktype)
    count = len(offset)
    link = Link(ethertype, position, np.full(count, NO_VLAN, np.int16), np.full(count, NO_VLAN, np.int16))
    _unwrap(data, end, link)
    reached = (ethertype != ETHERTYPE_UNKNOWN) & (position < end)
    if not reached.all():
        position[~reached] = -1
    return link


def _frame(data: Bytes, offset: Column, end: Column, linktype: Column) -> tuple[Column, Column]:
    """Read the outermost header: return each packet's ethertype and the position after the header."""
    if len(linktype) and (linktype == linktype[0]).all():
        framing = _FRAMINGS.get(int(linktype[0]))
        if framing is not None:
            return framing(data, offset, end)
    ethertype = np.zeros(len(offset), np.uint16)
    position = offset.copy()
    for kind, framing in _FRAMINGS.items():
        rows = np.flatnonzero(linktype == kind)
        if len(rows):
            ethertype[rows], position[rows] = framing(data, offset[rows], end[rows])
    return ethertype, position


def _ethernet(data: Bytes, offset: Column, end: Column) -> tuple[Column, Column]:
    header, _ = gather(data, offset, end, ETHERNET)
    return header["ethertype"].astype(np.uint16), offset + ETHERNET.itemsize


def _sll(data: Bytes, offset: Column, end: Column) -> tuple[Column, Column]:
    header, _ = gather(data, offset, end, SLL)
    return _cooked_ethertype(header), offset + SLL.itemsize


def _sll2(data: Bytes, offset: Column, end: Column) -> tuple[Column, Column]:
    header, _ = gather(data, offset, end, SLL2)
    return _cooked_ethertype(header), offset + SLL2.itemsize


def _cooked_ethertype(header: Column) -> Column:
    """Return the ethertype of cooked headers, 0 where the protocol field holds something else.

    Below 0x0600 it is one of the kernel's own ETH_P_ numbers, of which only LLC is followed.
    """
    protocol = header["protocol"].astype(np.uint16)
    foreign = (protocol < _ETHERTYPE_MINIMUM) & (protocol != _LLC_PROTOCOL)
    protocol[foreign | _ARPHRD_WITHOUT_ETHERTYPE[header["arphrd"]]] = ETHERTYPE_UNKNOWN
    return protocol


def _null(data: Bytes, offset: Column, end: Column) -> tuple[Column, Column]:
    """Read a BSD loopback header, written in the byte order of whichever machine captured."""
    header, _ = gather(data, offset, end, ADDRESS_FAMILY)
    family = header["family"].astype(np.uint32)
    swapped = family > 0xFFFF
    family[swapped] = family[swapped].byteswap()
    family[family > 0xFF] = 0
    return _FAMILY_ETHERTYPE[family], offset + ADDRESS_FAMILY.itemsize


def _raw(data: Bytes, offset: Column, end: Column) -> tuple[Column, Column]:
    header, _ = gather(data, offset, end, VERSION)
    return _VERSION_ETHERTYPE[header["version_ihl"]], offset.copy()


def _ipv4(_data: Bytes, offset: Column, _end: Column) -> tuple[Column, Column]:
    return np.full(len(offset), ETHERTYPE_IPV4, np.uint16), offset.copy()


def _ipv6(_data: Bytes, offset: Column, _end: Column) -> tuple[Column, Column]:
    return np.full(len(offset), ETHERTYPE_IPV6, np.uint16), offset.copy()


_FRAMINGS: dict[int, Callable[[Bytes, Column, Column], tuple[Column, Column]]] = {
    LINKTYPE_NULL: _null,
    LINKTYPE_ETHERNET: _ethernet,
    LINKTYPE_RAW: _raw,
    DLT_RAW: _raw,
    DLT_RAW_OPENBSD: _raw,
    LINKTYPE_LOOP: _null,
    LINKTYPE_LINUX_SLL: _sll,
    LINKTYPE_LINUX_SLL2: _sll2,
    LINKTYPE_IPV4: _ipv4,
    LINKTYPE_IPV6: _ipv6,
}


def _unwrap(data: Bytes, end: Column, link: Link) -> None:
    """Follow VLAN tags and LLC/SNAP headers until every ethertype is a network protocol's."""
    if ((link.ethertype == ETHERTYPE_IPV4) | (link.ethertype == ETHERTYPE_IPV6)).all():
        return
    for _ in range(MAX_ENCAPSULATIONS):
        kind = _ENCAPSULATION[link.ethertype]
        rows = np.flatnonzero(kind)
        if not len(rows):
            return
        tagged = kind[rows] == _TAG
        _strip_tag(data, end, link, rows[tagged])
        _strip_snap(data, end, link, rows[~tagged])
    link.ethertype[_ENCAPSULATION[link.ethertype] != 0] = ETHERTYPE_UNKNOWN


def _strip_tag(data: Bytes, end: Column, link: Link, rows: Column) -> None:
    tag, ok = gather(data, link.network_offset[rows], end[rows], VLAN_TAG)
    identifier = (tag["tci"] & 0x0FFF).astype(np.int16)
    outermost = link.vlan[rows] == NO_VLAN
    inner = ~outermost & (link.inner_vlan[rows] == NO_VLAN)
    outermost &= ok
    inner &= ok
    link.vlan[rows[outermost]] = identifier[outermost]
    link.inner_vlan[rows[inner]] = identifier[inner]
    link.ethertype[rows] = tag["ethertype"]
    link.network_offset[rows] += VLAN_TAG.itemsize


def _strip_snap(data: Bytes, end: Column, link: Link, rows: Column) -> None:
    snap, _ = gather(data, link.network_offset[rows], end[rows], SNAP)
    ethertype = snap["ethertype"].astype(np.uint16)
    # Under another organisation's OUI the field is a protocol of theirs, not an ethertype.
    known = (snap["llc"] == _SNAP_LLC).all(axis=1) & ~snap["oui"].any(axis=1) & (ethertype >= _ETHERTYPE_MINIMUM)
    link.ethertype[rows] = np.where(known, ethertype, ETHERTYPE_UNKNOWN)
    link.network_offset[rows] += SNAP.itemsize
