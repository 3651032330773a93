"""Who used a socket when, told in turns or of one process alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pktproc.attribution.engine import Ends
from pktproc.attribution.turns import Period, UsedSocket, users_in
from pktproc.model import Process

MS = 1_000_000
ENDS = Ends(1, 6, bytes(16), 1, bytes(16), 2)
ALONE, LATER = Process(1, 1, 0, "alone"), Process(2, 1, 0, "later")
LONG_AFTER_NS = 10_000 * MS


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 300)), max_size=4),
    st.integers(1, 300),
    st.integers(0, 100),
    st.booleans(),
)
def test_one_process_alone_is_told_as_it_is_in_turns(
    uses: list[tuple[bool, int]], first_ms: int, length_ms: int, outgoing: bool
) -> None:
    alone, shared = UsedSocket(0, ENDS), UsedSocket(0, ENDS)
    for known in (alone, shared):
        for sends, at_ms in sorted(uses, key=lambda use: use[1]):
            (known.sends if sends else known.receives)(at_ms * MS, ALONE)
    shared.sends(LONG_AFTER_NS, LATER)
    period = Period(first_ms * MS, (first_ms + length_ms) * MS)
    assert set(users_in(alone, period, outgoing=outgoing)) == set(users_in(shared, period, outgoing=outgoing))
    if uses:
        assert users_in(shared, Period(2 * LONG_AFTER_NS, 2 * LONG_AFTER_NS), outgoing=True) == [LATER]
