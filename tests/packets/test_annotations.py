"""Comments: what is written is read back, whatever the names hold, and nothing that is read raises anything."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pktproc.model import Attribution, Match, Process, Reason
from pktproc.packets.annotations import (
    MAX_HOLDERS,
    MAX_NAME,
    AnnotatedEnd,
    ParsedComment,
    ProcessFacts,
    comment_text,
    parse_comment,
    parse_process,
    process_text,
)

# All code points, lone surrogates included: bytes that are not UTF-8 are such (PEP 383).
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
LOOKALIKES = st.lists(st.sampled_from(["\\", "x", "5c", "ff", "u", "dcff", "\udcff", "\ud800", '"', " ", "\n"])).map(
    "".join
)
NAMES = st.one_of(ANY_TEXT, LOOKALIKES)
PIDS = st.integers(1, 2**32 - 1)
EVIDENCE = st.one_of(st.none(), st.sampled_from(["netlink", "procfs"]), NAMES)


def process(pid: int, name: str = "curl") -> Process:
    return Process(pid, 100, 1, name)


@st.composite
def attributions(draw: st.DrawFn) -> Attribution:
    evidence = draw(EVIDENCE)
    holders = tuple(map(process, draw(st.lists(PIDS, max_size=5))))
    if draw(st.booleans()):
        return Attribution(reason=draw(st.sampled_from(Reason)), evidence=evidence, holders=holders)
    owner = process(draw(PIDS), draw(NAMES))
    return Attribution(owner, draw(st.sampled_from(Match)), evidence, holders=(owner, *holders))


def said(end: Attribution | None) -> AnnotatedEnd | None:
    """What a comment is to say of an end."""
    if end is None:
        return None
    pids = tuple(holder.pid for holder in end.holders)
    if end.process is None:
        return AnnotatedEnd(reason=end.reason, holders=pids, evidence=end.evidence)
    several = pids if len(pids) > 1 else ()
    return AnnotatedEnd(end.process.pid, end.process.name, end.match, None, several, end.evidence)


CURL = Attribution(process(4711), Match.EXACT, "netlink", holders=(process(4711),))
NGINX = Attribution(process(812, "nginx"), Match.SHARED, "netlink", holders=(process(812), process(813)))


@pytest.mark.parametrize(
    ("source", "destination", "text"),
    [
        (CURL, None, "pktproc src.pid=4711 src.name=curl src.match=exact by=netlink"),
        (
            CURL,
            NGINX,
            (
                "pktproc src.pid=4711 src.name=curl src.match=exact "
                "dst.pid=812 dst.name=nginx dst.match=shared dst.holders=812,813 by=netlink"
            ),
        ),
        (
            Attribution(process(9, 'we"ird name'), Match.BOUND, "snapshot"),
            Attribution(reason=Reason.CLOSED),
            r'pktproc src.pid=9 src.name="we\"ird name" src.match=bound dst.reason=closed src.by=snapshot',
        ),
        (None, Attribution(reason=Reason.KERNEL), "pktproc dst.reason=kernel"),
        (
            Attribution(reason=Reason.AMBIGUOUS, evidence="a", holders=(process(7),)),
            Attribution(process(8, "b\x1b\udcff\\xff"), Match.LISTENER, "b"),
            (
                "pktproc src.reason=ambiguous src.holders=7 "
                r'dst.pid=8 dst.name="b\u001b\\xff\\x5cxff" dst.match=listener src.by=a dst.by=b'
            ),
        ),
        (None, None, ""),
    ],
)
def test_a_comment_reads_so(source: Attribution | None, destination: Attribution | None, text: str) -> None:
    assert comment_text(source, destination) == text
    assert parse_comment(text) == (ParsedComment(said(source), said(destination)) if text else None)


@given(source=st.one_of(st.none(), attributions()), destination=st.one_of(st.none(), attributions()))
@settings(max_examples=500)
def test_a_comment_is_read_back_whatever_the_names_hold(
    source: Attribution | None, destination: Attribution | None
) -> None:
    text = comment_text(source, destination)
    assert set(text) <= set(string.printable) - set(string.whitespace) | {" "}
    assert parse_comment(text) == (ParsedComment(said(source), said(destination)) if text else None)


def test_a_comment_fits_into_an_option_whatever_it_has_to_say() -> None:
    holders = tuple(map(process, range(4_000_000_000, 4_000_003_000)))
    end = Attribution(process(4_000_000_000, "\U0001f600" * 5_000), Match.SHARED, "\ud800" * 5_000, holders=holders)
    text = comment_text(end, end)
    assert len(text) < 65_535
    parsed = parse_comment(text)
    assert parsed is not None
    assert parsed.source == parsed.destination
    assert parsed.source is not None
    assert parsed.source.name == "\U0001f600" * MAX_NAME
    assert parsed.source.holders == tuple(range(4_000_000_000, 4_000_000_000 + MAX_HOLDERS))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pktproc",
        "pktproc ",
        "a user's own words",
        "pktproc is a program",
        "pktproc src.pid=4711 and more",
        "pktproc src.pid=4711  src.name=a",
        "pktproc src.pid=4711 ",
        'pktproc src.pid=4711 src.name="curl',
        r'pktproc src.pid=4711 src.name="\q"',
        'pktproc src.pid=4711 src.name="a\nb"',
        "pktproc src.pid=x src.name=a",
        "pktproc src.pid=-1",
        "pktproc src.pid=4294967296",
        "pktproc src.pid=1 src.holders=1,,2",
        "pktproc src.pid=1 src.holders=1,x",
        " pktproc src.pid=1",
    ],
)
def test_what_is_no_comment_of_pktproc_is_none(text: str) -> None:
    assert parse_comment(text) is None


def test_what_later_versions_add_is_passed_over() -> None:
    text = 'pktproc src.pid=1 src.name=a src.match=telepathy src.mood="so so" dst.reason=unheard-of by=x'
    assert parse_comment(text) == ParsedComment(AnnotatedEnd(1, "a", evidence="x"), None)


@given(
    text=st.one_of(
        st.text(),
        st.lists(st.sampled_from(["src.pid=", "dst.reason=closed", "1", '"', "\\", "u12", " ", "by=", "=", "a"])).map(
            lambda words: "pktproc " + "".join(words)
        ),
    )
)
@settings(max_examples=500)
def test_reading_is_total(text: str) -> None:
    parse_comment(text)
    parse_process(text)
    parse_process("pktproc " + text)


WHOLE = Process(
    pid=4711,
    start_ticks=100,
    start_ns=1_795_544_012_120_000_000,
    name="curl",
    exe="/usr/bin/curl",
    cmdline=("curl", "-s", "http://10.77.0.2/a b"),
    uid=0,
    ppid=1,
    parent_name="bash",
    container_id="0123abcd",
)


def facts(of: Process) -> ProcessFacts:
    return ProcessFacts(**{field: getattr(of, field) for field in ProcessFacts._fields})


def test_a_process_reads_so() -> None:
    text = process_text(WHOLE, cmdline=True)
    assert text.startswith("pktproc {")
    assert json.loads(text.removeprefix("pktproc ")) == {
        "start": "2026-11-24T18:13:32.120000000Z",
        "start_ticks": 100,
        "executable": "/usr/bin/curl",
        "command_line": ["curl", "-s", "http://10.77.0.2/a b"],
        "user": 0,
        "parent": {"pid": 1, "name": "bash"},
        "container": "0123abcd",
    }
    assert parse_process(text) == facts(WHOLE)
    assert "command_line" not in process_text(WHOLE, cmdline=False)


def test_of_a_process_of_which_nothing_is_known_nothing_is_said() -> None:
    text = process_text(Process(1, 0, 0, "init"), cmdline=True)
    assert text == "pktproc {}"
    assert parse_process(text) == ProcessFacts()


@given(
    process=st.builds(
        Process,
        pid=PIDS,
        start_ticks=st.integers(0, 2**63 - 1),
        start_ns=st.integers(0, 2**63 - 1),
        name=NAMES,
        exe=st.none() | NAMES,
        cmdline=st.none() | st.lists(NAMES, min_size=1, max_size=5).map(tuple),
        uid=st.none() | st.integers(0, 2**32 - 1),
        ppid=st.none() | PIDS,
        parent_name=st.none() | NAMES,
        container_id=st.none() | NAMES,
    )
)
@settings(max_examples=300)
def test_a_process_is_read_back_whatever_its_strings_hold(process: Process) -> None:
    text = process_text(process, cmdline=True)
    assert text.isascii()
    assert text.isprintable()
    expected = facts(process)
    if process.ppid is None:
        expected = expected._replace(parent_name=None)
    assert parse_process(text) == expected


@pytest.mark.parametrize(
    "cmdline", [("x" * 200_000,), ("\ud800",) * 100_000, ("\U0001f600" * 3_000,) * 10, ("a" * 4_000,) * 20]
)
def test_a_process_fits_into_an_option(cmdline: tuple[str, ...]) -> None:
    long = Process(1, 1, 1, "n", "\U0001f600" * 9_000, cmdline, 0, 1, "\U0001f600" * 9_000, "\U0001f600" * 9_000)
    for process in (long, Process(1, 1, 1, "n", cmdline=cmdline)):
        text = process_text(process, cmdline=True)
        assert len(text) < 65_535
        parsed = parse_process(text)
        assert parsed is not None
        assert parsed.cmdline is not None
        assert parsed.cmdline[-1].endswith("...")


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "7",
        "{",
        "[" * 100_000,
        '{"start":"2026-13-24T18:13:32.120000000Z","user":-1,"parent":7,"command_line":["a",7]}',
        '{"start":7,"start_ticks":true,"executable":[],"user":1e3,"parent":{"pid":"1"},"command_line":{},"container":0}',
        '{"start":"9999-12-31T23:59:59.999999999Z","start_ticks":9223372036854775808,"user":4294967296}',
    ],
)
def test_values_of_a_wrong_kind_are_unknown(body: str) -> None:
    assert parse_process("pktproc " + body) in {None, ProcessFacts()}
