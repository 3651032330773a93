"""Which ends of a flow its bytes are counted at, and for whom."""

from __future__ import annotations

from typing import NamedTuple

from pktproc.bandwidth.owners import NOBODY, OwnerTable
from pktproc.model import Attribution, Direction, Flow, Reason


class Accounts(NamedTuple):
    """The numbers of the owners who sent and received; `passed` is that of the reason where no end is here."""

    source: int = NOBODY
    destination: int = NOBODY
    passed: int = NOBODY


def accounts(flow: Flow, source: Attribution | None, destination: Attribution | None, owners: OwnerTable) -> Accounts:
    """Return the accounts of a flow whose ends were answered so.

    Where neither end was answered, the packet's direction still tells which one is here. Without a direction, or with
    another host's at both ends, the bytes passed.
    """
    if source is not None and destination is not None and source.reason == destination.reason:
        # What these two reasons say at both ends is that no end is known to be here.
        if source.reason is Reason.FORWARDED:
            return Accounts(passed=owners.number(Reason.FORWARDED))
        if source.reason is Reason.NOT_IP and flow.direction != Direction.LOOPBACK:
            return Accounts(passed=owners.number(Reason.NOT_IP))
    here, there = _owner(source, owners), _owner(destination, owners)
    if here == there == NOBODY:
        return _unanswered(flow, owners)
    return Accounts(here, there)


def _owner(end: Attribution | None, owners: OwnerTable) -> int:
    if end is None or end.reason is Reason.FORWARDED:
        return NOBODY
    if end.process is not None:
        return owners.number(end.process)
    return owners.number(end.reason or Reason.NOT_COVERED)


def _unanswered(flow: Flow, owners: OwnerTable) -> Accounts:
    if flow.direction == Direction.PASSING and flow.protocol >= 0:
        return Accounts(passed=owners.number(Reason.FORWARDED))
    number = owners.number(Reason.NOT_IP if flow.protocol < 0 else Reason.NOT_COVERED)
    if flow.direction == Direction.OUTGOING:
        return Accounts(source=number)
    if flow.direction == Direction.INCOMING:
        return Accounts(destination=number)
    if flow.direction == Direction.LOOPBACK:
        return Accounts(number, number)
    return Accounts(passed=number)
