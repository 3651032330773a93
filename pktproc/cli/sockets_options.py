"""What the user asked of `pktproc sockets`, checked; nothing heavy is imported here."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import click

from pktproc.cli.selection_options import SelectionOptions
from pktproc.errors import UsageError
from pktproc.inventory import states
from pktproc.inventory.rows import AF_INET, AF_INET6, INET
from pktproc.inventory.wish import Wish

if TYPE_CHECKING:
    from pktproc.listing import Question

Command = TypeVar("Command", bound=Callable[..., Any])

TABLES = {
    "tcp": ("-t", "TCP"),
    "udp": ("-u", "UDP"),
    "raw": ("-w", "raw"),
    "unix": ("-x", "unix"),
    "packet": ("-0", "packet"),
    "mptcp": ("-M", "MPTCP"),
    "sctp": ("-S", "SCTP"),
    "dccp": ("-d", "DCCP"),
    "udplite": ("-U", "UDP-Lite"),
    "icmp": ("", "ICMP (ping)"),
    "nl": ("", "netlink"),
    "vsock": ("", "vsock"),
}
"""The kinds that can be asked for, with ss's letters."""
_LONG = {"nl": "netlink"}
_INET_TABLES = ("tcp", "udp", "udplite", "raw", "icmp", "sctp", "dccp", "mptcp")
FAMILIES = {
    "inet": (_INET_TABLES, {AF_INET}),
    "inet6": (_INET_TABLES, {AF_INET6}),
    "link": (("packet",), set(INET)),
    "unix": (("unix",), set(INET)),
    "netlink": (("nl",), set(INET)),
    "vsock": (("vsock",), set(INET)),
}
"""ss's words for -f."""

# No program's name, but for very few; one can still be named in front of --kill.
_LIKE_A_SIGNAL = re.compile(r"SIG\w+|sig[a-z]\w*|[A-Z][A-Z0-9+-]*|\d+", re.ASCII)

EPILOG = """\b
WORD is a place or ss's filter:
  :9000  :http  10.0.0.5  10.0.0.0/8  10.0.0.5:443  [fd00::1]:443     either end
  /run/docker.sock  '/run/*'  @abstract                               a unix socket, either end
  9000/tcp  udp:domain                                                a port of one kind, either end
  nginx  'python*'  pid:4711                                          who holds it
  4711                                                                a number alone: port or pid
  state established  state listening  exclude time-wait
  sport = :22  dport \\> 1024  src 10.0.0.0/8  dst [::1]:80  and or not ( )
  dev eth0  fwmark = 0x1/0x3  cgroup /system.slice/x  autobound

\b
Examples:
  pktproc sockets :9000                   who holds port 9000?
  pktproc sockets --pid 4242              each fd of a process, and who is at the other end
  pktproc sockets /run/docker.sock        who is at both ends of this unix socket?
  pktproc sockets -tlnp                   what listens (letters as in ss)
  pktproc sockets nginx --netns all       in all containers
  pktproc sockets -ti dst 10.0.0.0/8      with what TCP knows
  pktproc sockets --events -t             sockets as they open and close
  pktproc sockets :9000 --kill            end who holds port 9000

\b
As in ss, only connected sockets are shown without -a or -l, unless a place or a process is
named. A socket without process is held by none (the kernel's, TIME_WAIT), or shows
?permission. See docs/coming-from.md for what ss, lsof, netstat and fuser do.
"""


def with_table_options(command: Command) -> Command:
    """Give a command the letters that choose kinds of sockets."""
    for table, (letter, label) in reversed(TABLES.items()):
        names = [f"--{_LONG.get(table, table)}", f"table_{table}"]
        option = click.option(*([letter] if letter else []), *names, is_flag=True, help=f"{label} sockets.")
        command = option(command)
    return command


