"""The Lua file: fields for both ends from the comments of packets, and no error whatever a comment holds."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pktproc.model import Attribution, Match, Process, Reason
from pktproc.packets.annotations import comment_text
from wireshark.commented_file import write
from wireshark.tshark import LUA, Fields, fields, frames, tshark

KINDS = ("pid", "name", "match", "reason", "holder", "evidence")
EITHER = tuple(f"pktproc.{kind}" for kind in KINDS)
EVERY = (*EITHER, *(f"pktproc.{end}.{kind}" for end in ("src", "dst") for kind in KINDS))

BOTH = (
    "pktproc src.pid=4711 src.name=curl src.match=exact "
    "dst.pid=812 dst.name=nginx dst.match=shared dst.holders=812,813 by=netlink"
)
QUOTED = r'pktproc src.pid=4711 src.name="we\"ird n\u00e4me" src.match=bound dst.reason=closed by=snapshot'
RECEIVER = "pktproc dst.pid=5 dst.name=python3.11 dst.match=listener by=procfs"


def only(tmp_path: Path, *comments: str | bytes) -> Fields:
    """Return pktproc's fields of one packet with these comments."""
    (found,) = fields(tmp_path, write(tmp_path / "one.pcapng", [comments]), *EVERY)
    return found


def test_every_key_becomes_fields_of_its_end_and_of_either(tmp_path: Path) -> None:
    assert only(tmp_path, BOTH) == {
        "pktproc.src.pid": ["4711"],
        "pktproc.src.name": ["curl"],
        "pktproc.src.match": ["exact"],
        "pktproc.src.evidence": ["netlink"],
        "pktproc.dst.pid": ["812"],
        "pktproc.dst.name": ["nginx"],
        "pktproc.dst.match": ["shared"],
        "pktproc.dst.holder": ["812", "813"],
        "pktproc.dst.evidence": ["netlink"],
        "pktproc.pid": ["4711", "812"],
        "pktproc.name": ["curl", "nginx"],
        "pktproc.match": ["exact", "shared"],
        "pktproc.holder": ["812", "813"],
        "pktproc.evidence": ["netlink", "netlink"],
    }


def test_an_end_without_process_has_its_reason(tmp_path: Path) -> None:
    comment = "pktproc src.reason=ambiguous src.holders=7,8 dst.reason=closed src.by=netlink dst.by=ebpf"
    assert only(tmp_path, comment) == {
        "pktproc.src.reason": ["ambiguous"],
        "pktproc.src.holder": ["7", "8"],
        "pktproc.src.evidence": ["netlink"],
        "pktproc.dst.reason": ["closed"],
        "pktproc.dst.evidence": ["ebpf"],
        "pktproc.reason": ["ambiguous", "closed"],
        "pktproc.holder": ["7", "8"],
        "pktproc.evidence": ["netlink", "ebpf"],
    }


def test_an_end_elsewhere_has_no_field(tmp_path: Path) -> None:
    assert only(tmp_path, RECEIVER).keys() == {
        *(f"pktproc.dst.{kind}" for kind in ("pid", "name", "match", "evidence")),
        *(f"pktproc.{kind}" for kind in ("pid", "name", "match", "evidence")),
    }


@pytest.mark.parametrize(
    ("filter_", "passing"),
    [
        ('pktproc.name == "curl"', [1]),
        ('pktproc.src.name == "curl"', [1]),
        ('pktproc.dst.name == "curl"', []),
        ("pktproc.pid == 4711", [1, 2]),
        ("pktproc.pid in {812, 5}", [1, 3]),
        ("pktproc.holder == 813", [1]),
        (r'pktproc.name == "we\"ird näme"', [2]),
        ('pktproc.name matches "^python"', [3]),
        ('pktproc.match == "listener" or pktproc.reason == "closed"', [2, 3]),
        ("pktproc.dst.pid < 100", [3]),
        ("pktproc", [1, 2, 3]),
        ("not pktproc", [4, 5]),
    ],
)
def test_fields_are_filters(tmp_path: Path, filter_: str, passing: list[int]) -> None:
    path = write(tmp_path / "file.pcapng", [[BOTH], [QUOTED], [RECEIVER], ["curl"], []])
    assert frames(tmp_path, path, filter_) == passing


