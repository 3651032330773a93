"""The sentences in which an extcap answers Wireshark: `word {key=value}{key=value}...`, one a line (extcap(4)).

A value ends at the first closing brace, and there is no way to write one in it.
"""

from __future__ import annotations

import os
import re

from pktproc.capture.interfaces import hardware_type, interfaces
from pktproc.errors import UsageError
from pktproc.kernel import namespaces
from pktproc.version import __version__

_EVERY_INTERFACE = "any"
_PREFIX = "pktproc-"
"""What sets our interfaces apart from Wireshark's own of the same names."""

ENGINES = ("auto", "ebpf", "netlink", "procfs")
SNAPLEN = 262144

# Link types by ARPHRD_ number (linux/if_arp.h) as DLT_ numbers (pcap-linktype(7)); others are captured without header.
_ETHERNET = (1, "EN10MB", "Ethernet")
_RAW = (12, "RAW", "Raw IP")
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772

_PLAIN = re.compile(rb"[^A-Za-z0-9._-]")
_ESCAPE = re.compile(rb"%([0-9A-F]{2})")

_DIALOG: tuple[dict[str, str], ...] = (
    {
        "call": "--name",
        "display": "Process names",
        "type": "string",
        "placeholder": "curl, python*",
        "tooltip": "Only packets of processes with such names: shell patterns, separated by commas",
        "group": "Processes",
    },
    {
        "call": "--pid",
        "display": "Process ids",
        "type": "string",
        "validation": "[0-9, ]*",
        "tooltip": "Only packets of these processes, separated by commas",
        "save": "false",
        "group": "Processes",
    },
    {
        "call": "--user",
        "display": "Users",
        "type": "string",
        "placeholder": "www-data, 1000",
        "tooltip": "Only packets of processes of these users: names or numbers, separated by commas",
        "group": "Processes",
    },
    {
        "call": "--follow",
        "display": "Their descendants too",
        "type": "boolflag",
        "default": "false",
        "tooltip": "Packets of processes that the chosen ones started, directly or not",
        "group": "Processes",
    },
    {
        "call": "--no-cmdline",
        "display": "Leave out command lines",
        "type": "boolflag",
        "default": "false",
        "tooltip": "Command lines, which can hold secrets, do not get into the capture",
        "group": "Processes",
    },
    {
        "call": "--promiscuous",
        "display": "Promiscuous mode",
        "type": "boolean",
        "default": "true",
        "tooltip": "Packets to other hosts too",
        "group": "Capture",
    },
    {
        "call": "--snaplen",
        "display": "Snapshot length",
        "type": "unsigned",
        "range": f"1,{SNAPLEN}",
        "default": str(SNAPLEN),
        "tooltip": "Keep this many bytes of each packet",
        "group": "Capture",
    },
    {
        "call": "--engine",
        "display": "Engine",
        "type": "selector",
        "tooltip": "Where facts about processes come from; auto takes the best that works",
        "group": "Capture",
    },
)
"""The options of a capture in the order of the dialog; the numbers in sentences are positions in it."""


def version() -> str:
    """Return the sentence that says which extcap this is."""
    return _sentence("extcap", version=__version__, display="pktproc, packets with their processes")


def interface_list() -> str:
    """Return the sentences for the interfaces of this namespace, the one that means all of them first."""
    names = [known.name for _, known in sorted(interfaces(namespaces.current()).items())]
    return "\n".join([version(), *(_interface(name) for name in (_EVERY_INTERFACE, *names))])


def _interface(name: str) -> str:
    value = interface_value(name)
    return _sentence("interface", value=value, display=f"{value.removeprefix(_PREFIX)} with processes")


def interface_value(name: str) -> str:
    """Return what Wireshark calls an interface of ours; bytes that could disturb it appear as `%NN`."""
    return _PREFIX + _PLAIN.sub(lambda found: b"%%%02X" % ord(found[0]), os.fsencode(name)).decode()


def interface_name(value: str | None) -> str:
    """Return the name of the interface that Wireshark means; raise `UsageError` if it is none of ours."""
    if value is None or not value.startswith(_PREFIX):
        message = f"no interface {value!r}: --extcap-interfaces lists them" if value else "which --extcap-interface?"
        raise UsageError(message)
    encoded = os.fsencode(value.removeprefix(_PREFIX))
    return os.fsdecode(_ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), encoded))


def datalink(name: str) -> str:
    """Return the sentence for the link type of an interface; on `any`, packets keep that of their own interface."""
    ethernet = name == _EVERY_INTERFACE or hardware_type(name) in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK)
    number, short, display = _ETHERNET if ethernet else _RAW
    return _sentence("dlt", number=str(number), name=short, display=display)


def dialog() -> str:
    """Return the sentences for the dialog of options."""
    sentences = []
    for number, option in enumerate(_DIALOG):
        sentences.append(_sentence("arg", number=str(number), **option))
        if option["type"] == "selector":
            sentences += [_choice(number, engine) for engine in ENGINES]
    return "\n".join(sentences)


def _choice(number: int, engine: str) -> str:
    default = "true" if engine == ENGINES[0] else "false"
    return _sentence("value", arg=str(number), value=engine, display=engine, default=default)


def _sentence(word: str, **values: str) -> str:
    return f"{word} " + "".join(f"{{{key}={value}}}" for key, value in values.items())