class SocketsOptions(NamedTuple):
    """Hold the options of one run; `wish` is what the `words` ask for, `signal` the one to send, 0 for none.

    `named` says that a place or a process was named, which is expected to be there.
    """

    words: tuple[str, ...]
    named: bool
    tables: tuple[str, ...]
    families: frozenset[int]
    states: int
    wish: Wish
    selection: SelectionOptions
    netns: tuple[str, ...]
    peers: bool
    numeric: bool
    resolve: bool
    timers: bool
    extended: bool
    info: bool
    memory: bool
    summary: bool
    header: bool
    one_line: bool
    format: str
    cmdline: bool
    watch_s: float | None
    events: bool
    signal: int
    close: bool
    yes: bool
    store: str | None
    engine: str

    @classmethod
    def of(cls, words: Sequence[str], chosen: Mapping[str, Any]) -> Self:
        """Return the options that the command line chose; raise `UsageError` for what does not go together."""
        wish = _wish(words)
        selection = SelectionOptions.of(chosen)
        tables, families = _tables(chosen)
        named = wish.places or not selection.everything
        acts = any(chosen[name] not in (None, False) for name in ("events", "summary", "kill", "close"))
        number = _signal(chosen["kill"]) if chosen["kill"] is not None else 0
        _check(chosen, named=named or wish.condition is not None)
        return cls(
            words=tuple(words),
            named=named,
            tables=tables,
            families=families,
            states=_states(chosen, wish, everything=named or acts),
            wish=wish,
            selection=selection,
            netns=chosen["netns"],
            peers=chosen["peers"] or named or tables == ("unix",) or chosen["format"] == "json",
            numeric=chosen["numeric"],
            resolve=chosen["resolve"],
            timers=chosen["timers"],
            extended=chosen["extended"],
            info=chosen["info"],
            memory=chosen["memory"],
            summary=chosen["summary"],
            header=not chosen["no_header"],
            one_line=chosen["one_line"],
            format=chosen["format"],
            cmdline=not chosen["no_cmdline"],
            watch_s=chosen["watch_s"],
            events=chosen["events"],
            signal=number,
            close=chosen["close"],
            yes=chosen["yes"],
            store=chosen["store"],
            engine=chosen["engine"],
        )

    def question(self) -> Question:
        """Return what to look for."""
        from pktproc.listing import Question  # noqa: PLC0415 - cachetools and more

        return Question(
            tables=self.tables,
            families=self.families,
            states=self.states,
            condition=self.wish.condition,
            processes=None if self.selection.everything else self.selection.selection(),
            netns=self.netns,
            peers=self.peers,
            info=self.info,
            memory=self.memory,
        )


def _wish(words: Sequence[str]) -> Wish:
    if not words:
        return Wish()
    from pktproc.inventory.expression import parse  # noqa: PLC0415 - most calls have no words

    return parse(words, _port_of)


def _tables(chosen: Mapping[str, Any]) -> tuple[tuple[str, ...], frozenset[int]]:
    families = {number for name, number in (("v4", AF_INET), ("v6", AF_INET6)) if chosen[name]}
    wanted = {table for table in TABLES if chosen[f"table_{table}"]}
    if chosen["family"]:
        of_family, numbers = FAMILIES[chosen["family"]]
        wanted |= set(of_family)
        families |= numbers if numbers != INET else set()
    if not wanted:
        wanted = set(_INET_TABLES) if families else set(TABLES)
    from pktproc.kernel.tables import TABLES as ORDER  # noqa: PLC0415

    return tuple(table for table in ORDER if table in wanted), frozenset(families or INET)


def _states(chosen: Mapping[str, Any], wish: Wish, *, everything: bool) -> int:
    if wish.states is not None:
        return wish.states
    if chosen["all_states"]:
        return states.ALL
    if chosen["listening"]:
        return states.LISTENERS
    if everything:
        return states.ALL
    # Nothing of these is ever connected: to ask for them without seeing any would be pointless, as ss has it.
    lower = chosen["table_packet"] or chosen["table_nl"] or chosen["family"] in ("link", "netlink")
    return states.CONNECTED | (1 << states.CLOSED if lower else 0)


def _check(chosen: Mapping[str, Any], *, named: bool) -> None:
    modes = [name for name in ("watch_s", "events", "kill", "close", "summary") if chosen[name] not in (None, False)]
    if len(modes) > 1:
        labels = {"watch_s": "--watch", "events": "--events", "kill": "--kill", "close": "--close", "summary": "-s"}
        raise UsageError(f"{labels[modes[0]]} and {labels[modes[1]]} do not go together: give one of them")
    if modes and modes[0] in ("kill", "close") and not named:
        raise UsageError(f"--{modes[0]} takes what it is for: a place (:9000), a process (--pid, nginx) or a filter")
    if modes and chosen["format"] == "csv" and modes[0] in ("watch_s", "events"):
        raise UsageError("CSV is for one listing: leave --watch and --events out, or choose --format json")
    if chosen["engine"] != "auto" and (not modes or modes[0] not in ("watch_s", "events")):
        raise UsageError("--engine is for what goes on: give --watch or --events, too, or leave it out")
    if chosen["watch_s"] is not None and chosen["format"] != "table":
        raise UsageError("--watch shows a table: leave --format out, or see --events")


def _port_of(name: str) -> int | None:
    from pktproc.output.names import services  # noqa: PLC0415 - read for names alone

    return next((port for (_, port), known in services().items() if known == name), None)


def _signal(text: str) -> int:
    """Return the number of a signal by its name, with or without SIG, or number."""
    word = text.upper().removeprefix("SIG")
    try:
        number = int(word) if word.isdecimal() else getattr(signal.Signals, f"SIG{word}", 0)
        return int(signal.Signals(number))
    except ValueError:
        raise UsageError(
            f"no signal {text!r}: give a name like TERM, HUP, KILL, or a number as `kill -l` has it"
        ) from None


def is_signal(text: str) -> bool:
    """Say whether a word behind --kill is the signal, and not what it is for.

    Raise `UsageError` for one that can only be meant as a signal, but is none: to take it for what is to be killed
    would be the worse mistake.
    """
    if not _LIKE_A_SIGNAL.fullmatch(text):
        try:
            return bool(_signal(text))
        except UsageError:
            return False
    return bool(_signal(text))