def test_fields_are_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "file.pcapng", [[BOTH]])
    columns = 'gui.column.format:"Process","%Cus:pktproc.name","Receiver","%Cus:pktproc.dst.pid"'
    assert tshark(tmp_path, "-r", path, "-o", columns).split() == ["curl,nginx", "812"]


def test_the_details_tell_both_ends(tmp_path: Path) -> None:
    details = tshark(tmp_path, "-r", write(tmp_path / "file.pcapng", [[QUOTED]]), "-V")
    assert '[Processes: Source we"ird näme[4711], Destination ?closed]' in details
    assert '    [Source name: we"ird näme]' in details


def test_other_peoples_comments_stay_and_are_not_read(tmp_path: Path) -> None:
    found = only(tmp_path, "seen at noon", RECEIVER, "pktproc is a fine program", "src.pid=1")
    assert found["pktproc.pid"] == ["5"]
    path = tmp_path / "one.pcapng"
    assert frames(tmp_path, path, 'frame.comment == "seen at noon"') == [1]


@pytest.mark.parametrize(
    "name",
    ["two words", "a,b", "a=b", "C:\\x", 'q"uote', "snowman \u2603", "clef \U0001d11e", "x" * 200, "x" * 50_000, " "],
)
def test_a_quoted_name_is_the_name(tmp_path: Path, name: str) -> None:
    found = only(tmp_path, f"pktproc src.pid=1 src.name={json.dumps(name)} src.match=exact by=netlink")
    assert found["pktproc.src.name"] == found["pktproc.name"] == [name]
    assert found["pktproc.match"] == ["exact"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("a\nb\tc\rd\be\ff", r"a\x0ab\x09c\x0dd\x08e\x0cf"),
        ("nul\0behind", r"nul\x00behind"),
        ("del\x7f c1\x9b", r"del\x7f c1\u009b"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("zero\u200bwidth", r"zero\u200bwidth"),
        ("\ud83d alone \ude00", r"\ud83d alone \ude00"),
        ("tag\U000e0041", r"tag\U000e0041"),
    ],
)
def test_what_could_deceive_the_eye_is_spelled_out(tmp_path: Path, name: str, shown: str) -> None:
    found = only(tmp_path, f"pktproc src.pid=1 src.name={json.dumps(name)}")
    assert found["pktproc.name"] == [shown]


BROKEN: list[str | bytes] = [
    "pktproc",
    "pktproc ",
    "pktproc src.pid",
    "pktproc src.pid=",
    "pktproc src.pid=x src.name=a",
    "pktproc src.pid=-1 src.name=a",
    "pktproc src.pid=1e3 src.name=a",
    "pktproc src.pid=0x10 src.name=a",
    "pktproc src.pid=1,2 src.name=a",
    "pktproc src.pid=4294967296 src.name=a",
    "pktproc src.pid=" + "9" * 60_000,
    "pktproc src.pid=1 src.holders=1,x",
    "pktproc src.pid=1 src.holders=,",
    "pktproc src.holders=1,2",
    "pktproc src.name=a by=netlink",
    "pktproc src.pid=1  src.name=a",
    "pktproc  src.pid=1",
    "pktproc src.pid=1\nsrc.name=a",
    'pktproc src.pid=1 src.name="a',
    'pktproc src.pid=1 src.name="a\\',
    'pktproc src.pid=1 src.name="a\\x41"',
    'pktproc src.pid=1 src.name="a\\u12"',
    'pktproc src.pid=1 src.name="a"b',
    "pktproc src.pid=1 src.name=n\u00e4me",
    "pktproc src.pid=1 src.name=[x]",
    'pktproc {"start":"2026-11-24T18:13:32Z"}',
    "PKTPROC src.pid=1",
    b"pktproc src.pid=1 src.name=\xff\xfe",
]


def test_a_comment_that_is_not_whole_gives_nothing(tmp_path: Path) -> None:
    found = fields(tmp_path, write(tmp_path / "broken.pcapng", [[comment] for comment in BROKEN]), *EVERY)
    assert len(found) == len(BROKEN)
    assert [comment for comment, layers in zip(BROKEN, found, strict=True) if layers] == []


def test_keys_of_the_future_do_no_harm(tmp_path: Path) -> None:
    comment = 'pktproc v=2 src.pid=1 src.uid=0 src.name=a src.holder=x src.evidence="?" other="x y" mid.pid=9'
    found = only(tmp_path, comment)
    assert found == {
        f"pktproc.{way}{kind}": [value] for way in ("", "src.") for kind, value in (("pid", "1"), ("name", "a"))
    }


