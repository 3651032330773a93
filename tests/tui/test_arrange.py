"""Rows in order, and what they add up to."""

from __future__ import annotations

from pktproc.tui.arrange import Order, arrange_rows, sums
from pktproc.tui.columns import Look
from tui.frozen import ROWS, amount, row, view
from tui.screen import written_names

LOOK = Look("iec", written_names())


def test_what_a_view_leaves_out_stands_between_the_named_and_the_unowned() -> None:
    rest = row("others", None, amount(10**12, 10**12), amount(10**12, 10**12))
    found = arrange_rows((rest, *ROWS), Order("Busiest"), "", LOOK)
    assert [one.key[0] for one in found[-3:]] == ["others", "?kernel", "?not-ip"]


def test_lines_without_traffic_keep_their_order() -> None:
    still = tuple(row(f"{at}", None, amount(0, 0), amount(5, 5)) for at in range(20))
    found = arrange_rows(still, Order("Sent/s"), "", LOOK)
    assert found == arrange_rows(tuple(reversed(still)), Order("Sent/s"), "", LOOK)


def test_the_unattributed_part_is_exact() -> None:
    told = view()
    named = sums(view(tuple(one for one in ROWS if one.reason is None)))
    total = sums(told)
    assert named.unattributed == 0
    assert total.unattributed == 10_007 + 5_003 + 2_003 + 4_001
    assert (total.sent, total.internal) == (41_872 + 103_993 + 1_304 + 120 + 42, 7_919)
