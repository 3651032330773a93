"""The distinct flows of a block, so that whatever is asked per flow is asked once."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pktproc.model import Direction, Flow, Interface, PacketType, make_flow
from pktproc.packets.batch import Column, PacketBatch
from pktproc.packets.columns import Columns
from pktproc.packets.headers import TCP_ACK, TCP_SYN
from pktproc.packets.network import NOT_IP

_DIRECTION = np.full(256, Direction.UNKNOWN, np.uint8)
_DIRECTION[[PacketType.HOST, PacketType.BROADCAST, PacketType.MULTICAST]] = Direction.INCOMING
_DIRECTION[PacketType.OTHERHOST] = Direction.PASSING
_DIRECTION[PacketType.OUTGOING] = Direction.OUTGOING

_OPPOSITE = np.arange(len(Direction), dtype=np.uint8)
_OPPOSITE[[Direction.INCOMING, Direction.OUTGOING]] = Direction.OUTGOING, Direction.INCOMING

_ADDRESS = np.dtype((np.void, 16))
_KEY = np.dtype(
    [
        ("source_address", _ADDRESS),
        ("destination_address", _ADDRESS),
        ("source_port", "u2"),
        ("destination_port", "u2"),
        ("protocol", "i2"),
        ("icmp_type", "i2"),
        ("ethertype", "u2"),
        ("direction", "u1"),
        ("ports_known", "?"),
        ("interface", "u4"),
        ("quoted", "u4"),
        ("unused", "u4"),
    ]
)
"""What makes two packets the same flow; every byte counts. `quoted` is 0 or 1 + the number of the quoted flow."""

KEY_WORDS = _KEY.itemsize // 4
"""Multipliers that `distinct_flows` needs."""

_ADDRESS_WORDS = _ADDRESS.itemsize // 4

Multipliers = npt.NDArray[np.uint64]


def random_multipliers() -> Multipliers:
    """Return fresh secret multipliers for hashing keys, so that nobody can send flows that collide on purpose."""
    return np.frombuffer(secrets.token_bytes(8 * KEY_WORDS), np.uint64)


_MULTIPLIERS = random_multipliers()

MAX_KNOWN = 1 << 16
"""Flows that are remembered; beyond, all are forgotten."""
_OF_THIS_BLOCK = b""

_SLOTS_PER_PACKET = 8
"""Hash slots for each packet: at most one flow in 16 has to try a second time."""


@dataclass(frozen=True, slots=True)
class FlowTable:
    """Hold the distinct flows of a block, in order of first appearance.

    `flow_of` int64 has for each packet its index in `flows`. For each flow, `first` int64 is the row of its first
    packet and `syn` bool says whether some packet of it is a TCP SYN without ACK. `keys` has bytes that stand for the
    flow in every block whose `interfaces` begin alike, faster to look up than the flow itself; they are empty for a
    flow with a quoted one.
    """

    flow_of: Column
    flows: list[Flow]
    first: Column
    syn: Column
    keys: list[bytes]

    def __len__(self) -> int:
        return len(self.flows)


class KnownFlows:
    """Remember flows by their keys, so that those of earlier blocks need not be built again; at most `MAX_KNOWN`.

    A key stands for a flow as long as the interfaces of blocks begin alike; when they do not, all is forgotten.
    """

    def __init__(self) -> None:
        self._by_key: dict[bytes, Flow] = {}
        self._interfaces: tuple[Interface, ...] = ()

    def flows(
        self, keys: list[bytes], interfaces: tuple[Interface, ...], build: Callable[[Column], list[Flow]]
    ) -> list[Flow]:
        """Return the flows of keys; `build` returns those at some positions (int64)."""
        if interfaces[: len(self._interfaces)] != self._interfaces or len(self._by_key) > MAX_KNOWN:
            self._by_key.clear()
        self._interfaces = interfaces
        unknown = [position for position, key in enumerate(keys) if key not in self._by_key]
        built = build(np.array(unknown, np.int64))
        self._by_key.update(zip(map(keys.__getitem__, unknown), built, strict=True))
        flows = list(map(self._by_key.__getitem__, keys))
        if self._by_key.pop(_OF_THIS_BLOCK, None) is not None:
            for position, flow in zip(unknown, built, strict=True):
                flows[position] = flow
        return flows


def distinct_flows(
    batch: PacketBatch,
    columns: Columns,
    multipliers: Multipliers = _MULTIPLIERS,
    known: KnownFlows | None = None,
) -> FlowTable:
    """Find the distinct flows of a block.

    Packets are of one flow when they agree in all fields of `Flow`; the ethertype is 0 for IP. The flow quoted by an
    ICMP error has the error's interface and the opposite direction. `multipliers` ((`KEY_WORDS`,) uint64) decide how
    fast the flows are found, never which. Those that are `known` are the same objects as before.
    """
    interfaces = _interfaces(batch.interfaces)
    direction = _DIRECTION[batch.packet_type]
    if interfaces.loopback.any():
        direction[interfaces.loopback[batch.interface]] = Direction.LOOPBACK
    words = _keys(columns, direction)
    if interfaces.number.any():
        _field(words, "interface")[:] = interfaces.number[batch.interface]
    quoted: list[Flow | None] = [None]
    if columns.quoted is not None:
        quoted += _number_quoted(batch, columns, columns.quoted, words, multipliers)
    flow_of, first = group(words.T, multipliers)
    keys = _keys_of(words, first)
    opaque, interface = _opaque(keys), batch.interface[first]

    def build(positions: Column) -> list[Flow]:
        return _flows(keys[positions], interfaces, interface[positions], quoted)

    flows = known.flows(opaque, batch.interfaces, build) if known else build(np.arange(len(first)))
    opening = (columns.tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN
    syn = np.zeros(len(first), bool)
    if opening.any():
        syn[flow_of[opening]] = True
    return FlowTable(flow_of, flows, first, syn, opaque)


def group(keys: Column, multipliers: Multipliers) -> tuple[Column, Column]:
    """Give numbers to the distinct values of a column of keys, in order of first appearance.

    `keys` holds `KEY_WORDS` 32-bit words for each row, as (n, `KEY_WORDS`) uint32, fastest in column-major order, or as
    (n,) items of that size. Returns for each row its number, and for each number its first row, both int64. Words in
    which all rows agree take no further part. Rows are brought together by a slot of their multilinear hash (Lemire and
    Kaser, "Strongly universal string hashing is fast", 2014: its upper 32 bits collide by chance only) and then
    compared in full. What shared its slot with another key tries other bits of the hash, and what is left after that is
    sorted: exact for any keys and multipliers.
    """
    count = len(keys)
    words = keys.view(np.uint32).reshape(count, KEY_WORDS).T
    varying = np.flatnonzero((words != words[:, :1]).any(axis=1))
    if not len(varying):
        return np.zeros(count, np.int64), np.arange(min(count, 1))
    words = words[varying]
    hashed = _hash(words, multipliers[varying])
    bits = (_SLOTS_PER_PACKET * count).bit_length()
    representative, alike = _by_slot(words, hashed >> np.uint64(64 - bits), bits)
    if not alike.all():
        rows = np.flatnonzero(~alike)
        slot = (hashed[rows] >> np.uint64(32)) & np.uint64((1 << bits) - 1)
        nearest, alike = _by_slot(words[:, rows], slot, bits)
        representative[rows] = rows[nearest]
        rows = rows[~alike]
        representative[rows] = rows[_by_sorting(words[:, rows])]
    first = np.flatnonzero(representative == np.arange(count))
    number = np.empty(count, np.int64)
    number[first] = np.arange(len(first))
    return number[representative], first


def _hash(words: Column, multipliers: Multipliers) -> Column:
    """Return the sum of each row's words times their multipliers, modulo 2**64; `words` is (words, rows) uint32."""
    hashed = np.zeros(words.shape[1], np.uint64)
    for word, multiplier in zip(words, multipliers, strict=True):
        hashed += np.multiply(word, multiplier, dtype=np.uint64)
    return hashed


