"""`pktproc sniff` as a user runs it: a child process whose lines are collected."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

from bed.namespaces import Namespace
from bed.program import TIMEOUT, Command

Packet = dict[str, Any]


class Captured(NamedTuple):
    """What a finished capture left: the packets in order and all of the talk on standard error."""

    packets: list[Packet]
    talk: str


def pktproc_command(*arguments: object) -> list[str]:
    """Return the command line of the pktproc that belongs to the running interpreter."""
    return [sys.executable, "-m", "pktproc", *map(str, arguments)]


class Sniff(Command):
    """Run `pktproc sniff --json`; leaving the constructor means that the capture is running, unless it is not to wait.

    `on` gives namespaces for `--netns`, `inside` starts the whole of pktproc in a namespace instead. Captured is
    `interface`, by default the veth end of the one namespace, every interface of several, and pktproc's own default of
    none. `prefix` is put before the command line (setpriv, strace).
    """

    def __init__(
        self,
        *arguments: object,
        on: Namespace | Sequence[Namespace] = (),
        inside: Namespace | None = None,
        interface: str | None = None,
        prefix: Sequence[str] = (),
        json_lines: bool = True,
        waits: bool = True,
    ) -> None:
        spaces = (on,) if isinstance(on, Namespace) else tuple(on)
        options = ["--json"] if json_lines else []
        for space in spaces:
            options += ["--netns", space.name]
        options += _interface_option(interface, (*spaces, inside) if inside else spaces)
        super().__init__([*prefix, *pktproc_command("sniff", *options, *arguments)], inside)
        if waits:
            self.listening()

    def listening(self) -> Self:
        """Wait until the capture is running; AssertionError when it does not start."""
        if not self.stderr.find(lambda line: "listening" in line.lower(), 1, TIMEOUT):
            self.close()
            raise AssertionError(f"the capture did not start: {self.describe()}")
        return self

    def packets(self) -> list[Packet]:
        """Return the packets that were printed until now."""
        return [parse(line) for line in self.stdout.so_far()]

    def wait_for(self, wanted: Callable[[Packet], bool], count: int = 1, timeout: float = TIMEOUT) -> None:
        """Wait until `count` wanted packets were printed; AssertionError when they were not in time."""
        if not self.stdout.find(lambda line: wanted(parse(line)), count, timeout):
            raise AssertionError(f"fewer than {count} such packets: {self.describe()}")

    def stop(self) -> Captured:
        """Interrupt as Ctrl-C does and return what was captured; AssertionError unless that is a normal end."""
        self.child.send_signal(signal.SIGINT)
        return self.ended()

    def ended(self) -> Captured:
        """Wait for the capture's own end (`-c`, `--duration`, `-- COMMAND`) and return what was captured."""
        code = self.finish()
        assert code == 0, self.describe()
        talk = "\n".join(self.stderr.so_far())
        assert "Traceback" not in talk, talk
        return Captured(self.packets(), talk)


@contextmanager
def sniffing_both(
    *arguments: object, on: tuple[Namespace, Namespace], kind: type[Sniff] = Sniff
) -> Iterator[tuple[Sniff, Sniff]]:
    """Capture the same in two namespaces, by two sniffers that start together."""
    near, far = on
    with kind(*arguments, on=near, waits=False) as first, kind(*arguments, on=far, waits=False) as second:
        yield first.listening(), second.listening()


def _interface_option(interface: str | None, spaces: Sequence[Namespace]) -> list[str]:
    if interface is None and not spaces:
        return []
    return ["-i", interface or (spaces[0].interface if len(spaces) == 1 else "any")]


def parse(line: str) -> Packet:
    """Return the packet that a line describes; AssertionError for a line that is not one JSON object."""
    try:
        packet = json.loads(line)
    except json.JSONDecodeError as error:
        raise AssertionError(f"{error}: {line!r}") from None
    assert isinstance(packet, dict), line
    return packet


def sends(transport: str, address: str, port: int) -> Callable[[Packet], bool]:
    """Return the test for packets from an address and port."""
    return lambda packet: end_of(packet, "source") == (transport, address, port)


def end_of(packet: Packet, side: str) -> tuple[str | None, str | None, int | None]:
    """Return one end as (transport, address, port), None for what the packet does not have."""
    end = packet.get(side, {})
    return packet.get("network", {}).get("transport"), end.get("ip"), end.get("port")
