r"""What pktproc writes into a capture file about processes: the comment of a packet and the comment of a process.

A packet's comment is one line of ASCII, words `key=value` behind `pktproc`:

    pktproc src.pid=4711 src.name="a b" src.match=exact dst.pid=812 dst.name=nginx dst.match=shared dst.holders=812,813
    by=netlink

A value outside `[A-Za-z0-9._+:/@,-]` is a JSON string. JSON cannot carry the bytes of a name that are not UTF-8, which
Python has as surrogates (PEP 383): they are spelled `\xNN`, other lone surrogates `\uNNNN`, and a backslash of the name
itself that could be read as the beginning of such a spelling `\x5c`; nothing else is spelled.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pktproc.model import Attribution, Match, Process, Reason
from pktproc.packets.surrogates import spell_surrogates

PREFIX = "pktproc "
MAX_COMMENT_BYTES = 65_000
"""Room for a comment: an option's value has at most 65,535 bytes."""
MAX_NAME = 1_000
"""Characters of a name that are kept; 12 bytes each at most, and a comment has two names."""
MAX_PATH = 4_000
MAX_CONTAINER = 256
MAX_HOLDERS = 1_000
"""Pids of holders that are listed, at most 11 bytes each."""

_NS_PER_S = 1_000_000_000
_MAX_NS = (1 << 63) - 1
_MAX_PID = (1 << 32) - 1
_CUT = "..."
_BARE = re.compile(r"[A-Za-z0-9._+:/@,-]+")
_WORD = re.compile(r' ([a-z.]+)=([A-Za-z0-9._+:/@,-]+|"(?:[^"\\]|\\.)*")')
_PID = re.compile(r"[0-9]{1,10}")
_SPELLING = r"(?:x(?:5c|[89a-f][0-9a-f])|ud[89a-f][0-9a-f]{2})"
_MISTAKABLE = re.compile(rf"\\(?={_SPELLING})")
_SPELLED = re.compile(rf"\\{_SPELLING}")
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})\.([0-9]{9})Z")
_UNDECODABLE = 0xDC00
_MATCHES = {match.value: match for match in Match}
_REASONS = {reason.value: reason for reason in Reason}


class AnnotatedEnd(NamedTuple):
    """What a comment says of one end: a process, or the reason why there is none.

    `holders` are the pids of several holders, or of the candidates where there is no process; else it is empty.
    """

    pid: int | None = None
    name: str | None = None
    match: Match | None = None
    reason: Reason | None = None
    holders: tuple[int, ...] = ()
    evidence: str | None = None


class ParsedComment(NamedTuple):
    """What a comment says of both ends; None for an end that is not on the host."""

    source: AnnotatedEnd | None
    destination: AnnotatedEnd | None


class ProcessFacts(NamedTuple):
    """What a process's comment says beyond its pid and name; see `pktproc.model.Process`."""

    start_ns: int = 0
    start_ticks: int = 0
    exe: str | None = None
    cmdline: tuple[str, ...] | None = None
    uid: int | None = None
    ppid: int | None = None
    parent_name: str | None = None
    container_id: str | None = None


def comment_text(source: Attribution | None, destination: Attribution | None) -> str:
    """Return the comment of a packet, empty where neither end is on this host.

    Names are cut to `MAX_NAME` characters and holders to `MAX_HOLDERS`. The evidence is said once where it is the same.
    """
    words: list[str] = []
    for side, end in (("src", source), ("dst", destination)):
        if end is not None:
            words += _end_words(side, end)
    if not words:
        return ""
    if source is None or destination is None or source.evidence == destination.evidence:
        known = [("by", (source or destination or Attribution()).evidence)]
    else:
        known = [("src.by", source.evidence), ("dst.by", destination.evidence)]
    words += [f"{key}={_value(evidence)}" for key, evidence in known if evidence is not None]
    return PREFIX + " ".join(words)


def _end_words(side: str, end: Attribution) -> Iterator[str]:
    if end.process is not None:
        yield f"{side}.pid={end.process.pid}"
        yield f"{side}.name={_value(end.process.name)}"
        if end.match is not None:
            yield f"{side}.match={end.match.value}"
    elif end.reason is not None:
        yield f"{side}.reason={end.reason.value}"
    if len(end.holders) > (0 if end.process is None else 1):
        yield f"{side}.holders={','.join(str(holder.pid) for holder in end.holders[:MAX_HOLDERS])}"


def parse_comment(text: str) -> ParsedComment | None:
    """Return what a comment says; None for one that is not pktproc's, or not whole. Unknown keys are passed over."""
    if not text.startswith(PREFIX):
        return None
    position, values = len(PREFIX) - 1, dict[str, str]()
    while position < len(text):
        word = _WORD.match(text, position)
        value = _bare(word[2]) if word else None
        if word is None or value is None:
            return None
        values[word[1]] = value
        position = word.end()
    try:
        return ParsedComment(_end(values, "src"), _end(values, "dst"))
    except ValueError:
        return None


