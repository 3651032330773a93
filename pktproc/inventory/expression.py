"""What a user asks for in words: ss's filters (`state established dst 10.0.0.0/8`), and places (`:9000`, `nginx`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType

from pktproc.errors import UsageError
from pktproc.inventory import states
from pktproc.inventory.conditions import (
    Autobound,
    Condition,
    Device,
    End,
    Every,
    FirewallMark,
    HeldBy,
    Host,
    InCgroup,
    Not,
    OfKind,
    Port,
    Some,
    UnixName,
)
from pktproc.inventory.wish import Wish
from pktproc.model import pack_address

_TOKEN = re.compile(r"\(|\)|&&|\|\||[<>=!]=|[=<>!&|]|[^\s()=<>!&|]+")
_COMPARISONS = {"=": "=", "==": "=", "eq": "=", "!=": "!=", "ne": "!=", "neq": "!=", "<": "<", "lt": "<", ">": ">",
                "gt": ">", "<=": "<=", "le": "<=", "leq": "<=", ">=": ">=", "ge": ">=", "geq": ">="}  # fmt: skip
_AND, _OR, _NOT = {"and", "&", "&&"}, {"or", "|", "||"}, {"not", "!"}
_ENDS = {"src": End.LOCAL, "sport": End.LOCAL, "dst": End.REMOTE, "dport": End.REMOTE}
_BRACKETED = re.compile(r"\[([^\]]+)\](?:/(\d+))?(?::(.+))?")
# As fuser has it, and as lsof has it.
_PORT_OF_KIND = re.compile(r"(?P<port>[\w-]+)/(?P<kind>tcp|udp)|(?P<head>tcp|udp):(?P<tail>[\w-]+)", re.ASCII)
_MARK = re.compile(r"(0[xX][0-9a-fA-F]+|\d+)(?:/(0[xX][0-9a-fA-F]+|\d+))?", re.ASCII)
_MAX_PORT = 65535
_MAX_MARK = 0xFFFFFFFF

PortOf = Callable[[str], int | None]


def parse(words: Sequence[str], port_of: PortOf) -> Wish:
    """Return what words ask for; `port_of` knows the ports of services. Raise `UsageError` for what means nothing."""
    tokens = [token for word in words for token in _tokens(word)]
    parser = _Parser(tokens, port_of)
    mask = parser.states()
    condition = parser.whole() if parser.tokens else None
    return Wish(condition, mask, parser.places)


def _tokens(word: str) -> list[str]:
    """Return the tokens of one argument; a path is one, whatever is in it."""
    return [word] if word.startswith(("/", "@", "unix:")) else _TOKEN.findall(word)


class _Parser:
    """Take tokens from the front, by recursive descent: or, and, not, parentheses, predicates."""

    def __init__(self, tokens: list[str], port_of: PortOf) -> None:
        self.tokens = tokens
        self.places = False
        self._port_of = port_of

    def states(self) -> int | None:
        """Take what is said of states, which stands in front, as in ss."""
        mask: int | None = None
        while self._next() in ("state", "exclude"):
            excluded = self._take() == "exclude"
            if not self.tokens:
                raise UsageError("name a state: established, listening, time-wait, connected, ...")
            word = self._take()
            named = states.mask(word)
            if named is None:
                raise UsageError(f"no state {word!r}: give one of {', '.join(states.MASKS)}")
            before = states.ALL if mask is None and excluded else mask or 0
            mask = before & ~named if excluded else before | named
        return mask

    def whole(self) -> Condition:
        """Take an expression that nothing follows."""
        condition = self._some()
        if self.tokens:
            raise UsageError(f"the filter ends before {self.tokens[0]!r}")
        return condition

    def _next(self) -> str | None:
        return self.tokens[0] if self.tokens else None

    def _take(self) -> str:
        if not self.tokens:
            raise UsageError("the filter ends too early")
        return self.tokens.pop(0)

    def _some(self) -> Condition:
        parts = [self._every()]
        while self._next() in _OR:
            self._take()
            parts.append(self._every())
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def _every(self) -> Condition:
        """Take parts that all must fit; of places of one kind that follow each other one must."""
        parts = [self._part()]
        while (word := self._next()) is not None and word not in _OR and word != ")":
            if word in _AND:
                self._take()
                parts.append(("", self._part()[1]))
            else:
                parts.append(self._part())
        joined: list[Condition] = []
        for kind, group in groupby(parts, key=lambda part: part[0]):
            conditions = tuple(condition for _, condition in group)
            joined += conditions if not kind or len(conditions) == 1 else (Some(conditions),)
        return joined[0] if len(joined) == 1 else Every(tuple(joined))

    def _part(self) -> tuple[str, Condition]:
        """Take one part; return the kind of place that it is, empty for anything else."""
        word = self._take()
        if word in _NOT:
            return "", Not(self._part()[1])
        if word == "(":
            condition = self._some()
            if self._take() != ")":
                raise UsageError("a parenthesis is not closed")
            return "", condition
        if word in ("sport", "dport"):
            return "", self._port(_ENDS[word])
        if word in ("src", "dst"):
            return "", self._host(_ENDS[word])
        if word in _WORDS:
            return "", self._named(word)
        if word in _AND | _OR or word in _COMPARISONS or word == ")":
            raise UsageError(f"{word!r} stands where a condition is expected")
        if word in ("state", "exclude"):
            raise UsageError(f"{word!r} comes in front of the filter, as in: state established dst 10.0.0.5")
        self.places = True
        return self._place(word)

    def _comparison(self) -> str:
        return _COMPARISONS[self._take()] if self._next() in _COMPARISONS else "="

    def _port(self, end: End) -> Condition:
        comparison = self._comparison()
        return Port(end, comparison, self._number(self._take().removeprefix(":")))

    def _number(self, text: str) -> int:
        number = int(text) if text.isascii() and text.isdecimal() else self._port_of(text)
        if number is None or number > _MAX_PORT:
            raise UsageError(f"no port {text!r}: give a number up to {_MAX_PORT}, or a name of /etc/services")
        return number

    def _named(self, word: str) -> Condition:
        if word == "autobound":
            return Autobound()
        differs = self._differs(word)
        condition = _WORDS[word](self._take())
        return Not(condition) if differs else condition

    def _differs(self, word: str) -> bool:
        """Take a comparison that can only be for equality; return whether it is that two things are not equal."""
        comparison = self._comparison()
        if comparison not in ("=", "!="):
            raise UsageError(f"{word} is equal or not: {word} = WHAT, {word} != WHAT")
        return comparison == "!="

    def _host(self, end: End) -> Condition:
        differs = self._differs("src" if end is End.LOCAL else "dst")
        word = self._take()
        condition = self._unix(end, word) or self._address(end, word)
        if condition is None:
            raise UsageError(f"{word!r} is not ADDRESS, ADDRESS/BITS, ADDRESS:PORT, [IPV6]:PORT, :PORT or /PATH")
        return Not(condition) if differs else condition

    def _place(self, word: str) -> tuple[str, Condition]:
        if word.isascii() and word.isdecimal():
            number = int(word)
            held = HeldBy(pid=number)
            return "end", Some((Port(End.EITHER, "=", number), held)) if number <= _MAX_PORT else held
        if word.startswith("pid:") and word[4:].isdecimal():
            return "process", HeldBy(pid=int(word[4:]))
        if matched := _PORT_OF_KIND.fullmatch(word):
            kind, port = matched["kind"] or matched["head"], matched["port"] or matched["tail"]
            return "end", Every((OfKind(kind), Port(End.EITHER, "=", self._number(port))))
        found = self._unix(End.EITHER, word) or self._address(End.EITHER, word)
        return ("end", found) if found else ("process", HeldBy(pattern=word))

    def _unix(self, end: End, word: str) -> Condition | None:
        name = word.removeprefix("unix:")
        return UnixName(end, name) if name != word or name.startswith(("/", "@")) else None

    def _address(self, end: End, word: str) -> Condition | None:
        """Return the condition for ADDRESS[/BITS][:PORT], None for what is none."""
        if matched := _BRACKETED.fullmatch(word):
            address, bits, port = matched.groups()
        elif word.count(":") > 1:
            address, _, bits = word.partition("/")
            port = None
        else:
            address, _, port = word.partition(":")
            address, _, bits = address.partition("/")
        parts: list[Condition] = []
        if address not in ("", "*"):
            host = _host(end, address, bits)
            if host is None:
                return None
            parts.append(host)
        if port:
            parts.append(Port(end, "=", self._number(port)) if port != "*" else Every(()))
        if len(parts) == 2 and end is End.EITHER:
            parts = [Some(tuple(Every(tuple(_at(part, side) for part in parts)) for side in (End.LOCAL, End.REMOTE)))]
        return parts[0] if len(parts) == 1 else Every(tuple(parts)) if parts else None


def _mark(text: str) -> FirewallMark:
    matched = _MARK.fullmatch(text)
    mark, mask = map(_number, matched.groups(str(_MAX_MARK))) if matched else (-1, -1)
    if not 0 <= mark <= _MAX_MARK or not 0 <= mask <= _MAX_MARK:
        raise UsageError(f"no mark {text!r}: give MARK or MARK/MASK, numbers as 7 or 0x7, up to 0xffffffff")
    return FirewallMark(mark, mask)


def _number(text: str) -> int:
    return int(text, 16) if text[:2] in ("0x", "0X") else int(text)


def _cgroup(text: str) -> InCgroup:
    """Return the condition for the path of a cgroup: below the mount of cgroup v2, with or without a slash."""
    return InCgroup(f"/{text.strip('/')}")


_WORDS: Mapping[str, Callable[[str], Condition]] = MappingProxyType(
    {"dev": Device, "fwmark": _mark, "cgroup": _cgroup, "autobound": lambda _: Autobound()}
)


def _at(part: Condition, end: End) -> Condition:
    if isinstance(part, Host):
        return Host(end, part.address, part.bits)
    return Port(end, part.comparison, part.port) if isinstance(part, Port) else part


def _host(end: End, address: str, bits: str | None) -> Condition | None:
    try:
        packed = pack_address(address.partition("%")[0])
    except ValueError:
        return None
    most = 32 if "." in address and ":" not in address else 128
    width = most if not bits else int(bits) if bits.isdecimal() else most + 1
    if width > most:
        raise UsageError(f"{address}/{bits}: give 0 to {most} bits")
    return Host(end, packed, 128 - most + width)
