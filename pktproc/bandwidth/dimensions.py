"""What a view can group by, as numbers: a code for each posting and a text for each code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from pktproc.bandwidth.conversations import Conversations
from pktproc.bandwidth.folding import SEVERAL
from pktproc.bandwidth.numbering import dense
from pktproc.bandwidth.owners import OWNER_DIMENSIONS, Namers, OwnerTable
from pktproc.bandwidth.slots import Slots
from pktproc.model import format_address
from pktproc.packets.batch import Column

DIMENSIONS = (*OWNER_DIMENSIONS, "remote", "remote-port", "protocol", "interface", "connection")
REMOTE_DIMENSIONS = ("remote", "remote-port", "connection")
SEVERAL_TEXT = "several"
SENT, RECEIVED, PASSED = 0, 1, 2
_PORT_BITS = 17
_LARGEST = 1 << 62


class Postings(NamedTuple):
    """What is counted for an owner: a slot and whether its source or destination is meant, or neither (`PASSED`).

    `slot`, `side` and `owner` have one entry for each, all int64.
    """

    slot: Column
    side: Column
    owner: Column

    @classmethod
    def of(cls, slots: Slots) -> Postings:
        """Return all postings of the ledger."""
        sides = [
            (side, np.flatnonzero(column[: slots.count] >= 0), column)
            for side, column in (
                (SENT, slots.source_owner),
                (RECEIVED, slots.destination_owner),
                (PASSED, slots.passed_owner),
            )
        ]
        return cls(
            np.concatenate([met for _, met, _ in sides]),
            np.concatenate([np.full(len(met), side) for side, met, _ in sides]),
            np.concatenate([column[met].astype(np.int64) for _, met, column in sides]),
        )


class Coded(NamedTuple):
    """Codes (int64, from 0) of postings, fewer than `size`, and the text of each."""

    code: Column
    size: int
    text: Callable[[int], str]


class Coder:
    """Find the codes of dimensions."""

    def __init__(self, slots: Slots, owners: OwnerTable, conversations: Conversations, namers: Namers) -> None:
        self._slots = slots
        self._owners = owners
        self._conversations = conversations
        self._namers = namers

    def code(self, dimension: str, postings: Postings) -> Coded:
        """Return the codes of postings in one of `DIMENSIONS`."""
        if dimension in OWNER_DIMENSIONS:
            return self._owner(dimension, postings)
        return {
            "remote": self._remote,
            "remote-port": self._remote_port,
            "protocol": self._protocol,
            "interface": self._interface,
            "connection": self._connection,
        }[dimension](postings)

    def local(self, postings: Postings) -> tuple[Column, Column]:
        """Return address number and port of the end that a posting is about; of what passed, the source."""
        return self._end(postings, postings.side != RECEIVED)

    def remote(self, postings: Postings) -> tuple[Column, Column]:
        """Return address number and port of the other end; of what passed, the destination."""
        return self._end(postings, postings.side == RECEIVED)

    def _end(self, postings: Postings, is_source: Column) -> tuple[Column, Column]:
        slots, slot = self._slots, postings.slot
        address = np.where(is_source, slots.source_address[slot], slots.destination_address[slot])
        port = np.where(is_source, slots.source_port[slot], slots.destination_port[slot])
        return address.astype(np.int64), port.astype(np.int64)

    def _owner(self, dimension: str, postings: Postings) -> Coded:
        texts: dict[tuple[str, bool], int] = {}
        owners = self._owners.owners
        code_of = np.zeros(len(owners), np.int64)
        for number in np.unique(postings.owner).tolist():
            key = self._owners.key(number, dimension), owners[number].process is None
            code_of[number] = texts.setdefault(key, len(texts))
        known = [text for text, _ in texts]
        return Coded(code_of[postings.owner], len(known), known.__getitem__)

    def _remote(self, postings: Postings) -> Coded:
        address, _ = self.remote(postings)
        address = np.where((postings.side == PASSED) | self._is_not_ip(postings), -2, address)
        return _coded(address, self.address_text)

    def _remote_port(self, postings: Postings) -> Coded:
        _, port = self.remote(postings)
        without = (postings.side == PASSED) | self._has_no_ports(postings)
        return _coded(np.where(without, -2, port), _port_text)

    def _protocol(self, postings: Postings) -> Coded:
        protocol, ethertype = (column[postings.slot] for column in (self._slots.protocol, self._slots.ethertype))
        code = np.where(protocol >= 0, protocol, -1 - ethertype.astype(np.int64))
        return _coded(code, lambda value: self._namers.protocol(*((value, 0) if value >= 0 else (-1, -1 - value))))

    def _interface(self, postings: Postings) -> Coded:
        known = self._conversations.interfaces
        names = [one.name for one in known]
        texts = [one.name if names.count(one.name) == 1 else f"{one.name}@{one.netns}:{one.ifindex}" for one in known]
        return Coded(self._slots.interface[postings.slot].astype(np.int64), len(texts), texts.__getitem__)

    def _connection(self, postings: Postings) -> Coded:
        (local, local_port), (remote, remote_port) = self.local(postings), self.remote(postings)
        near, far = _packed(local, local_port), _packed(remote, remote_port)
        passed = postings.side == PASSED
        near, far = np.where(passed & (far < near), far, near), np.where(passed & (far < near), near, far)
        nears, near_number = np.unique(near, return_inverse=True)
        fars, far_number = np.unique(far, return_inverse=True)
        protocol = self._protocol(postings)

        def text(value: int) -> str:
            value, number = divmod(value, protocol.size)
            one, other = divmod(value, len(fars))
            name = protocol.text(number)
            return f"{name} {self.end_text(int(nears[one]))} {self.end_text(int(fars[other]))}"

        return _coded((near_number * len(fars) + far_number) * protocol.size + protocol.code, text)

    def end_text(self, packed: int) -> str:
        """Return the text of an address and port that `_packed` joined."""
        address, port = (packed >> _PORT_BITS) - 2, (packed & ((1 << _PORT_BITS) - 1)) - 2
        text = self.address_text(address)
        if port in (0, -2):
            return text
        return f"[{text}]:{_port_text(port)}" if ":" in text else f"{text}:{_port_text(port)}"

    def address_text(self, number: int) -> str:
        """Return the text of an address by its number; `SEVERAL` and -2 (none) are no addresses."""
        if number < 0:
            return SEVERAL_TEXT if number == SEVERAL else ""
        return format_address(self._conversations.addresses[number])

    def _is_not_ip(self, postings: Postings) -> Column:
        return self._slots.protocol[postings.slot] < 0

    def _has_no_ports(self, postings: Postings) -> Column:
        return ~np.isin(self._slots.protocol[postings.slot], _WITH_PORTS)


_WITH_PORTS = (6, 17, 33, 132, 136)


def combine(parts: Sequence[Coded]) -> tuple[Column, list[tuple[int, ...]]]:
    """Return for each posting the number of its combination of codes, and the codes of each combination."""
    number, size = parts[0].code, max(parts[0].size, 1)
    for part in parts[1:]:
        if size * part.size >= _LARGEST:
            number, size = dense(number, size)
        number, size = number * part.size + part.code, size * max(part.size, 1)
    number, size = dense(number, size)
    example = np.zeros(size, np.int64)
    example[number] = np.arange(len(number))
    return number, list(zip(*(part.code[example].tolist() for part in parts), strict=True))


def _coded(values: Column, text: Callable[[int], str]) -> Coded:
    """Return dense codes for values of any size."""
    met, code = np.unique(values, return_inverse=True)
    return Coded(code.reshape(-1), len(met), lambda number: text(int(met[number])))


def _packed(address: Column, port: Column) -> Column:
    packed: Column = ((address + 2) << _PORT_BITS) | (port + 2)
    return packed


def _port_text(port: int) -> str:
    if port < 0:
        return SEVERAL_TEXT if port == SEVERAL else ""
    return str(port)
