"""Interfaces as cooked headers name them (tcpdump.org/linktypes/LINKTYPE_LINUX_SLL2.html)."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from packets.capture_files import pack
from pktproc.model import Interface
from pktproc.packets.batch import PacketBatch
from pktproc.packets.cooked import CookedInterfaces

ETHERNET, SLL, SLL2 = 1, 113, 276
OF_FILE = (Interface("any", 1, 0), Interface("eth0", 2, 0))


def sll2(ifindex: int) -> bytes:
    return struct.pack(">HHIHBB8s", 0x0800, 0, ifindex, 1, 0, 6, bytes(8)) + b"\x45" + bytes(19)


def names(batch: PacketBatch) -> list[str]:
    return [batch.interfaces[place].name for place in batch.interface.tolist()]


def batch_of(packets: list[bytes], linktypes: list[int], places: list[int]) -> PacketBatch:
    return replace(pack(packets, linktypes), interface=np.array(places, np.int64), interfaces=OF_FILE)


def test_packets_are_on_the_interfaces_that_their_headers_name() -> None:
    packets = [sll2(3), sll2(2), bytes(60), sll2(3), sll2(0), sll2(3)[:19]]
    linktypes = [SLL2, SLL2, ETHERNET, SLL2, SLL2, SLL2]
    found = CookedInterfaces().told_apart(batch_of(packets, linktypes, [0, 0, 1, 0, 0, 0]))
    assert names(found) == ["if3", "if2", "eth0", "if3", "any", "any"]


def test_an_interface_keeps_its_place_and_two_of_a_file_are_never_one() -> None:
    cooked = CookedInterfaces()
    first = cooked.told_apart(batch_of([sll2(7), sll2(2)], [SLL2, SLL2], [0, 0]))
    later = cooked.told_apart(batch_of([sll2(2), bytes(40), sll2(7)], [SLL2, SLL, SLL2], [0, 1, 1]))
    assert names(later) == ["if2", "eth0", "if7"]
    assert later.interfaces[: len(first.interfaces)] == first.interfaces
    assert later.interface[0] == first.interface[1]
    assert later.interface[2] != first.interface[0]
    assert len({(one.netns, one.ifindex) for one in later.interfaces}) == len(later.interfaces)


def test_a_batch_without_such_headers_is_left_as_it_is() -> None:
    batch = batch_of([bytes(60), bytes(40)], [ETHERNET, SLL], [1, 0])
    assert CookedInterfaces().told_apart(batch) is batch


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_nothing_is_raised_whatever_the_bytes(packets: list[bytes]) -> None:
    batch = batch_of(packets, [SLL2] * len(packets), [0] * len(packets))
    found = CookedInterfaces().told_apart(batch)
    assert len(found.interface) == len(packets)
    assert all(0 <= place < len(found.interfaces) for place in found.interface.tolist())
