"""`pktproc sockets` at the command line: help, wrong use, forms, and what a terminal gets."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import socket
import subprocess
import sys

import pytest

from pktproc.cli.sockets_options import is_signal
from pktproc.listing import Looker, Question
from pktproc.output.socket_ends import Ends
from pktproc.output.socket_table import Look, drawn, holder_text, label, table

PKTPROC = [sys.executable, "-m", "pktproc", "sockets"]
SGR = re.compile(r"\x1b\[\d*m")


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PKTPROC, *words], capture_output=True, text=True, check=False, timeout=60)


def on_a_terminal(*words: str, columns: int) -> str:
    script = f"unset COLUMNS; stty cols {columns}; {' '.join([*PKTPROC, *words])}"
    done = subprocess.run(
        ["script", "-qec", script, "/dev/null"], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.replace("\r", "")


def test_help_answers_the_three_questions() -> None:
    told = run("--help").stdout
    for words in (
        "who holds port 9000?",
        "each fd of a process, and who is at the other end",
        "both ends of this unix",
    ):
        assert words in told


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--kill"], "--kill"),
        (["--close"], "--close"),
        (["--watch", "1", "--events"], "--watch"),
        (["-s", "--kill", ":80"], "--kill"),
        (["--kill=NOSUCH", ":80"], "NOSUCH"),
        (["--netns", "nosuch"], "nosuch"),
        (["--user", "nosuch"], "nosuch"),
        (["sport", "=", "nosuch"], "nosuch"),
        (["--events", "--format", "csv"], "CSV"),
        (["--watch", "1", "--format", "json"], "--watch"),
        (["--family", "nosuch"], "nosuch"),
        (["--engine", "ebpf"], "--engine"),
        (["-s", "--engine", "netlink"], "--engine"),
    ],
    ids=str,
)
def test_wrong_use_is_one_line_with_exit_code_2(words: list[str], named: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("pktproc: ")
    assert named in line


def test_a_kind_that_the_kernel_does_not_have_says_so() -> None:
    done = run("-Sa")
    assert done.returncode == 0
    assert done.stdout.split() == [
        "State",
        "Recv-Q",
        "Send-Q",
        "Local",
        "Address:Port",
        "Peer",
        "Address:Port",
        "Process",
    ]
    if not any(line.startswith("SCTP") for line in open("/proc/net/protocols").read().splitlines()):  # noqa: PTH123, SIM115
        assert "sctp" in done.stderr


def test_words_behind_kill_are_signals_or_places() -> None:
    words = ("TERM", "sigkill", "9", "HUP", "term", ":9000", "nginx", "10.0.0.5", "/run/x", "Xorg", "python3")
    assert [word for word in words if is_signal(word)] == ["TERM", "sigkill", "9", "HUP", "term"]


@pytest.mark.parametrize("word", ["NOSIG", "SIGFOO", "sigfoo", "999", "0", "RTMIN+99"])
def test_a_word_behind_kill_that_is_meant_as_a_signal_is_never_taken_for_what_is_to_be_killed(word: str) -> None:
    done = run("--kill", word, ":1", "--yes")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert f"no signal {word!r}" in line


GONE = str(1 << 22)  # pids are smaller (proc_sys_kernel(5), pid_max)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--pid", GONE], f"there is no process {GONE}"),
        (["--name", "no\nsuch*"], r"there is no process named 'no\x0asuch*'"),
        (["--user", "4000000"], "there is no process of user 4000000"),
        (["--container", "no-such"], "there is no process in container no-such"),
        (["--name", "[p]ython*", "--pid", "1"], "there is no process 1 named '[p]ython*'"),
        (["/run/no such"], "there is no such socket: /run/no such"),
        (["unix:@nosuch\x1b"], r"there is no such socket: unix:@nosuch\x1b"),
        (["[::9]:9"], "there is no such socket: [::9]:9"),
        (["no-such-program"], "there is no such socket: no-such-program"),
        (["--kill", "HUP", "[::9]:9"], "there is no such socket: [::9]:9, so that no signal was sent"),
        (["--close", "[::9]:9"], "there is no such socket: [::9]:9, so that none was closed"),
    ],
    ids=str,
)
def test_what_was_named_and_is_not_there_is_told_in_a_line(words: list[str], told: str) -> None:
    """As with lsof and fuser, the exit code is 1 and there is no table; programs get a list without anything in it."""
    done = run(*words)
    lines = [line for line in done.stderr.splitlines() if "inspected" not in line]
    assert (done.returncode, done.stdout, lines) == (1, "", [f"pktproc: {told}"])
    done = run(*words, "--format", "json")
    assert (done.returncode, json.loads(done.stdout)) == (1, [])


def test_a_process_without_such_a_socket_is_told_from_one_that_is_not_there() -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        done = run("--pid", str(sleeper.pid))
        sleeper.kill()
    assert done.returncode == 1
    assert f"no process {sleeper.pid} holds such a socket" in done.stderr


@pytest.mark.parametrize("words", ["-tan", "-s", ":1 --format json"])
def test_a_closed_output_is_told_in_a_line(words: str) -> None:
    script = f"{' '.join(PKTPROC)} {words} >&-"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "standard output is closed" in done.stderr


def test_a_filter_that_nothing_fits_is_no_failure() -> None:
    """As with ss: it asks for what there may be."""
    done = run("-tn", "sport", "=", ":1", "and", "sport", "=", ":2")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 1)


def test_the_cure_for_a_store_that_is_not_there_fits_sockets() -> None:
    done = run(":1", "--store", "/nosuch/store.db")
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert "pktproc record" in line
    assert "packets" not in line


def test_the_forms_tell_the_same() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f":{listener.getsockname()[1]}"
        (entry,) = json.loads(run(place, "--format", "json").stdout)
        (row,) = csv.DictReader(io.StringIO(run(place, "--format", "csv").stdout))
        _, line = run(place, "-n").stdout.splitlines()
        assert run(place, "-n", "-H").stdout.split() == line.split()
        number = listener.fileno()
    assert f"127.0.0.1{place}" in line
    assert (row["local_address"], f":{row['local_port']}") == ("127.0.0.1", place)
    assert (entry["local"]["ip"], f":{entry['local']['port']}") == ("127.0.0.1", place)
    assert row["pids"] == str(entry["holders"][0]["pid"]) == str(entry["process"]["pid"])
    assert entry["holders"][0]["fds"] == [number] == [int(row["fds"])]


def test_services_and_hosts_have_names_unless_numbers_are_asked_for() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.bind(("127.0.0.1", 0))
        own.connect(("127.0.0.1", 53))
        words = ("-u", "dport", "=", ":53")
        assert "127.0.0.1:domain" in run(*words).stdout
        assert "127.0.0.1:53" in run("-n", *words).stdout
        assert "localhost:domain" in run("-r", *words).stdout


def test_a_terminal_gets_colour_and_no_more_than_its_width() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f":{listener.getsockname()[1]}"
        for columns in (60, 200):
            shown = on_a_terminal(place, columns=columns)
            assert "\x1b[32mLISTEN" in shown
            lines = [line for line in SGR.sub("", shown).splitlines() if not line.startswith("pktproc: ")]
            assert max(map(len, lines)) <= columns
        assert "\x1b" not in run(place).stdout


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_a_terminal_shows_who_holds_a_socket_however_narrow_it_is(columns: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        number = client.getsockname()[1]
        shown = SGR.sub("", on_a_terminal("-n", f":{number}", columns=columns))
        (line,) = [
            line for line in " ".join(shown.split()).split("ESTAB")[1:] if line.split()[2].endswith(f":{number}")
        ]
        assert f"[{os.getpid()}] fd {client.fileno()}" in line


def test_a_table_of_many_sockets_is_the_one_that_few_would_have() -> None:
    """Plain listings are made field by field; what comes out is the same."""
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_server(("::1", 0), family=socket.AF_INET6):
        clients = [socket.create_connection(listener.getsockname()) for _ in range(20)]
        question = Question(tables=("tcp", "udp", "unix", "nl"), peers=False)
        with Looker(question) as looker:
            assert looker.is_plain
            fields, join, plain = looker.look_plainly()
            inodes = fields[13]
            holders = join.texts(inodes, label, lambda held, inode: holder_text(held, inode, denied=plain.denied))
            quick = drawn(fields, holders, plain, Ends({}), Look())
            listing = looker.look()
        careful = table(listing._replace(denied=plain.denied), Ends({}), Look())
        for client in clients:
            client.close()
    assert sorted(quick.splitlines()) == sorted(careful.splitlines())
    assert len(quick.splitlines()) > 20
