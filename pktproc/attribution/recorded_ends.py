"""Both ends of a flow at one time, looked for on all recorded hosts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pktproc.attribution.ends import FORWARDED, NOT_IP, destination_end, source_end
from pktproc.attribution.engine import Query
from pktproc.attribution.eras import End
from pktproc.attribution.history import Span
from pktproc.attribution.recorded_host import RecordedHost
from pktproc.attribution.steps import Step, Steps, meet
from pktproc.model import Attribution, Flow, Match, Reason

_NOT_COVERED = Attribution(reason=Reason.NOT_COVERED)


class Place(NamedTuple):
    """A namespace of a recorded host, by the position of the host."""

    host: int
    netns: int


class Ends(NamedTuple):
    """The answers for both ends of a flow; an end that is on none of the hosts is None."""

    source: Attribution | None
    destination: Attribution | None


_Answers = dict[Place, Attribution]


class EndSearch:
    """Look for the ends of a flow at `time_ns`.

    `begins` are the beginnings of TCP connections between its ends, as far as was read of the capture: until `read_ns`.
    `connections`, after a search, are the times of the recorded sockets that are connected with them.
    """

    def __init__(
        self, hosts: Sequence[RecordedHost], time_ns: int, begins: Sequence[tuple[int, End]], read_ns: int
    ) -> None:
        self._hosts = hosts
        self._time_ns = time_ns
        self._begins, self._read_ns = begins, read_ns
        self.connections: list[Span] = []
        self._steps: list[Step[object]] = []

    def ends(self, flow: Flow) -> Step[Ends]:
        """Return the answers for a flow and the time for which they hold."""
        if flow.protocol < 0:
            return Step(None, None, Ends(NOT_IP, NOT_IP))
        sources = self._places(lambda host: host.homes(flow.source_address, flow))
        destinations = self._places(lambda host: host.homes(flow.destination_address, flow))
        fan_out = not sources and not destinations
        if fan_out:  # what a namespace itself sends to all comes back to it by other ways than the wire
            destinations = self._places(lambda host: host.hearers(flow.destination_address, flow))
        by_source = {place: self._answer(place, source_end(flow, place.netns, 0)) for place in sources}
        by_destination = {
            place: self._answer(place, destination_end(flow, place.netns, 0, fan_out=fan_out)) for place in destinations
        }
        if by_source or by_destination:
            ends = _choose(by_source, by_destination)
        else:
            away = FORWARDED if self._was_recorded() else _NOT_COVERED
            ends = Ends(away, away)
        return meet(ends, self._steps)

    def _places(self, look_up: Callable[[RecordedHost], Steps[tuple[int, ...]]]) -> list[Place]:
        found = [look_up(host).at(self._time_ns) for host in self._hosts]
        self._steps += found
        return [Place(number, netns) for number, step in enumerate(found) for netns in step.value]

    def _was_recorded(self) -> bool:
        found = [host.covering.at(self._time_ns) for host in self._hosts]
        self._steps += found
        return any(step.value.inside for step in found if step.value)

    def _answer(self, place: Place, end: Attribution | Query) -> Attribution:
        if not isinstance(end, Query):
            return end
        host = self._hosts[place.host]
        timeline = host.timeline(end, self._begins)
        self.connections += timeline.connections
        told = host.testified(end, self._time_ns)
        self._steps.append(told)
        if told.value is not None:
            return told.value
        step = timeline.at(self._time_ns, self._read_ns)
        self._steps.append(step)
        return step.value


def _choose(by_source: _Answers, by_destination: _Answers) -> Ends:
    """Return the answers of the places in which the ends live; an address can be that of several places.

    Both ends of loopback packets are in one place, so one that surely has no socket for either end is none of them.
    """
    if len(by_source) > 1 and by_source.keys() == by_destination.keys():
        left = [
            place
            for place, answer in by_source.items()
            if Reason.NO_SOCKET not in (answer.reason, by_destination[place].reason)
        ]
        if len(left) == 1:
            return Ends(by_source[left[0]], by_destination[left[0]])
    return Ends(_best(by_source), _best(by_destination))


def _best(answers: _Answers) -> Attribution | None:
    if len(answers) <= 1:
        return next(iter(answers.values()), None)
    exact = [answer for answer in answers.values() if answer.match is Match.EXACT]
    if len(exact) == 1 and all(a is exact[0] or a.reason is Reason.NO_SOCKET for a in answers.values()):
        return exact[0]
    candidates = tuple(dict.fromkeys(process for answer in answers.values() for process in answer.holders))
    reasons = {answer.reason for answer in answers.values()}
    if not candidates and len(reasons) == 1:
        return next(iter(answers.values()))
    return Attribution(reason=Reason.AMBIGUOUS, holders=candidates)
