"""The command line of `pktproc top`, as far as that needs no privilege."""

from __future__ import annotations

import ast
import subprocess
import sys
from typing import Any

import click
import pytest

from pktproc.cli.top import command
from pktproc.cli.top_options import GROUPS, TopOptions
from pktproc.errors import UsageError
from pktproc.tui.row_columns import GROUPS as SCREEN_GROUPS


def parsed(*arguments: str) -> TopOptions:
    context = command.make_context("top", list(arguments))
    chosen: dict[str, Any] = dict(context.params)
    return TopOptions.of(chosen.pop("words"), chosen)


def test_the_defaults() -> None:
    options = parsed()
    assert options.interfaces == ("any",)
    assert (options.group, options.units, options.layer, options.engine) == ("process", "iec", "wire", "auto")
    assert (options.delay_ns, options.count, options.batch, options.numeric) == (10**9, None, False, False)
    assert options.selection.everything


@pytest.mark.parametrize(
    ("arguments", "numeric", "count", "words"),
    [
        (["-n"], True, None, ""),
        (["-n", "tcp", "port", "443"], True, None, "tcp port 443"),
        (["-n", "-i", "eth0"], True, None, ""),
        (["--numeric", "udp"], True, None, "udp"),
        (["--batch", "-n", "5"], False, 5, ""),
        (["-b", "-n5", "udp"], False, 5, "udp"),
        (["-bn3"], False, 3, ""),
        (["-bn", "3"], False, 3, ""),
        (["-bn", "udp"], True, None, "udp"),
        (["-nb"], True, None, ""),
        (["-b", "-n", "2", "-n", "udp"], True, 2, "udp"),
    ],
)
def test_n_is_tcpdumps_without_a_number_and_tops_with_one(
    arguments: list[str], numeric: bool, count: int | None, words: str
) -> None:
    options = parsed(*arguments)
    assert (options.numeric, options.count, options.expression) == (numeric, count, words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["-n", "5"], "add --batch"), (["--format", "json"], "for --batch"), (["--user", "nobody-such"], "no user")],
)
def test_what_does_not_go_together_is_refused(arguments: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parsed(*arguments)


@pytest.mark.parametrize(
    "arguments", [["--by", "pid"], ["-d", "0"], ["-d", "soon"], ["-b", "-n", "0"], ["--format", "xml"]]
)
def test_nonsense_is_refused(arguments: list[str]) -> None:
    with pytest.raises(click.UsageError):
        parsed(*arguments)


def test_the_options_name_the_groups_of_the_screen() -> None:
    assert list(SCREEN_GROUPS) == list(GROUPS)


@pytest.mark.parametrize("arguments", [["--help"], ["top", "--help"], ["top", "--by", "nothing"]])
def test_textual_is_imported_only_for_the_screen(arguments: list[str]) -> None:
    body = f"""
import sys
from pktproc.cli import main
try:
    main({arguments!r})
finally:
    print(sorted(sys.modules), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=False)
    loaded = {name.partition(".")[0] for name in ast.literal_eval(done.stderr.splitlines()[-1])}
    assert "click" in loaded
    assert not loaded & {"textual", "rich", "numpy", "scapy"}
