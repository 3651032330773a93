"""Judge attributions against what the programs said about themselves: right, unknown or wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bed.sniff import Packet, end_of

End = tuple[str, str, int]
"""Transport, address and port of an end."""
Truth = Mapping[End, int | None]
"""The pid that uses an end; None for an end that no process uses (the kernel's own)."""
SIDES = ("source", "destination")


@dataclass(repr=False)
class Verdict:
    """Count the judged ends; `unknown` counts by reason, `examples` and `unknowns` hold the others, readable.

    `shared` counts those where another holder of a socket is named than the right one, which is listed with it.
    """

    right: int = 0
    shared: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    examples: list[str] = field(default_factory=list)
    unknowns: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Return how many ends were judged."""
        return self.right + self.shared + self.unknown.total() + self.wrong

    def add(self, packet: Packet, side: str, expected: int | None) -> None:
        """Judge one end of one packet."""
        answer = packet.get("pktproc", {}).get(side)
        text = f"{_describe(packet)}: {side} is {answer}, expected pid {expected}"
        if answer is None or "process" not in answer:
            self._nameless("absent" if answer is None else answer["reason"], expected, text)
            return
        if answer["process"]["pid"] == expected:
            self.right += 1
        elif answer["match"] == "shared" and expected in {holder["pid"] for holder in answer["holders"]}:
            self.shared += 1
            self.unknowns.append(f"shared: {text}")
        else:
            self.wrong += 1
            self.examples.append(text)

    def _nameless(self, reason: str, expected: int | None, text: str) -> None:
        if expected is None:
            self.right += 1
        else:
            self.unknown[reason] += 1
            self.unknowns.append(f"{reason}: {text}")

    def __repr__(self) -> str:
        examples = "\n".join(self.examples[:5] + self.unknowns[:5])
        return f"right {self.right}, shared {self.shared}, unknown {dict(self.unknown)}, wrong {self.wrong}\n{examples}"


def _describe(packet: Packet) -> str:
    ends = " > ".join(":".join(map(str, packet[side].values())) for side in SIDES)
    return f"{packet['@timestamp']} {packet['network'].get('transport')} {ends} {packet['network']['bytes']} bytes"


def judge(packets: Iterable[Packet], truth: Truth) -> Verdict:
    """Return the verdict over every packet end that `truth` knows."""
    verdict = Verdict()
    for packet in packets:
        for side in SIDES:
            transport, address, port = end_of(packet, side)
            if transport and address and port is not None and (transport, address, port) in truth:
                verdict.add(packet, side, truth[transport, address, port])
    return verdict


def judge_processes(packets: Iterable[Packet], truth: Truth) -> Verdict:
    """Return the verdict over the ends that `truth` knows, each counted once however many packets it has.

    An end with any packet wrong is wrong; it is right when all its packets are, and shared when the rest of them are.
    One with only some packets named is unknown as `partly`, one that no packet shows as `unseen`.
    """
    packets = list(packets)
    by_end: dict[End, Verdict] = {end: Verdict() for end in truth}
    for packet in packets:
        for side in SIDES:
            transport, address, port = end_of(packet, side)
            if transport and address and port is not None and (transport, address, port) in by_end:
                key = transport, address, port
                by_end[key].add(packet, side, truth[key])
    total = Verdict()
    for one in by_end.values():
        total.examples += one.examples
        if one.wrong:
            total.wrong += 1
        elif one.right == one.total > 0:
            total.right += 1
        elif one.right + one.shared == one.total > 0:
            total.shared += 1
        else:
            reason = (
                "partly" if one.right + one.shared else "unseen" if not one.total else one.unknown.most_common(1)[0][0]
            )
            total.unknown[reason] += 1
            total.unknowns += one.unknowns[:1]
    return total


def fully_named(packets: Iterable[Packet], truth: Truth, *, shared: int = 0) -> Verdict:
    """Return the verdict over every packet end that `truth` knows; AssertionError unless all but `shared` are right.

    So many at most may be named as another holder of the same socket.
    """
    verdict = judge(packets, truth)
    assert verdict.total > 0, f"no packet of {truth}"
    assert verdict.wrong == 0, verdict
    assert verdict.unknown.total() == 0, verdict
    assert verdict.shared <= shared, verdict
    return verdict


def processes_at(packets: Iterable[Packet], address: str) -> list[tuple[int, str]]:
    """Return pid and name of the process at an address in each packet that has it; AssertionError where none is."""
    processes = []
    for packet in packets:
        for side in SIDES:
            if packet[side]["ip"] == address:
                answer = packet.get("pktproc", {}).get(side, {})
                assert "process" in answer, f"{_describe(packet)}: {side} is {answer}"
                processes.append((answer["process"]["pid"], answer["process"]["name"]))
    return processes
