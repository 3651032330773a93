"""The front door: help at once, one line for every error, exit codes, and quiet ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pktproc.cli import COMMANDS
from pktproc.version import __version__

PKTPROC = [sys.executable, "-m", "pktproc"]
FINE, FAILED, USAGE, MISSING, INTERRUPTED = 0, 1, 2, 3, 130

# A command of its own beside those of pktproc: the errors are real, and so is all that becomes of them.
PROGRAM = """
import os, signal, sys, types
import click
from pktproc import cli, errors

@click.command()
def command():
    print("output")
    {body}

cli.COMMANDS["added"] = "Added."
sys.modules["pktproc.cli.added"] = types.SimpleNamespace(command=command)
cli.main(["added"])
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PKTPROC, *arguments], capture_output=True, text=True, check=False, timeout=60)


def run_body(body: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(body=body)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pktproc", "--help"], capture_output=True, text=True, check=True
    )
    assert "sniff" in told.stdout
    assert "doctor" in told.stdout
    assert "pktproc sniff -- curl" in told.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in told.stderr.splitlines()}
    assert "click" in imported
    assert not imported & {"numpy", "scapy", "rich", "cachetools", "communityid", "cypcap"}


def test_version() -> None:
    assert run("--version").stdout.split()[-1] == __version__


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nosuch"], "nosuch"),
        (["--nosuch"], "--nosuch"),
        (["doctor", "--nosuch"], "--nosuch"),
        (["doctor", "surplus"], "surplus"),
    ],
)
def test_wrong_use_is_one_line_with_exit_code_2(arguments: list[str], named: str) -> None:
    told = run(*arguments)
    assert told.returncode == USAGE
    assert told.stdout == ""
    (line,) = told.stderr.splitlines()
    assert line.startswith("pktproc: ")
    assert named in line
    assert "--help" in line


def test_no_command_shows_the_help_as_wrong_use() -> None:
    told = run()
    assert told.returncode == USAGE
    assert told.stdout == ""
    assert "Commands:" in told.stderr


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        ('errors.CaptureError("eth7 went away\\nand stays away")', FAILED, "eth7 went away and stays away"),
        ('errors.StoreError("not a store")', FAILED, "not a store"),
        ('errors.FormatError("cut", path="x", offset=3)', FAILED, "cut"),
        ('errors.EngineError("no answer")', FAILED, "no answer"),
        ('errors.UsageError("no interface nosuch0")', USAGE, "no interface nosuch0"),
        ('errors.Denied("needs CAP_NET_RAW: use sudo")', MISSING, "needs CAP_NET_RAW: use sudo"),
        ('errors.Unsupported("no TPACKET_V3")', MISSING, "no TPACKET_V3"),
        ('click.ClickException("said by click.")', FAILED, "said by click"),
        ('FileNotFoundError(2, "No such file or directory", "filter")', FAILED, "filter: No such file or directory"),
        ('OSError("out of luck")', FAILED, "out of luck"),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(error: str, code: int, said: str) -> None:
    told = run_body(f"raise {error}")
    assert told.returncode == code
    assert told.stdout == "output\n"
    assert told.stderr == f"pktproc: {said}\n"


def test_a_command_that_returns_is_fine() -> None:
    told = run_body("return")
    assert (told.returncode, told.stdout, told.stderr) == (FINE, "output\n", "")


def test_ctrl_c_ends_quietly() -> None:
    told = run_body("signal.raise_signal(signal.SIGINT)")
    assert (told.returncode, told.stderr) == (INTERRUPTED, "")


def test_a_bug_keeps_its_traceback() -> None:
    told = run_body("raise ZeroDivisionError")
    assert told.returncode == FAILED
    assert "Traceback" in told.stderr


@pytest.mark.parametrize(
    "body",
    ["while True: print('more')", "return", "print('more', flush=True)", "raise BrokenPipeError(32, 'Broken pipe')"],
)
def test_a_closed_pipe_ends_quietly(body: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        told = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(body=body)],
            stdout=writing,
            stderr=subprocess.PIPE,
            check=False,
            timeout=60,
        )
    finally:
        os.close(writing)
    assert (told.returncode, told.stderr) == (FINE, b"")


def test_help_into_a_closed_pipe_ends_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    told = subprocess.run([*PKTPROC, "--help"], stdout=writing, stderr=subprocess.PIPE, check=False, timeout=60)
    os.close(writing)
    assert (told.returncode, told.stderr) == (FINE, b"")


def test_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        told = subprocess.run([*PKTPROC, "doctor"], stdout=full, stderr=subprocess.PIPE, check=False, timeout=60)
    assert told.returncode == FAILED
    assert told.stderr == b"pktproc: cannot write the output: no space left on the device\n"


def test_bash_completes_commands() -> None:
    told = subprocess.run(
        PKTPROC,
        env={**os.environ, "_PKTPROC_COMPLETE": "bash_complete", "COMP_WORDS": "pktproc s", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert told.stdout.split() == [f"plain,{name}" for name in COMMANDS if name.startswith("s")]
    assert "plain,sniff" in told.stdout.split()