def _by_slot(words: Column, slot: Column, bits: int) -> tuple[Column, Column]:
    """Return for each row the first row of its slot, and whether both have the same words.

    Equal rows share a slot, so they are alike with its first row all together or not at all.
    """
    slot = slot.astype(np.int64)
    # Only the slots in use are ever written or read. Of several rows for one slot the last written stays: the first.
    table = np.empty(1 << bits, np.int64)
    table[slot[::-1]] = np.arange(len(slot) - 1, -1, -1)
    representative = table[slot]
    alike = np.ones(len(slot), bool)
    for word in words:
        alike &= word[representative] == word
    return representative, alike


def _by_sorting(words: Column) -> Column:
    """Return for each row the first row with equal words."""
    rows = np.ascontiguousarray(words.T)
    opaque = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))
    _, first, number = np.unique(opaque, return_index=True, return_inverse=True)
    return first[number.reshape(-1)]


@dataclass(frozen=True, slots=True)
class _Interfaces:
    """Hold what flows need of the interfaces; interfaces with the same namespace and index share a `number`."""

    number: Column
    loopback: Column
    netns: list[int]
    ifindex: list[int]


@lru_cache(maxsize=16)
def _interfaces(interfaces: tuple[Interface, ...]) -> _Interfaces:
    identities = [(interface.netns, interface.ifindex) for interface in interfaces]
    numbers = {identity: number for number, identity in enumerate(dict.fromkeys(identities))}
    return _Interfaces(
        number=np.array([numbers[identity] for identity in identities], np.uint32),
        loopback=np.array([interface.loopback for interface in interfaces], bool),
        netns=[interface.netns for interface in interfaces],
        ifindex=[interface.ifindex for interface in interfaces],
    )


