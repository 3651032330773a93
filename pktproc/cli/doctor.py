"""`pktproc doctor`: what works here, what does not, and the cure."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from pktproc.errors import Denied, Unsupported
from pktproc.kernel.ebpf.examination import examine_flow_cache, examine_hooks
from pktproc.kernel.probe import Finding, State, examine
from pktproc.version import __version__

if TYPE_CHECKING:
    from rich.console import Console

_LIBRARIES = {
    "scapy": ("scapy.config", "opens capture sockets and dissects packets"),
    "numpy": ("numpy", "decodes blocks of packets"),
    "cypcap": ("cypcap", "compiles filters"),
    "cachetools": ("cachetools", "keeps the index of sockets"),
    "communityid": ("communityid", "names flows in JSON"),
    "rich": ("rich.console", "shows tables on a terminal"),
}
_PRIVILEGES = frozenset({"CAP_NET_RAW", "packet sockets"})
_STYLES = {State.OK: "green", State.LIMITED: "yellow", State.MISSING: "red"}
_TABLE_WIDTH = 100
"""Columns of the narrowest terminal on which four texts beside each other can be read."""
_COLUMNS = ("area", "what", "state", "detail", "cure")


@click.command(epilog="Exit code 0 if `pktproc sniff` would work here, 3 if not.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of a table.")
def command(*, as_json: bool) -> None:
    """Show what this machine permits, and the cure for what it does not.

    Privileges, engines, libraries and kernel features are tried, and each row says how it went: ok, limited (sniffing
    works, but knows less) or missing.
    """
    findings = [*_with_hooks(examine()), *libraries()]
    lacking = [finding for finding in findings if finding.needed and finding.state is State.MISSING]
    if as_json:
        click.echo(_document(findings, works=not lacking))
    elif sys.stdout.isatty():
        _show_table(findings)
    else:
        click.echo(_columns(findings))
    if lacking:
        names = ", ".join(finding.what for finding in lacking)
        error = Denied if _PRIVILEGES.issuperset(finding.what for finding in lacking) else Unsupported
        raise error(f"sniffing does not work here for lack of {names}: {lacking[0].cure}")


def _with_hooks(findings: list[Finding]) -> list[Finding]:
    """Put what eBPF can do in the place of the row that announces it."""
    at = next(index for index, finding in enumerate(findings) if finding.what == "ebpf")
    return [*findings[:at], *examine_hooks(), examine_flow_cache(), *findings[at + 1 :]]


def libraries() -> list[Finding]:
    """Return a finding for each library that pktproc is built on, by importing it; numpy and the like are needed."""
    return [_library(name, module, purpose) for name, (module, purpose) in _LIBRARIES.items()]


def _library(name: str, module: str, purpose: str) -> Finding:
    cure = f"{sys.executable} -m pip install --upgrade {name}"
    needed = name != "rich"
    try:
        imported = importlib.import_module(module)
        version = importlib.metadata.version(name)
    except Exception as error:  # noqa: BLE001 - a broken installation may raise anything at import
        detail = f"{purpose}; import failed: {type(error).__name__}: {error}"
        return Finding("libraries", name, State.MISSING, detail, cure, needed)
    detail = f"{version}, {purpose}"
    if name == "cypcap":
        detail = f"{detail}, {imported.lib_version()}"
    return Finding("libraries", name, State.OK, detail, needed=needed)


def _document(findings: Sequence[Finding], *, works: bool) -> str:
    rows = [{key: value for key, value in asdict(finding).items() if value is not None} for finding in findings]
    return json.dumps({"version": __version__, "sniffing_works": works, "findings": rows}, indent=2)


def _row(finding: Finding) -> tuple[str, ...]:
    values = asdict(finding)
    return tuple(str(values[column] or "") for column in _COLUMNS)


def _columns(findings: Sequence[Finding]) -> str:
    """Return one line for each finding, in columns as wide as their longest entry; the cure follows the detail."""
    rows = [_row(finding) for finding in findings]
    widths = [max(len(row[index]) for row in rows) for index in range(3)]
    lines = []
    for row in rows:
        start = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=False))
        lines.append(f"{start}  {row[3]}" + (f" -> {row[4]}" if row[4] else ""))
    return "\n".join(lines)


def _show_table(findings: Sequence[Finding]) -> None:
    try:
        from rich import box  # noqa: PLC0415
        from rich.console import Console  # noqa: PLC0415 - only for a terminal, and the doctor works without it
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415
    except ImportError:
        click.echo(_columns(findings))
        return
    console = Console()
    if console.width < _TABLE_WIDTH:
        _show_list(console, findings)
        return
    table = Table(*_COLUMNS[1:], box=box.SIMPLE_HEAD)
    area = ""
    for finding in findings:
        if finding.area != area:
            table.add_section()
            area = finding.area
            table.add_row(Text(area, style="bold"))
        _, what, state, detail, cure = _row(finding)
        table.add_row(Text(f"  {what}"), Text(state, style=_STYLES[finding.state]), Text(detail), Text(cure))
    console.print(table)


def _show_list(console: Console, findings: Sequence[Finding]) -> None:
    """Print what a table has beside each other one below the other, each text as wide as the terminal."""
    from rich.padding import Padding  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    area = ""
    for finding in findings:
        if finding.area != area:
            area = finding.area
            console.print(Text(area, style="bold"))
        _, what, state, detail, cure = _row(finding)
        console.print(Text.assemble(f"  {what}: ", (state, _STYLES[finding.state])))
        console.print(Padding(Text(detail), (0, 0, 0, 4)))
        if cure:
            console.print(Padding(Text(f"-> {cure}"), (0, 0, 0, 4)))
