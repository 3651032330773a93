"""Figures in a fixed width, columns that fit, lines that wrap."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from pktproc.output.amounts import Units, amount_text
from pktproc.tui.columns import Column, place, shorten_middle
from pktproc.tui.connection_columns import CONNECTION_COLUMNS, wanted_connection_columns
from pktproc.tui.figures import UNITS, amount_width, clock_text, count_text, sparkline
from pktproc.tui.headline import wrapped
from pktproc.tui.row_columns import GROUPS, ROW_COLUMNS, wanted_columns

TEXT = st.text(max_size=400)


@given(st.floats(0, 1e18), st.sampled_from(UNITS))
def test_amounts_fit_their_column(size: float, units: Units) -> None:
    assert len(amount_text(size, units)) <= amount_width(units)


@given(st.integers(0, 10**13))
def test_counts_have_five_characters_at_most(count: int) -> None:
    assert len(count_text(count)) <= 5


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (99999, "99999"), (123_456, "123k"), (1_234_567, "1.23M")])
def test_counts(count: int, text: str) -> None:
    assert count_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (83.9, "0:01:23"), (3_661, "1:01:01"), (273_906, "3d 04:05:06")]
)
def test_clocks(seconds: float, text: str) -> None:
    assert clock_text(seconds) == text


@pytest.mark.parametrize(
    ("history", "line"),
    [((), "    "), ((0, 0), "    "), ((1,), "   █"), ((0, 1, 1000), "  ▁█"), ((9, 9, 8, 4, 2, 1), "█▅▃▂")],
)
def test_a_sparkline_shows_the_latest_and_never_hides_a_byte(history: tuple[int, ...], line: str) -> None:
    assert sparkline(history, 4) == line


@given(TEXT, st.integers(8, 200))
def test_wrapped_lines_fit_and_lose_nothing_but_blanks(text: str, width: int) -> None:
    lines = wrapped(text, width)
    assert all(cell_len(line) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


@given(TEXT.filter(str.isprintable), st.integers(12, 60))
def test_a_port_is_never_cut_off(text: str, width: int) -> None:
    shown = shorten_middle(text, ":65535", width)
    assert shown.endswith(":65535")
    assert cell_len(shown) <= width


@pytest.mark.parametrize("cumulative", [False, True])
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("width", [20, 40, 60, 79, 80, 100, 132, 200, 400])
def test_columns_fit(width: int, units: Units, cumulative: bool) -> None:
    def check(columns: tuple[Column[object], ...], wanted: tuple[Column[object], ...]) -> None:
        placed = place(columns, wanted, width, amount_width(units))
        assert placed
        assert placed[-1].start + placed[-1].width <= width
        assert wanted[0] in [one.column for one in placed]
        for one, other in itertools.pairwise(placed):
            assert one.start + one.width + 2 == other.start
            assert len(one.column.title) <= one.width

    for group in GROUPS:
        check(ROW_COLUMNS, wanted_columns(group, cumulative=cumulative))  # type: ignore[arg-type]
    check(CONNECTION_COLUMNS, wanted_connection_columns(width, cumulative=cumulative))  # type: ignore[arg-type]


@pytest.mark.parametrize("units", UNITS)
def test_80_columns_have_what_matters(units: Units) -> None:
    titles = [one.column.title for one in place(ROW_COLUMNS, wanted_columns("process", cumulative=False), 80,
                                                amount_width(units))]  # fmt: skip
    assert titles[:2] == ["Name", "PID"]
    assert {"Sent/s", "Recv/s", "Total", "Conns", "History"} <= set(titles)
