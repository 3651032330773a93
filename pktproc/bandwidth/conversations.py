"""From flows to slots: where the bytes of a flow belong now, and what becomes of earlier ones when the answer changes.

An answer that names another process begins a new slot: ports are used again, and what the one sent is not the other's.
A name that arrives late takes the earlier bytes with it only where nothing can have come in between: no SYN, not long
ago, and no reason that means that the earlier packets were somebody else's.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat

from pktproc.attribution.answers import AttributedBatch
from pktproc.bandwidth.ends import Accounts, accounts
from pktproc.bandwidth.owners import NOBODY, OwnerTable
from pktproc.bandwidth.slots import NO_SLOT, Slots
from pktproc.model import DATAGRAM, Attribution, Direction, Flow, Interface, Protocol, Reason, make_flow

_NS_PER_S = 1_000_000_000
FOLLOWS_WITHIN_NS = 60 * _NS_PER_S
"""How long after its last packet a TCP connection is still taken for the same one."""
DATAGRAM_FOLLOWS_WITHIN_NS = 2 * _NS_PER_S
_MAX_CHAIN = 8
# What these say is that nobody was found yet, while `closed` and `ambiguous` speak of a change of owner.
_MAY_BE_NAMED = frozenset({Reason.NO_SOCKET, Reason.PERMISSION, Reason.NOT_COVERED})
_OPPOSITE = {
    int(Direction.INCOMING): int(Direction.OUTGOING),
    int(Direction.OUTGOING): int(Direction.INCOMING),
}
_ECHO = {(1, 8): 0, (1, 0): 8, (58, 128): 129, (58, 129): 128}


class Conversations:
    """Find the slot of each flow; `interfaces` and `addresses` are what the slots' numbers stand for."""

    def __init__(self, slots: Slots, owners: OwnerTable) -> None:
        self._slots = slots
        self._owners = owners
        self._current: dict[Flow, int] = {}
        self._flow: list[Flow | None] = []
        self._source: list[Attribution | None] = []
        self._destination: list[Attribution | None] = []
        self._previous: list[int] = []
        self._interface_of: dict[tuple[int, int], int] = {}
        self._address_of: dict[bytes, int] = {}
        self.interfaces: list[Interface] = []
        self.addresses: list[bytes] = []

    def __len__(self) -> int:
        return len(self._current)

    def flows(self) -> list[Flow]:
        """Return the flows that have a slot."""
        return list(self._current)

    def find(
        self,
        attributed: AttributedBatch,
        positions: list[int],
        first_ns: list[int],
        began: frozenset[int],
        is_copy: Callable[[Flow], bool] | None = None,
    ) -> list[int]:
        """Return the slots of some of a block's flows.

        `first_ns` has the time of each one's first packet; `began` are the positions of those with a SYN. `is_copy`
        says of a new flow whether its connection was counted on another interface.
        """
        flows, sources, destinations = attributed.flows, attributed.source, attributed.destination
        if len(positions) != len(flows):
            flows = [flows[position] for position in positions]
            sources = [sources[position] for position in positions]
            destinations = [destinations[position] for position in positions]
        found = list(map(self._current.get, flows, repeat(NO_SLOT)))
        sources_of, destinations_of = self._source, self._destination
        changed = [
            at
            for at, (slot, source, destination) in enumerate(zip(found, sources, destinations, strict=True))
            if slot < 0 or sources_of[slot] is not source or destinations_of[slot] is not destination
        ]
        if began:
            changed = sorted({*changed, *(at for at, position in enumerate(positions) if position in began)})
        for at in changed:
            position, time_ns = positions[at], first_ns[at]
            slot = self._current.get(flows[at], NO_SLOT)  # which an earlier stretch of the flow may have changed
            if slot < 0:
                counted = is_copy is None or not is_copy(flows[at])
                found[at] = self._begin(attributed, position, time_ns, counted=counted)
            elif position in began:
                found[at] = self._begin_again(slot, attributed, position, time_ns)
            else:
                found[at] = self._settle(slot, attributed, position, time_ns)
        return found

    def forget(self, slots: list[int]) -> None:
        """Forget slots that are given up."""
        for slot in slots:
            flow = self._flow[slot] if slot < len(self._flow) else None
            if flow is not None:
                if self._current.get(flow) == slot:
                    del self._current[flow]
                self._flow[slot] = None
                self._source[slot] = self._destination[slot] = None
                self._previous[slot] = NO_SLOT

    def _settle(self, slot: int, attributed: AttributedBatch, position: int, time_ns: int) -> int:
        """Return the slot for a flow whose answers are not the same objects as before."""
        ends = attributed.source[position], attributed.destination[position]
        new, old = accounts(attributed.flows[position], *ends, self._owners), self._accounts(slot)
        if new == old:
            self._source[slot], self._destination[slot] = ends
            return slot
        if self._follows(slot, old, new, attributed.flows[position], time_ns):
            self._write(slot, new)
            self._source[slot], self._destination[slot] = ends
            twin = int(self._slots.twin[slot])
            if twin >= 0 and self._is_way_back(twin, new):
                self._slots.connections[slot] = 0
            return slot
        earlier = self._earlier(slot, new, ends)
        return self._begin(attributed, position, time_ns, previous=slot) if earlier < 0 else earlier

    def _begin_again(self, slot: int, attributed: AttributedBatch, position: int, time_ns: int) -> int:
        """Return the slot for a flow with a SYN: unknown bytes of the connection before it must not follow a name."""
        slots = self._slots
        ends = attributed.source[position], attributed.destination[position]
        old, new = self._accounts(slot), accounts(attributed.flows[position], *ends, self._owners)
        ended = bool(slots.ended[slot])
        if new == old and not self._open_question(old):
            slots.connections[slot] += ended
            slots.ended[slot] = False
            self._source[slot], self._destination[slot] = ends
            return slot
        return self._begin(attributed, position, time_ns, previous=slot, counted=ended or old != new)

    def _begin(
        self, attributed: AttributedBatch, position: int, time_ns: int, *, previous: int = NO_SLOT, counted: bool = True
    ) -> int:
        flow, slots = attributed.flows[position], self._slots
        ends = attributed.source[position], attributed.destination[position]
        slot = slots.new()
        while len(self._flow) <= slot:
            self._flow.append(None)
            self._source.append(None)
            self._destination.append(None)
            self._previous.append(NO_SLOT)
        new = accounts(flow, *ends, self._owners)
        self._write(slot, new)
        self._flow[slot], self._previous[slot] = flow, previous
        self._source[slot], self._destination[slot] = ends
        self._current[flow] = slot
        slots.interface[slot] = self._interface(attributed, position)
        slots.protocol[slot], slots.ethertype[slot] = flow.protocol, flow.ethertype
        slots.source_address[slot] = self._address(flow.source_address)
        slots.destination_address[slot] = self._address(flow.destination_address)
        slots.source_port[slot], slots.destination_port[slot] = flow.source_port, flow.destination_port
        slots.first_ns[slot] = slots.last_ns[slot] = time_ns
        twin = self._current.get(_way_back(flow), NO_SLOT)
        if twin >= 0 and twin != slot:
            slots.twin[slot], slots.twin[twin] = twin, slot
            counted = counted and not self._is_way_back(twin, new)
        slots.connections[slot] = int(counted)
        return slot

    def _accounts(self, slot: int) -> Accounts:
        slots = self._slots
        return Accounts(
            int(slots.source_owner[slot]), int(slots.destination_owner[slot]), int(slots.passed_owner[slot])
        )

    def _write(self, slot: int, new: Accounts) -> None:
        slots = self._slots
        slots.source_owner[slot], slots.destination_owner[slot], slots.passed_owner[slot] = new

    def _is_way_back(self, twin: int, new: Accounts) -> bool:
        back = self._accounts(twin)
        return back == Accounts(new.destination, new.source, new.passed)

    def _earlier(self, slot: int, wanted: Accounts, ends: tuple[Attribution | None, Attribution | None]) -> int:
        """Return the slot that the flow had with these accounts before, `NO_SLOT` for none or open questions."""
        if self._open_question(wanted):
            return NO_SLOT
        flow = self._flow[slot]
        for _ in range(_MAX_CHAIN):
            slot = self._previous[slot]
            if slot < 0 or self._flow[slot] != flow:
                return NO_SLOT
            if flow is not None and self._accounts(slot) == wanted:
                self._current[flow] = slot
                self._source[slot], self._destination[slot] = ends
                return slot
        return NO_SLOT

    def _open_question(self, of: Accounts) -> bool:
        return any(
            number != NOBODY and self._owners.owners[number].reason in _MAY_BE_NAMED
            for number in (of.source, of.destination)
        )

    def _follows(self, slot: int, old: Accounts, new: Accounts, flow: Flow, time_ns: int) -> bool:
        """Say whether the bytes of a slot are those of the processes that are named now."""
        slots, owners = self._slots, self._owners.owners
        if old.passed != NOBODY or new.passed != NOBODY:
            return False
        last_ns, twin = int(slots.last_ns[slot]), int(slots.twin[slot])
        within_ns = FOLLOWS_WITHIN_NS if flow.protocol == Protocol.TCP else DATAGRAM_FOLLOWS_WITHIN_NS
        if time_ns - last_ns > within_ns or (twin >= 0 and int(slots.syn_ns[twin]) > last_ns):
            return False
        for before, after in ((old.source, new.source), (old.destination, new.destination)):
            if before == after:
                continue
            if NOBODY in (before, after) or owners[after].process is None:
                return False
            if owners[before].reason not in _MAY_BE_NAMED:
                return False
        # Datagrams may have come to a port before anybody was there to read them; what was sent there answers that.
        arrived = old.destination != new.destination and flow.protocol in DATAGRAM
        return not arrived or (twin >= 0 and int(slots.first_ns[twin]) <= int(slots.first_ns[slot]))

    def _interface(self, attributed: AttributedBatch, position: int) -> int:
        flow = attributed.flows[position]
        identity = flow.netns, flow.ifindex
        number = self._interface_of.get(identity)
        if number is None:
            number = self._interface_of[identity] = len(self.interfaces)
            batch = attributed.batch
            self.interfaces.append(batch.interfaces[int(batch.interface[int(attributed.first[position])])])
        return number

    def _address(self, address: bytes) -> int:
        number = self._address_of.get(address)
        if number is None:
            number = self._address_of[address] = len(self.addresses)
            self.addresses.append(address)
        return number


def _way_back(flow: Flow) -> Flow:
    """Return the flow of the answers to a flow."""
    return make_flow(
        (
            flow.netns,
            flow.ifindex,
            _OPPOSITE.get(flow.direction, flow.direction),
            flow.protocol,
            flow.destination_address,
            flow.destination_port,
            flow.source_address,
            flow.source_port,
            flow.ethertype,
            _ECHO.get((flow.protocol, flow.icmp_type), flow.icmp_type),
            flow.ports_known,
            flow.quoted,
        )
    )
