"""The doctor says what works, exits accordingly, and has a cure for whatever does not."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

DOCTOR = [sys.executable, "-m", "pktproc", "doctor"]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]
CAPABILITIES = ("net_raw", "net_admin", "sys_ptrace", "dac_read_search", "sys_admin", "bpf", "perfmon")

Findings = dict[str, dict[str, Any]]


def examined(*prefix: str) -> tuple[int, bool, Findings, str]:
    """Exit code, verdict, rows by name, and what was said on stderr."""
    told = subprocess.run([*prefix, *DOCTOR, "--json"], capture_output=True, text=True, check=False, timeout=60)
    document = json.loads(told.stdout)
    return (
        told.returncode,
        document["sniffing_works"],
        {finding["what"]: finding for finding in document["findings"]},
        told.stderr,
    )


def test_root_can_sniff() -> None:
    code, works, findings, talk = examined()
    assert (code, works, talk) == (0, True, "")
    assert {"CAP_NET_RAW", "procfs", "netlink", "ebpf", "packet sockets", "scapy", "numpy"} <= set(findings)
    assert [what for what, finding in findings.items() if finding["needed"] and finding["state"] == "missing"] == []
    assert platform.release() in findings["release"]["detail"]
    assert importlib.metadata.version("scapy") in findings["scapy"]["detail"]
    assert "libpcap" in findings["cypcap"]["detail"]
    assert findings["capture ring (TPACKET_V3)"]["state"] == "ok"
    assert findings["network namespaces"]["state"] == "ok"


def test_nobody_cannot_and_is_told_the_cure() -> None:
    code, works, findings, talk = examined(*NOBODY)
    assert (code, works) == (3, False)
    (line,) = talk.splitlines()
    assert line.startswith("pktproc: ")
    assert "CAP_NET_RAW" in line
    assert "sudo" in line
    for what in ("CAP_NET_RAW", "CAP_SYS_PTRACE", "CAP_BPF", "packet sockets"):
        assert findings[what]["state"] == "missing"
    for what in ("open files of processes", "network namespaces", "netlink: sockets that end"):
        assert findings[what]["state"] == "limited"
    assert findings["netlink"]["state"] == "ok"


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_the_kernel_and_the_doctor_agree_which_capability_is_missing(capability: str) -> None:
    name = f"CAP_{capability.upper()}"
    _, _, before, _ = examined()
    code, works, after, _ = examined("setpriv", f"--inh-caps=-{capability}", f"--bounding-set=-{capability}")
    assert after[name]["state"] == "missing"
    assert (code, works) == ((3, False) if name == "CAP_NET_RAW" else (0, True))
    others = [what for what in before if what.startswith("CAP_") and what != name]
    assert len(others) == len(CAPABILITIES) - 1
    assert [after[what]["state"] for what in others] == [before[what]["state"] for what in others]


def test_what_a_missing_capability_spoils_is_found_by_trying() -> None:
    _, _, findings, _ = examined("setpriv", "--inh-caps=-net_admin", "--bounding-set=-net_admin")
    assert findings["netlink: sockets that end"]["state"] == "limited"
    assert "CAP_NET_ADMIN" in findings["netlink: sockets that end"]["detail"]


@pytest.mark.parametrize("prefix", [[], NOBODY], ids=["root", "nobody"])
def test_whatever_is_not_ok_has_a_cure(prefix: list[str]) -> None:
    _, _, findings, _ = examined(*prefix)
    for finding in findings.values():
        assert finding["state"] in ("ok", "limited", "missing")
        assert finding["detail"]
        assert ("cure" in finding) == (finding["state"] != "ok")
        assert None not in finding.values()


def test_without_a_terminal_there_are_plain_columns() -> None:
    told = subprocess.run(DOCTOR, capture_output=True, text=True, check=True, timeout=60)
    lines = told.stdout.splitlines()
    assert all(line.isascii() and line.isprintable() for line in lines)
    states = {line.index(match[0]) for line in lines if (match := re.search(r"  (ok|limited|missing) ", line))}
    assert len(states) == 1
    assert len(lines) == len(examined()[2])


def shown_on_a_terminal(columns: int) -> str:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
    with subprocess.Popen(DOCTOR, stdout=theirs, env=environment) as doctor:
        os.close(theirs)
        shown = b""
        while chunk := read_or_end(ours):
            shown += chunk
        assert doctor.wait(timeout=60) == 0
    os.close(ours)
    return shown.decode()


def test_on_a_terminal_there_is_a_table_in_colour() -> None:
    text = shown_on_a_terminal(200)
    assert "\x1b[32mok" in text
    assert "CAP_NET_RAW" in text
    assert "libraries" in text


def test_on_a_narrow_terminal_everything_stands_below_each_other_in_whole_words() -> None:
    lines = [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", shown_on_a_terminal(60)).splitlines()]
    assert max(map(len, lines)) <= 60
    assert "  CAP_NET_RAW: ok" in lines
    assert "    open packet sockets" in lines


def read_or_end(descriptor: int) -> bytes:
    """What a terminal shows next; empty when its last program has closed it, which Linux reports as EIO."""
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


def test_a_library_that_cannot_be_imported_is_missing(tmp_path: Path) -> None:
    (tmp_path / "cypcap.py").write_text("raise ImportError('libpcap.so.1: cannot open shared object file')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    told = subprocess.run([*DOCTOR, "--json"], capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert told.returncode == 3
    row = next(row for row in json.loads(told.stdout)["findings"] if row["what"] == "cypcap")
    assert row["state"] == "missing"
    assert "libpcap.so.1" in row["detail"]
    assert "pip install" in row["cure"]
    assert "cypcap" in told.stderr


def test_without_proc_the_doctor_still_answers() -> None:
    script = f"mount -t tmpfs none /proc && exec {sys.executable} -m pktproc doctor --json"
    told = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert told.returncode == 3, told.stderr
    findings = {row["what"]: row for row in json.loads(told.stdout)["findings"]}
    assert findings["procfs"]["state"] == "missing"
    assert findings["procfs"]["cure"] == "mount -t proc proc /proc"
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(("option", "hidden"), [("hidepid=2", True), ("hidepid=0", False)])
def test_hidden_processes_are_noticed(option: str, *, hidden: bool) -> None:
    command = " ".join([*NOBODY, *DOCTOR, "--json"])
    script = f"mount -t proc -o {option} proc /proc && exec {command}"
    told = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    findings = {row["what"]: row for row in json.loads(told.stdout)["findings"]}
    assert findings["processes in /proc"]["state"] == ("limited" if hidden else "ok")
    assert ("hidepid=" in findings["processes in /proc"]["detail"]) == hidden
