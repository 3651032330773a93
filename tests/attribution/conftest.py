"""A host with its clock, and the index that asks it."""

from __future__ import annotations

import pytest

from attribution.host import Clock, Host
from attribution.traffic import Walk
from pktproc.attribution.index import ConnectionIndex


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def host(clock: Clock) -> Host:
    return Host(clock)


@pytest.fixture
def deaf(clock: Clock) -> Host:
    """A host whose engine knows neither cookies nor the ends of sockets, as procfs."""
    return Host(clock, hears_ends=False)


@pytest.fixture
def index(host: Host, clock: Clock) -> ConnectionIndex:
    return ConnectionIndex(host, clock, clock.wall_ns)


@pytest.fixture
def walk(clock: Clock, host: Host) -> Walk:
    return Walk(clock, host)
