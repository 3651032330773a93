"""Answers by a witness in the kernel where it has one, by looking things up where it has not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from pktproc.attribution.answers import Answer
from pktproc.attribution.engine import Ends, Query, Witness
from pktproc.attribution.index import ConnectionIndex
from pktproc.attribution.lifetimes import MAX_TTL_NS
from pktproc.attribution.turns import Period
from pktproc.attribution.usage import Usage


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
    ) -> list[Answer]:
        """Return an answer for each query and period; see `ConnectionIndex.resolve`."""
        self.hear()
        now = self._clock()
        answers: list[Answer | None] = []
        asked: dict[Query, int] = {}
        waiting: set[Query] = set()
        for query, period in zip(queries, periods, strict=True):
            attribution, settled, lasting = self._usage.testify(query, period)
            if attribution is not None:
                until_ns = now + (MAX_TTL_NS if settled and lasting else 0)
                told = attribution if settled else replace(attribution, final=False)
                answers.append(Answer(told, (), now, now, until_ns))
                continue
            answers.append(None)
            asked[query] = min(period.first_ns, asked.get(query, period.first_ns))
            if not settled:
                waiting.add(query)
        begun = {query: opened_ns for query, opened_ns in opened.items() if query in asked}
        found = self._index.resolve(list(asked), begun, list(asked.values()), reset, mixed)
        looked_up = {
            query: self._looked_up(answer, settled=query not in waiting)
            for query, answer in zip(asked, found, strict=True)
        }
        return [answer or looked_up[query] for query, answer in zip(queries, answers, strict=True)]

    def _looked_up(self, answer: Answer, *, settled: bool) -> Answer:
        """Return an answer of the index as what it is: evidence of another engine, and perhaps not the last word."""
        attribution = answer.attribution
        if attribution.evidence == self._witness.evidence:
            attribution = replace(attribution, evidence=self._witness.fallback)
        if not settled:
            return replace(answer, attribution=replace(attribution, final=False), until_ns=0)
        return replace(answer, attribution=attribution)
