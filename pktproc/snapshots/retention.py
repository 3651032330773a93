"""Drop the oldest evidence of a store that grows too large or too old."""

from __future__ import annotations

from pktproc.snapshots.store import Store

MIN_BYTES = 8 << 20
# What the log may take besides: what is in it before it is taken over, and the pages that a batch of deletions touches.
_RESERVE_BYTES = 3 << 20
_BATCH = 250
# So many sockets at most are dropped after each look, lest the next one be late.
_BATCHES = 16
# More is dropped than need be, by this part of the limit, so that not every look drops a little.
_SLACK = 10

_OLD = "last <= :cut AND coalesce(before, last) <= :cut"
_OLD_SOCKETS = f"SELECT id FROM socket WHERE {_OLD} ORDER BY last LIMIT :batch"  # noqa: S608 - constants
_DROP_SOCKETS = (
    f"DELETE FROM use WHERE socket IN ({_OLD_SOCKETS})",  # noqa: S608 - constants
    f"DELETE FROM holder WHERE socket IN ({_OLD_SOCKETS})",  # noqa: S608 - constants
    f"DELETE FROM socket WHERE id IN ({_OLD_SOCKETS})",  # noqa: S608 - constants
)
_DROP_OTHERS = (
    f"DELETE FROM address WHERE {_OLD}",  # noqa: S608 - constants
    "DELETE FROM process WHERE last <= :cut AND id NOT IN (SELECT process FROM holder)",
)
_CUT_COVERAGE = (
    "DELETE FROM deaf WHERE last < :cut",
    "DELETE FROM unwitnessed WHERE last < :cut",
    "DELETE FROM coverage WHERE last < :cut",
    "UPDATE coverage SET first = :cut WHERE first < :cut",
    "DELETE FROM host WHERE id NOT IN (SELECT host FROM coverage)",
)
_OLDEST = "SELECT min(last) FROM socket"
_OLDEST_FEW = "SELECT max(last) FROM (SELECT last FROM socket WHERE last IS NOT NULL ORDER BY last LIMIT ?)"


class Retention:
    """Keep a store below `max_bytes` and free of what ended more than `max_age_ns` ago; None stands for no limit.

    What was dropped is no longer covered. What is still true stays: `cramped` says that this alone is too much.
    """

    def __init__(self, store: Store, *, max_bytes: int | None = None, max_age_ns: int | None = None) -> None:
        self._store = store
        self._limit_bytes = None if max_bytes is None else max(max_bytes, MIN_BYTES) - _RESERVE_BYTES
        self._max_age_ns = max_age_ns
        self._cut_ns: int | None = None
        self._shrinking = False
        self.cramped = False

    def apply(self, now_ns: int) -> None:
        """Drop what is too much or too old by now, or a part of it if it is much."""
        if self._cut_ns is None:
            self._cut_ns = self._aged(now_ns) or self._oversized()
        if self._cut_ns is not None and self._drop(self._cut_ns):
            self._cut_ns = None

    def _aged(self, now_ns: int) -> int | None:
        """Return the time up to which all is too old, if something is by far."""
        if self._max_age_ns is None:
            return None
        begun = (self._store.number(query) for query in ("SELECT min(first) FROM coverage", _OLDEST))
        oldest_ns = min((time_ns for time_ns in begun if time_ns is not None), default=now_ns)
        is_old = oldest_ns < now_ns - self._max_age_ns - self._max_age_ns // _SLACK
        return now_ns - self._max_age_ns if is_old else None

    def _oversized(self) -> int | None:
        """Return the time up to which the oldest sockets ended that have to go, if the store is too large."""
        if self._limit_bytes is None:
            return None
        goal_bytes = self._limit_bytes - (self._limit_bytes // _SLACK if self._shrinking else 0)
        if self._store.used_bytes() > goal_bytes:
            self._shrinking = True
            cut_ns = self._store.number(_OLDEST_FEW, (_BATCH * (_BATCHES - 1),))
            self.cramped |= cut_ns is None
            return cut_ns
        if self._shrinking:
            self._shrinking = False
            self._store.shrink()
        return None

    def _drop(self, cut_ns: int) -> bool:
        """Drop what ended until a time; return whether all of it is gone."""
        values = {"cut": cut_ns, "batch": _BATCH}
        with self._store.transaction():  # first, so that what is gone is never taken for what never was
            for statement in _CUT_COVERAGE:
                self._store.execute(statement, values)
        for _ in range(_BATCHES):
            with self._store.transaction():
                dropped = [self._store.execute(statement, values) for statement in _DROP_SOCKETS][-1]
            if dropped < _BATCH:
                break
        else:
            return False
        with self._store.transaction():
            for statement in _DROP_OTHERS:
                self._store.execute(statement, values)
        return True
