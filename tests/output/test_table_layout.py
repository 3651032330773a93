"""Tables of text: aligned, cut, coloured, and the same either way they are made."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from inventory.entries import entry, holder, inet, unix
from pktproc.inventory.rows import Entry, Listing
from pktproc.output.socket_ends import Ends
from pktproc.output.socket_table import Look, table
from pktproc.output.table_layout import Column, cells, cut, lay_out

SGR = re.compile(r"\x1b\[\d*m")
PRINTABLE = st.text(st.characters(codec="utf-8").filter(str.isprintable), max_size=12)


def test_columns_are_aligned() -> None:
    drawn = lay_out([Column("Name", ["a", "bcd"]), Column("N", ["1", "22"], right=True), Column("Last", ["", "x"])])
    assert drawn == "Name  N Last\na     1\nbcd  22 x\n"


def test_wide_characters_take_two_cells() -> None:
    drawn = lay_out([Column("A", ["日本", "ab"]), Column("B", ["x", "y"])], header=False)
    assert drawn == "日本 x\nab   y\n"


@given(PRINTABLE)
def test_cells_are_what_rich_counts(text: str) -> None:
    simple = "".join(character for character in text if ord(character) < 0x3000)
    if simple.isascii():
        assert cells(simple) == cell_len(simple)
    assert cells(cut(text, 5)) <= 5


@given(st.lists(st.tuples(PRINTABLE, PRINTABLE), min_size=1, max_size=5), st.integers(20, 60))
def test_no_line_is_wider_than_the_terminal(rows: list[tuple[str, str]], width: int) -> None:
    columns = [Column("One", [one for one, _ in rows], least=4), Column("Two", [two for _, two in rows], least=4)]
    for line in lay_out(columns, width=width, colour=True).splitlines():
        assert cells(SGR.sub("", line)) <= width


def test_colour_changes_nothing_but_colour() -> None:
    columns = [Column("State", ["LISTEN", "ESTAB"], styles={"LISTEN": "32"}), Column("Who", ["a", "-"], bold=True)]
    coloured = lay_out(columns, colour=True)
    assert "\x1b[32mLISTEN\x1b[0m" in coloured
    assert SGR.sub("", coloured) == lay_out(columns)


HOSTILE = "evil\x1b]0;x\x07\n\u202e\udcff"
ENTRIES: list[Entry] = [
    entry(inet("127.0.0.1:80", "127.0.0.1:4000", inode=1), holder(7, HOSTILE)),
    entry(unix(b"/run/" + HOSTILE.encode("utf-8", "surrogateescape"), inode=2), holder(8, "a b[c]")),
    entry(inet("127.0.0.1:80", inode=0, cookie=5, state=6), holder(9, HOSTILE), last=True),
]


@pytest.mark.parametrize("look", [Look(), Look(width=60, colour=True), Look(extended=True, peers=True)])
def test_nothing_that_a_program_calls_itself_reaches_the_terminal_unspelled(look: Look) -> None:
    listing = Listing(ENTRIES, namespaces={ENTRIES[0].row.netns: HOSTILE}, interfaces={})
    drawn = table(listing, Ends({}), look._replace(namespaces=True))
    assert all(line.isprintable() for line in SGR.sub("", drawn).replace("\t", "").splitlines())
    assert len(SGR.sub("", drawn).splitlines()) == 1 + len(ENTRIES) * (2 if look.extended or look.width else 1)
    assert '"evil\\x1b]0;x\\x07\\x0a\\u202e\\xff"[7] fd 3' in drawn
    assert '"a b[c]"[8] fd 3' in drawn
    assert "was " in drawn