def _end(values: dict[str, str], side: str) -> AnnotatedEnd | None:
    """Return one end, None where nothing says that it is on the host; raise ValueError for what is no pid."""
    pid, reason = values.get(f"{side}.pid"), _REASONS.get(values.get(f"{side}.reason", ""))
    holders = values.get(f"{side}.holders")
    if pid is None and reason is None:
        return None
    end = AnnotatedEnd(
        match=_MATCHES.get(values.get(f"{side}.match", "")),
        holders=() if holders is None else tuple(map(_pid, holders.split(",")))[:MAX_HOLDERS],
        evidence=values.get(f"{side}.by", values.get("by")),
    )
    if pid is None:
        return end._replace(reason=reason)
    return end._replace(pid=_pid(pid), name=values.get(f"{side}.name", ""))


def _pid(text: str) -> int:
    if not _PID.fullmatch(text) or int(text) > _MAX_PID:
        raise ValueError(text)
    return int(text)


def process_text(process: Process, *, cmdline: bool) -> str:
    """Return the comment of a process: `pktproc` and a JSON object without what is not known.

    Long texts are cut, an argument with `...` behind it; arguments for which there is no room are left out, with `...`
    in their place. `cmdline` False leaves all of them out.
    """
    parent = {"pid": process.ppid, "name": _spelled(process.parent_name, MAX_NAME)}
    facts = {
        "start": _utc(process.start_ns),
        "start_ticks": process.start_ticks or None,
        "executable": _spelled(process.exe, MAX_PATH),
        "user": process.uid,
        "parent": None if process.ppid is None else {key: value for key, value in parent.items() if value is not None},
        "container": _spelled(process.container_id, MAX_CONTAINER),
    }
    text = json.dumps({key: value for key, value in facts.items() if value is not None}, separators=(",", ":"))
    if cmdline and process.cmdline:
        room = MAX_COMMENT_BYTES - len(PREFIX) - len(text) - len(',"command_line":[]')
        arguments = ",".join(_arguments(process.cmdline, room))
        text = f'{text[:-1]}{"," if len(text) > 2 else ""}"command_line":[{arguments}]}}'
    return PREFIX + text


def _arguments(cmdline: tuple[str, ...], room: int) -> Iterator[str]:
    cut = json.dumps(_CUT)
    for argument in cmdline:
        short = argument if len(argument) <= MAX_PATH else argument[:MAX_PATH] + _CUT
        encoded = json.dumps(_spelled(short, len(short)))
        room -= len(encoded) + 1
        if room < len(cut):
            yield cut
            return
        yield encoded


def parse_process(text: str) -> ProcessFacts | None:
    """Return what a process's comment says; None for one that is not pktproc's. Values of a wrong kind are unknown."""
    if not text.startswith(PREFIX):
        return None
    try:
        facts = json.loads(text[len(PREFIX) :])
    except (ValueError, RecursionError):
        return None
    if not isinstance(facts, dict):
        return None
    parent = facts.get("parent")
    parent = parent if isinstance(parent, dict) else {}
    arguments = facts.get("command_line")
    words = [_text(argument) for argument in arguments] if isinstance(arguments, list) else []
    known = [word for word in words if word is not None]
    return ProcessFacts(
        start_ns=_time_ns(facts.get("start")),
        start_ticks=_number(facts.get("start_ticks"), _MAX_NS) or 0,
        exe=_text(facts.get("executable")),
        cmdline=tuple(known) if known and len(known) == len(words) else None,
        uid=_number(facts.get("user"), _MAX_PID),
        ppid=_number(parent.get("pid"), _MAX_PID),
        parent_name=_text(parent.get("name")),
        container_id=_text(facts.get("container")),
    )


def _spelled(text: str | None, characters: int) -> str | None:
    """Return the beginning of a text as JSON can carry it, in a way that `_unspelled` takes back."""
    if text is None:
        return None
    return spell_surrogates(_MISTAKABLE.sub(r"\\x5c", text[:characters]))


def _unspelled(text: str) -> str:
    return _SPELLED.sub(_unspell, text) if "\\" in text else text


def _unspell(found: re.Match[str]) -> str:
    code = int(found[0].lstrip("\\xu"), 16)
    return chr(code + _UNDECODABLE if 0x80 <= code <= 0xFF else code)


def _value(text: str) -> str:
    return text if len(text) <= MAX_NAME and _BARE.fullmatch(text) else json.dumps(_spelled(text, MAX_NAME))


def _bare(value: str) -> str | None:
    """Return the text that a value stands for, None for broken JSON."""
    if not value.startswith('"'):
        return value
    try:
        return _unspelled(str(json.loads(value)))
    except ValueError:
        return None


def _text(value: Any) -> str | None:
    return _unspelled(value) if isinstance(value, str) else None


def _number(value: Any, most: int) -> int | None:
    return value if type(value) is int and 0 <= value <= most else None


def _utc(time_ns: int) -> str | None:
    if time_ns <= 0:
        return None
    second, fraction = divmod(time_ns, _NS_PER_S)
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def _time_ns(text: Any) -> int:
    """Return the time that `_utc` wrote, 0 for what is none."""
    found = _TIME.fullmatch(text) if isinstance(text, str) else None
    if not found:
        return 0
    try:
        second = int(datetime.fromisoformat(f"{found[1]}+00:00").timestamp())
    except ValueError:
        return 0
    time_ns = second * _NS_PER_S + int(found[2])
    return time_ns if 0 < time_ns <= _MAX_NS else 0
