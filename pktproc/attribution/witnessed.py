"""Answers by a witness in the kernel where it has one, by looking things up where it has not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from pktproc.attribution.answers import Answer, Reply
from pktproc.attribution.engine import Ends, Query, Witness
from pktproc.attribution.index import ConnectionIndex
from pktproc.attribution.lifetimes import MAX_TTL_NS
from pktproc.attribution.turns import Period
from pktproc.attribution.usage import Usage
from pktproc.model import Attribution, Reason

_reply = partial(tuple.__new__, Reply)  # a third of what the constructor costs
_TO_LOOK_UP = Reply(Attribution(reason=Reason.NOT_COVERED, final=False), 0)


class Witnessed:
    """Ask a witness first and the `index`, which knows what is older than the witness, for the rest.

    `clock` returns monotonic nanoseconds. What the witness could not tell is counted as `lost` in the index's counts.
    """

    def __init__(self, witness: Witness, index: ConnectionIndex, clock: Callable[[], int]) -> None:
        self._witness = witness
        self._index = index
        self._clock = clock
        self._usage = Usage(witness, clock)

    def hear(self) -> None:
        """Take in what the witness has seen; to be called before cached answers are used."""
        lost = self._usage.lost
        for protocol, port in self._usage.drain():
            self._index.staleness.port(protocol, port)
        if self._usage.lost > lost:
            self._index.counts["lost"] = self._usage.lost
            self._index.staleness.everything()

    def resolve(
        self,
        queries: Sequence[Query],
        opened: Mapping[Query, int],
        periods: Sequence[Period],
        reset: Mapping[Ends, int],
        mixed: frozenset[Ends],
    ) -> list[Reply]:
        """Return a reply for each query and period; see `ConnectionIndex.resolve`."""
        self.hear()
        now = self._clock()
        lasting_ns = now + MAX_TTL_NS
        replies: list[Reply] = []
        asked: dict[Query, int] = {}
        waiting: set[Query] = set()
        testify = self._usage.testify
        for query, period in zip(queries, periods, strict=True):
            attribution, settled, lasting = testify(query, period)
            if attribution is None:
                replies.append(_TO_LOOK_UP)
                asked[query] = min(period.first_ns, asked.get(query, period.first_ns))
                if not settled:
                    waiting.add(query)
            elif settled:
                replies.append(_reply((attribution, lasting_ns if lasting else now)))
            else:
                replies.append(Reply(replace(attribution, final=False), now))
        if not asked:
            return replies
        begun = {query: opened_ns for query, opened_ns in opened.items() if query in asked}
        found = self._index.resolve(list(asked), begun, list(asked.values()), reset, mixed)
        looked_up = {
            query: self._looked_up(answer, settled=query not in waiting)
            for query, answer in zip(asked, found, strict=True)
        }
        return [
            looked_up[query] if reply is _TO_LOOK_UP else reply for query, reply in zip(queries, replies, strict=True)
        ]

    def _looked_up(self, answer: Answer, *, settled: bool) -> Reply:
        """Return an answer of the index as what it is: evidence of another engine, and perhaps not the last word."""
        attribution = answer.attribution
        if attribution.evidence == self._witness.evidence:
            attribution = replace(attribution, evidence=self._witness.fallback)
        if not settled:
            return Reply(replace(attribution, final=False), 0)
        return Reply(attribution, answer.until_ns)
