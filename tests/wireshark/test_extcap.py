"""The answers of pktproc as an extcap, and what Wireshark's own parser makes of them."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bed.namespaces import NamespacePair
from bed.sniff import pktproc_command
from pktproc.cli.extcap_sentences import interface_name, interface_value
from pktproc.errors import UsageError
from pktproc.kernel import engines
from pktproc.version import __version__
from wireshark.tshark import environment

FINE, USAGE = 0, 2
SENTENCE = re.compile(r"(\w+) ((?:\{[^{}=]+=[^{}]*\})+)")
ELEMENT = re.compile(r"\{([^=]+)=([^{}]*)\}")
Sentence = tuple[str, dict[str, str]]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(pktproc_command(*arguments), capture_output=True, text=True, check=False, timeout=60)


def ask(*arguments: str) -> list[Sentence]:
    """Return the sentences of an answer; AssertionError for what is none."""
    told = run(*arguments)
    assert (told.returncode, told.stderr) == (FINE, "")
    sentences = []
    for line in told.stdout.splitlines():
        match = SENTENCE.fullmatch(line)
        assert match, line
        sentences.append((match[1], dict(ELEMENT.findall(match[2]))))
    return sentences


def of_kind(sentences: list[Sentence], word: str) -> list[dict[str, str]]:
    return [values for found, values in sentences if found == word]


@pytest.mark.parametrize("version", [(), ("--extcap-version=4.6",)])
def test_the_interfaces_are_those_of_the_host_and_all_of_them(version: tuple[str, ...]) -> None:
    sentences = ask("--extcap-interfaces", *version)
    names = ["any", *(name for _, name in sorted(host_interfaces()))]
    assert sentences[0][0] == "extcap"
    assert [values["value"] for values in of_kind(sentences, "interface")] == [f"pktproc-{name}" for name in names]
    assert [values["display"] for values in of_kind(sentences, "interface")] == [
        f"{name} with processes" for name in names
    ]


def host_interfaces() -> Iterator[tuple[int, str]]:
    listed = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        index, name, _ = line.split(": ", 2)
        yield int(index), name.partition("@")[0]


@pytest.mark.parametrize("arguments", [("--extcap-version",), ("--extcap-version=4.0",), ("--extcap-version", "4.0")])
def test_the_version(arguments: tuple[str, ...]) -> None:
    ((word, values),) = ask(*arguments)
    assert (word, values["version"]) == ("extcap", __version__)


@pytest.mark.parametrize("interface", ["pktproc-lo", "pktproc-any"])
def test_the_link_type(interface: str) -> None:
    assert ask("--extcap-dlts", "--extcap-interface", interface) == [
        ("dlt", {"number": "1", "name": "EN10MB", "display": "Ethernet"})
    ]


def test_the_link_type_of_an_interface_without_link_layer() -> None:
    with NamespacePair() as pair:
        pair.left.run("ip", "tuntap", "add", "tun7", "mode", "tun")
        answer = pair.left.run(*pktproc_command("--extcap-dlts", "--extcap-interface", "pktproc-tun7"))
    assert answer == "dlt {number=12}{name=RAW}{display=Raw IP}\n"


def test_the_dialog_has_an_option_for_each_choice() -> None:
    sentences = ask("--extcap-config", "--extcap-interface", "pktproc-lo")
    options = of_kind(sentences, "arg")
    assert [values["number"] for values in options] == [str(number) for number in range(len(options))]
    called = {values["call"]: values for values in options}
    assert called.keys() >= {"--name", "--pid", "--user", "--engine", "--snaplen", "--promiscuous"}
    assert all(values["type"] and values["display"] and values["tooltip"] for values in options)
    choices = of_kind(sentences, "value")
    assert {values["arg"] for values in choices} == {called["--engine"]["number"]}
    assert sorted(values["value"] for values in choices) == sorted(engines.ALL)
    assert [values["value"] for values in choices if values["default"] == "true"] == [engines.AUTO]


@pytest.mark.parametrize("interface", ["pktproc-lo", "pktproc-any"])
@pytest.mark.parametrize("expression", ["tcp port 443", "", "ip6 and not udp"])
def test_a_good_filter_is_met_with_silence(interface: str, expression: str) -> None:
    told = run("--extcap-capture-filter", expression, "--extcap-interface", interface)
    assert (told.returncode, told.stdout, told.stderr) == (FINE, "", "")


@pytest.mark.parametrize("interface", ["pktproc-lo", "pktproc-any"])
@pytest.mark.parametrize("expression", ["tcp prot 443", "(", "port 99999", "host no.such.name.invalid."])
def test_a_bad_filter_is_told_on_standard_output_in_one_line(interface: str, expression: str) -> None:
    told = run("--extcap-capture-filter", expression, "--extcap-interface", interface)
    assert (told.returncode, told.stderr) == (FINE, "")
    (line,) = told.stdout.splitlines()
    assert "bad filter" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("--extcap-dlts",),
        ("--extcap-dlts", "--extcap-interface", "eth0"),
        ("--extcap-capture-filter", "tcp"),
        ("--extcap-interface", "pktproc-lo"),
        ("--capture", "--extcap-interface", "pktproc-lo"),
        ("--capture", "--extcap-interface"),
    ],
)
def test_wrong_use_is_one_line(arguments: tuple[str, ...]) -> None:
    told = run(*arguments)
    assert (told.returncode, told.stdout) == (USAGE, "")
    (line,) = told.stderr.splitlines()
    assert line.startswith("pktproc: ")


def test_questions_load_nothing_heavy() -> None:
    report = "import sys, atexit\natexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    body = f"{report}from pktproc.cli import main\n"
    for question in ("--extcap-interfaces", "--extcap-config"):
        command = [pktproc_command()[0], "-c", f"{body}main(['{question}'])"]
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        loaded = {name.partition(".")[0] for name in told.stderr.split()}
        assert "click" in loaded
        assert not loaded & {"numpy", "scapy", "rich", "cypcap", "cachetools", "asyncio"}


def test_the_help_does_not_speak_of_it() -> None:
    assert "extcap" not in {line.split()[0] for line in run("--help").stdout.splitlines() if line.strip()}


@pytest.mark.parametrize("name", ["eth0", "br-1.100", "a{b}c", "sn\u00f6w", "x=y", "50%", "b\udcffd", "a\x1bb"])
def test_a_name_of_an_interface_survives(name: str) -> None:
    value = interface_value(name)
    assert re.fullmatch(r"[A-Za-z0-9._%-]+", value)
    assert interface_name(value) == name


@pytest.mark.parametrize("value", [None, "", "eth0", "pktproceth0"])
def test_a_value_that_was_never_listed_is_refused(value: str | None) -> None:
    with pytest.raises(UsageError):
        interface_name(value)


def test_a_strange_name_of_an_interface_is_listed_harmlessly() -> None:
    with NamespacePair() as pair:
        pair.left.run("ip", "link", "add", "name", "a{b}=\x1b[1m", "type", "veth", "peer", "name", "peer0")
        answer = pair.left.run(*pktproc_command("--extcap-interfaces"))
        names = {
            interface_name(values["value"]) for word, values in map(parse, answer.splitlines()) if word == "interface"
        }
    assert names == {"any", "lo", pair.left.interface, "peer0", "a{b}=\x1b[1m"}
    assert answer.replace("\n", "").isprintable()


def parse(line: str) -> Sentence:
    match = SENTENCE.fullmatch(line)
    assert match, line
    return match[1], dict(ELEMENT.findall(match[2]))


def test_wireshark_lists_the_interfaces(tmp_path: Path) -> None:
    install(tmp_path)
    listed = subprocess.run(
        ["tshark", "-D"], env=environment(tmp_path), capture_output=True, text=True, check=True, timeout=60
    )
    ours = [line.partition(". ")[2] for line in listed.stdout.splitlines() if "pktproc-" in line]
    names = {"any", *(name for _, name in host_interfaces())}
    assert set(ours) >= {f"pktproc-{name} ({name} with processes)" for name in ("any", "lo")}
    assert len(ours) == len(names)


def test_wireshark_reads_the_link_type(tmp_path: Path) -> None:
    install(tmp_path)
    command = ["tshark", "-L", "-i", "pktproc-lo"]
    listed = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, check=True, timeout=60)
    assert "EN10MB" in listed.stdout + listed.stderr


def install(home: Path) -> None:
    command = pktproc_command("wireshark", "--install")
    subprocess.run(command, env=environment(home), capture_output=True, check=True, timeout=60)