PIECES = st.sampled_from(
    [
        *("pktproc ", "src.", "dst.", "pid=", "name=", "match=", "reason=", "holders=", "holder=", "by=", "evidence="),
        *(
            "1",
            "4294967296",
            "12,13",
            ",",
            "-1",
            '"',
            '""',
            "\\",
            "\\u",
            "\\ud83d",
            "\\ude00",
            "00",
            " ",
            "=",
            "x",
            ".",
        ),
    ]
)
WORDS = st.lists(PIECES, max_size=14).map("".join)
KEYS = st.sampled_from(
    [f"{end}.{key}" for end in ("src", "dst", "x") for key in ("pid", "name", "holders", "holder", "by")]
)
VALUES = st.one_of(st.text(st.characters(codec="utf-8")).map(json.dumps), st.text(string.ascii_letters + "0123456789,"))
PAIRS = st.lists(st.tuples(KEYS, VALUES).map("=".join), max_size=5).map(" ".join)
COMMENTS = st.one_of(
    st.one_of(WORDS, PAIRS, st.text(max_size=30)).map(lambda rest: f"pktproc {rest}".encode("utf-8", "replace")),
    st.binary(max_size=60),
)


@given(comments=st.lists(COMMENTS, min_size=1, max_size=60))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_comment_makes_an_error(tmp_path: Path, comments: list[bytes]) -> None:
    found = fields(tmp_path, write(tmp_path / "any.pcapng", [[comment] for comment in comments]), *EVERY)
    assert len(found) == len(comments)


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp"), exclude_characters="\\\\"), max_size=30
)
PROCESSES = st.builds(Process, pid=st.integers(1, 2**22), start_ticks=st.just(1), start_ns=st.just(1), name=NAMES)
OWNED = st.builds(
    Attribution,
    process=PROCESSES,
    match=st.sampled_from(Match),
    evidence=st.sampled_from(["netlink", "ebpf"]),
    holders=st.lists(PROCESSES, max_size=4).map(tuple),
)
UNKNOWN = st.builds(
    Attribution,
    reason=st.sampled_from(Reason),
    evidence=st.sampled_from(["netlink", "ebpf", None]),
    holders=st.lists(PROCESSES, max_size=4).map(tuple),
)
ENDS = st.one_of(st.none(), OWNED, UNKNOWN)


def expected(way: str, end: Attribution | None) -> Fields:
    """Return the fields of one end, without those that do not occur."""
    if end is None:
        return {}
    several = len(end.holders) > (0 if end.process is None else 1)
    values: dict[str, list[Any]] = {
        "pid": [end.process.pid] if end.process else [],
        "name": [end.process.name] if end.process else [],
        "match": [end.match] if end.match else [],
        "reason": [end.reason] if end.reason else [],
        "holder": [holder.pid for holder in end.holders] if several else [],
        "evidence": [end.evidence] if end.evidence else [],
    }
    return {f"pktproc.{way}{kind}": list(map(str, found)) for kind, found in values.items() if found}


@given(pairs=st.lists(st.tuples(ENDS, ENDS), min_size=1, max_size=40))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_pktproc_writes_is_what_wireshark_shows(
    tmp_path: Path, pairs: list[tuple[Attribution | None, Attribution | None]]
) -> None:
    comments = [comment_text(*pair) for pair in pairs]
    found = fields(tmp_path, write(tmp_path / "written.pcapng", [[comment] for comment in comments]), *EVERY)
    for layers, (source, destination) in zip(found, pairs, strict=True):
        one, other = expected("", source), expected("", destination)
        either = {name: one.get(name, []) + other.get(name, []) for name in one | other}
        assert layers == {**expected("src.", source), **expected("dst.", destination), **either}


def test_an_installed_copy_and_a_named_one_go_together(tmp_path: Path) -> None:
    plugins = tmp_path / ".local" / "lib" / "wireshark" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "pktproc.lua").write_bytes(LUA.read_bytes())
    path = write(tmp_path / "file.pcapng", [[BOTH]])
    assert frames(tmp_path, path, 'pktproc.name == "curl"', lua=None) == [1]
    assert fields(tmp_path, path, "pktproc.pid") == [{"pktproc.pid": ["4711", "812"]}]
