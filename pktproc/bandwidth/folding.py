"""Flows that ended, folded into one slot for each owner and remote end, so that memory has a bound."""

from __future__ import annotations

import numpy as np

from pktproc.bandwidth.numbering import dense
from pktproc.bandwidth.owners import NOBODY, OTHERS, OwnerTable
from pktproc.bandwidth.slots import KEY, NO_SLOT, Slots
from pktproc.packets.batch import Column

MAX_SLOTS = 1 << 18
"""Slots that are kept: directions of flows, and what others were folded into."""
MAX_OWNERS = 1 << 14
"""Processes that are kept apart; the ones seen longest ago become `OTHERS`."""
_OF_OWNER = ("source_owner", "destination_owner", "passed_owner", "interface", "protocol", "ethertype")
_NS_PER_S = 1_000_000_000
_QUIET_NS = 5 * _NS_PER_S
_IDLE_NS = 300 * _NS_PER_S
SEVERAL = -1
"""A port or address that stands for several."""


def ended(slots: Slots, now_ns: int) -> Column:
    """Return the slots of flows that closed and are quiet, or have long been idle."""
    count = slots.count
    live = _in_use(slots) & ~slots.folded[:count]
    twin = slots.twin[:count]
    closed = slots.ended[:count] | ((twin >= 0) & slots.ended[twin])
    last_ns = slots.last_ns[:count]
    return np.flatnonzero(live & ((closed & (last_ns < now_ns - _QUIET_NS)) | (last_ns < now_ns - _IDLE_NS)))


def oldest(slots: Slots, count: int) -> Column:
    """Return the slots of flows that had no packets for the longest time."""
    live = np.flatnonzero(_in_use(slots) & ~slots.folded[: slots.count])
    order = np.argsort(slots.last_ns[live], kind="stable")
    return live[order[:count]]


def fold(slots: Slots, chosen: Column, *, remotes: bool) -> Column:
    """Fold slots into one for each set of equal keys and release the rest; return for every slot where it went.

    Local ports are no part of the key; with `remotes` addresses and remote ports are.
    """
    if remotes:
        # The port of the end that is here is its own choice, or the same for all its peers anyway.
        slots.source_port[chosen[slots.source_owner[chosen] != NOBODY]] = SEVERAL
        slots.destination_port[chosen[slots.destination_owner[chosen] != NOBODY]] = SEVERAL
    else:
        for name in ("source_port", "destination_port", "source_address", "destination_address"):
            getattr(slots, name)[chosen] = SEVERAL
    return _merge(slots, np.union1d(chosen, np.flatnonzero(slots.folded[: slots.count] & _in_use(slots))))


class StandIns:
    """Slots without bytes that stand for all slots of the same owners in the course of time."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._known: dict[tuple[int, ...], int] = {}

    def forget(self) -> None:
        """Forget them, since they may have been folded into others."""
        self._known = {}

    def __call__(self, chosen: Column) -> Column:
        """Return for each slot the one that stands for it."""
        if not len(chosen):
            return chosen
        slots = self._slots
        is_chosen = np.zeros(slots.count, bool)
        is_chosen[chosen] = True
        met = np.flatnonzero(is_chosen)
        number, size = np.zeros(len(met), np.int64), 1
        for name in _OF_OWNER:
            column = getattr(slots, name)[met].astype(np.int64)
            span = int(column.max()) - int(column.min()) + 1
            number, size = dense(number * span + column - column.min(), size * span)
        example = np.zeros(size, np.int64)
        example[number] = met
        found = [self._of(slot) for slot in example.tolist()]
        to = np.zeros(slots.count, np.int64)
        to[met] = np.array(found)[number]
        stood_for: Column = to[chosen]
        return stood_for

    def _of(self, example: int) -> int:
        """Return what stands for the owners of one slot."""
        key = tuple(int(getattr(self._slots, name)[example]) for name in _OF_OWNER)
        slot = self._known.get(key)
        if slot is None:
            slots = self._slots
            slot = self._known[key] = slots.new()
            for name, value in zip(_OF_OWNER, key, strict=True):
                getattr(slots, name)[slot] = value
            for name in ("source_port", "destination_port", "source_address", "destination_address"):
                getattr(slots, name)[slot] = SEVERAL
            slots.first_ns[slot], slots.last_ns[slot] = slots.first_ns[example], slots.last_ns[example]
            slots.folded[slot] = True
        return slot


def give_to_others(slots: Slots, owners: OwnerTable) -> tuple[Column, int] | None:
    """Give what was folded of the processes seen longest ago to `OTHERS`, if anything was.

    Return where each slot went, and how many processes they were.
    """
    count = slots.count
    last_ns = np.full(len(owners.owners), np.iinfo(np.int64).min)
    for column in (slots.source_owner[:count], slots.destination_owner[:count]):
        owned = column >= 0
        np.maximum.at(last_ns, column[owned], slots.last_ns[:count][owned])
    folded = np.flatnonzero(slots.folded[:count] & _in_use(slots))
    is_process = np.array([owner.process is not None for owner in owners.owners])
    candidates = np.flatnonzero(is_process & (last_ns > np.iinfo(np.int64).min))
    old = candidates[np.argsort(last_ns[candidates], kind="stable")][: len(candidates) // 2]
    is_old = np.zeros(len(owners.owners), bool)
    is_old[old] = True
    given = np.zeros(len(owners.owners), bool)
    for column in (slots.source_owner, slots.destination_owner):
        chosen = folded[(column[folded] >= 0) & is_old[column[folded]]]
        given[column[chosen]] = True
        column[chosen] = OTHERS
    return (_merge(slots, folded), int(given.sum())) if len(folded) else None


def unowned(slots: Slots, owners: OwnerTable) -> list[int]:
    """Return the numbers of processes that no slot has."""
    used = np.zeros(len(owners.owners), bool)
    for column in (slots.source_owner, slots.destination_owner):
        numbers = column[: slots.count]
        used[numbers[numbers >= 0]] = True
    return [number for number in np.flatnonzero(~used).tolist() if owners.owners[number].process is not None]


def _in_use(slots: Slots) -> Column:
    count = slots.count
    found: Column = (
        (slots.source_owner[:count] != NOBODY)
        | (slots.destination_owner[:count] != NOBODY)
        | (slots.passed_owner[:count] != NOBODY)
    )
    return found


def _merge(slots: Slots, chosen: Column) -> Column:
    to = np.arange(slots.count)
    if not len(chosen):
        return to
    keys = np.stack([getattr(slots, name)[chosen] for name in KEY], axis=1)
    _, first, number = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    number = number.reshape(-1)
    kept = chosen[first]
    for name in ("packets", "bytes", "open_packets", "open_bytes", "connections"):
        sums = np.zeros(len(kept), np.int64)
        np.add.at(sums, number, getattr(slots, name)[chosen])
        getattr(slots, name)[kept] = sums
    for name, extreme in (("first_ns", np.minimum), ("last_ns", np.maximum)):
        found = getattr(slots, name)[kept]
        extreme.at(found, number, getattr(slots, name)[chosen])
        getattr(slots, name)[kept] = found
    to[chosen] = kept[number]
    gone = np.setdiff1d(chosen, kept)
    _part_twins(slots, chosen)
    slots.folded[kept] = True
    slots.release(gone)
    return to


def _part_twins(slots: Slots, chosen: Column) -> None:
    is_chosen = np.zeros(slots.count, bool)
    is_chosen[chosen] = True
    twin = slots.twin[: slots.count]
    twin[(twin >= 0) & is_chosen[twin]] = NO_SLOT
    twin[chosen] = NO_SLOT