def _keys(columns: Columns, direction: Column) -> Column:
    """Return the keys, (`KEY_WORDS`, n) uint32: a row for each word of `_KEY`; `interface` and `quoted` are blank."""
    words = np.zeros((KEY_WORDS, len(columns)), np.uint32)
    words[:_ADDRESS_WORDS] = _address_words(columns.source_address)
    words[_ADDRESS_WORDS : 2 * _ADDRESS_WORDS] = _address_words(columns.destination_address)
    _field(words, "source_port")[:] = columns.source_port
    _field(words, "destination_port")[:] = columns.destination_port
    _field(words, "protocol")[:] = columns.protocol
    _field(words, "icmp_type")[:] = columns.icmp_type
    if not columns.network.all():
        _field(words, "ethertype")[:] = np.where(columns.protocol == NOT_IP, columns.ethertype, 0)
    _field(words, "direction")[:] = direction
    _field(words, "ports_known")[:] = columns.ports_known
    return words


def _address_words(addresses: Column) -> Column:
    return np.ascontiguousarray(addresses).view(np.uint32).T


def _field(words: Column, name: str) -> Column:
    """Return one field of `_KEY` that is no longer than a word, for all keys; writing to it changes the keys."""
    kind, offset = _KEY.fields[name][:2]  # type: ignore[index]
    parts: Column = words[offset // 4].view(kind)
    return parts[offset % 4 // kind.itemsize :: 4 // kind.itemsize]


def _number_quoted(
    batch: PacketBatch, columns: Columns, quoted: Columns, words: Column, multipliers: Multipliers
) -> list[Flow]:
    """Find the distinct quoted flows and write their numbers, from 1, into the keys of the errors that quote them."""
    errors = np.flatnonzero(columns.quoted_row >= 0)
    of_error = _keys(quoted, np.zeros(len(quoted), np.uint8)).take(columns.quoted_row[errors], axis=1)
    _field(of_error, "interface")[:] = _field(words, "interface")[errors]
    _field(of_error, "direction")[:] = _OPPOSITE[_field(words, "direction")[errors]]
    number, first = group(of_error.T, multipliers)
    _field(words, "quoted")[errors] = number + 1
    keys = _keys_of(of_error, first)
    return _flows(keys, _interfaces(batch.interfaces), batch.interface[errors[first]], [None])


def _keys_of(words: Column, rows: Column) -> Column:
    """Return the keys of some rows, dtype `_KEY`."""
    keys: Column = np.ascontiguousarray(words[:, rows].T).view(_KEY).reshape(len(rows))
    return keys


def _opaque(keys: Column) -> list[bytes]:
    """Return keys as bytes, empty where the number of a quoted flow, which is of one block only, is among them."""
    found: list[bytes] = keys.view(np.dtype((np.void, _KEY.itemsize))).tolist()
    for row in np.flatnonzero(keys["quoted"]).tolist():
        found[row] = _OF_THIS_BLOCK
    return found


class _Shared(dict[Any, Any]):
    """Give equal values as one object: flows are kept in large numbers, and have much in common."""

    def __missing__(self, value: Any) -> Any:
        self[value] = value
        return value


def _flows(keys: Column, interfaces: _Interfaces, interface: Column, quoted: Sequence[Flow | None]) -> list[Flow]:
    """Build the flows of some keys; `interface` is the index of each one's interface in the batch."""
    places = interface.tolist()
    addresses, ports = _Shared(), _Shared()
    fields = zip(
        map(interfaces.netns.__getitem__, places),
        map(interfaces.ifindex.__getitem__, places),
        keys["direction"].tolist(),
        keys["protocol"].tolist(),
        map(addresses.__getitem__, keys["source_address"].tolist()),
        map(ports.__getitem__, keys["source_port"].tolist()),
        map(addresses.__getitem__, keys["destination_address"].tolist()),
        map(ports.__getitem__, keys["destination_port"].tolist()),
        keys["ethertype"].tolist(),
        keys["icmp_type"].tolist(),
        keys["ports_known"].tolist(),
        map(quoted.__getitem__, keys["quoted"].tolist()),
        strict=True,
    )
    return list(map(make_flow, fields))
