"""Blocks of a TPACKET_V3 ring, as bytes: where their frames are and what the kernel says of each (packet(7)).

Layouts: struct tpacket_block_desc, tpacket3_hdr and sockaddr_ll in linux/if_packet.h, host byte order.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

from pktproc.packets import linktypes
from pktproc.packets.batch import Bytes, Column

BLOCK_HEADER = struct.Struct("=8xIIII")  # block_status, num_pkts, offset_to_first_pkt, blk_len
STATUS_OFFSET = 8
TP_STATUS_KERNEL = 0
TP_STATUS_USER = 1
_TP_STATUS_VLAN_VALID = 1 << 4
_TP_STATUS_VLAN_TPID_VALID = 1 << 6
_ETH_P_8021Q = 0x8100
VLAN_TAG_BYTES = 4
_MAC_ADDRESSES_BYTES = 12

FRAME = np.dtype(
    {
        "names": [
            "sec", "nsec", "snaplen", "len", "status", "mac", "net", "vlan_tci", "vlan_tpid",
            "protocol", "ifindex", "hatype", "pkttype",
        ],
        "formats": ["u4", "u4", "u4", "u4", "u4", "u2", "u2", "u4", "u2", ">u2", "i4", "u2", "u1"],
        "offsets": [4, 8, 12, 16, 20, 24, 26, 32, 36, 50, 52, 56, 58],
        "itemsize": 68,
    }
)  # fmt: skip

# Link types by ARPHRD_ number (linux/if_arp.h); of others the network header is taken, where the kernel found it.
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_IP_ETHERTYPES = (0x0800, 0x86DD)
_UNKNOWN_LINKTYPE = 0xFFFF
# Runs shorter than this do not pay; after one, frames are walked singly for a while.
_RUN_WORTH = 8
_RUN_TRY = 64


class Frames(NamedTuple):
    """The frames of some blocks: columns as in `PacketBatch`, with the interface index instead of a position."""

    data: Bytes
    offset: Column
    captured_bytes: Column
    wire_bytes: Column
    time_ns: Column
    ifindex: Column
    packet_type: Column
    linktype: Column


def frame_offsets(block: Bytes, first: int, count: int) -> Column:
    """Return where the `count` frames of a block begin; each frame's first word is the distance to the next.

    A run of frames of one size is recognised at once, however long, so that uniform traffic costs next to nothing.
    """
    words = block[: len(block) & ~3].view(np.uint32)
    places = np.empty(count, np.int64)
    place, done = first >> 2, 0
    while done < count:
        run, step = _run(words, place, count - done)
        places[done : done + run] = place + step * np.arange(run)
        place, done = place + step * run, done + run
        if run < _RUN_WORTH and done < count:
            singly = min(_RUN_TRY, count - done)
            walked = _walk(words.data, place, singly)
            place = walked.pop()
            places[done : done + singly] = walked
            done += singly
    return places << 2


def _run(words: Column, place: int, count: int) -> tuple[int, int]:
    """Return how many of `count` frames from a place on lie at one distance from each other, and that distance."""
    step = int(words[place]) >> 2 if place < len(words) else 0
    if not step:
        return count, 0
    # What the last frame says of the next one is of no interest.
    same = words[place : place + step * (count - 1) : step] == step << 2
    if same.all():
        return min(len(same) + 1, count), step
    return int(np.argmin(same)), step


def _walk(distance: memoryview, place: int, count: int) -> list[int]:
    """Return the places of `count` frames, and the one after them; from outside the block nothing leads on."""
    places = [place]
    try:
        for _ in range(count):
            place += distance[place] >> 2
            places.append(place)
    except IndexError:
        places += [place] * (count + 1 - len(places))
    return places


def parse(data: Bytes, starts: Column) -> Frames:
    """Return the frames whose headers begin at `starts`; VLAN tags are put back into `data`, which that changes."""
    overlay = np.ndarray((len(data) - FRAME.itemsize + 1,), f"V{FRAME.itemsize}", data, strides=(1,))
    head = overlay[starts].view(FRAME)
    status = head["status"]
    offset = starts + head["mac"]
    captured = head["snaplen"].astype(np.int64)
    wire = head["len"].astype(np.int64)
    linktype = np.full(len(starts), linktypes.LINKTYPE_ETHERNET, np.uint16)
    hatype = head["hatype"]
    ethernet = (hatype == _ARPHRD_ETHER) | (hatype == _ARPHRD_LOOPBACK)
    if not ethernet.all():
        link_header = np.where(ethernet, 0, head["net"].astype(np.int64) - head["mac"])
        offset = offset + link_header
        captured = np.maximum(captured - link_header, 0)
        wire = wire - link_header
        is_ip = np.isin(head["protocol"], _IP_ETHERTYPES)
        linktype[~ethernet] = np.where(is_ip, linktypes.LINKTYPE_RAW, _UNKNOWN_LINKTYPE)[~ethernet]
    tagged = (status & _TP_STATUS_VLAN_VALID) != 0
    if tagged.any():
        tagged &= ethernet & (captured >= _MAC_ADDRESSES_BYTES)
        tpid = np.where(status & _TP_STATUS_VLAN_TPID_VALID, head["vlan_tpid"], _ETH_P_8021Q)
        _put_tags_back(data, offset[tagged], tpid[tagged], head["vlan_tci"][tagged])
        shift = np.where(tagged, VLAN_TAG_BYTES, 0)
        offset, captured, wire = offset - shift, captured + shift, wire + shift
    return Frames(
        data=data,
        offset=offset,
        captured_bytes=captured,
        wire_bytes=wire,
        time_ns=head["sec"].astype(np.int64) * 1_000_000_000 + head["nsec"],
        ifindex=head["ifindex"].astype(np.int64),
        packet_type=head["pkttype"].copy(),
        linktype=linktype,
    )


def _put_tags_back(data: Bytes, offset: Column, tpid: Column, tci: Column) -> None:
    """Move the MAC addresses down by the 4 bytes of the tag and write it behind them; the ring reserves the room."""
    addresses = offset[:, None] + np.arange(_MAC_ADDRESSES_BYTES)
    data[addresses - VLAN_TAG_BYTES] = data[addresses]
    tag = offset[:, None] + np.arange(_MAC_ADDRESSES_BYTES - VLAN_TAG_BYTES, _MAC_ADDRESSES_BYTES)
    data[tag] = np.stack([tpid >> 8, tpid & 0xFF, (tci >> 8) & 0xFF, tci & 0xFF], axis=1).astype(np.uint8)
