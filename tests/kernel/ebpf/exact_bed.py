"""The bed for the engine `ebpf`: its programs, and the sniffer with this engine."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bed.namespaces import Namespace
from bed.program import Command, Program, program_environment
from bed.sniff import Sniff

PROGRAMS = Path(__file__).parent / "programs"


class ExactProgram(Program):
    """Run one of `kernel.ebpf.programs`."""

    def __init__(self, name: str, *arguments: object, namespace: Namespace | None = None) -> None:
        command = [sys.executable, "-S", "-m", f"kernel.ebpf.programs.{name}", *map(str, arguments)]
        Command.__init__(self, command, namespace, program_environment())


class ExactSniff(Sniff):
    """Run `pktproc sniff --json --engine ebpf`."""

    def __init__(
        self,
        *arguments: object,
        on: Namespace | Sequence[Namespace] = (),
        interface: str | None = None,
        **others: Any,
    ) -> None:
        prefix = [sys.executable, str(PROGRAMS / "exact.py")]
        super().__init__("--engine", "ebpf", *arguments, on=on, interface=interface, prefix=prefix, **others)
