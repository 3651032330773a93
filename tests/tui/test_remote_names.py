"""Names of remote hosts: asked for beside the screen, remembered, forgotten."""

from __future__ import annotations

import threading
import time

import pytest

from pktproc.model import pack_address
from pktproc.tui.remote_names import RemoteNames, ask_system

ONE, OTHER = pack_address("192.0.2.1"), pack_address("2001:db8::1")


def wait_for(names: RemoteNames, address: bytes, name: str | None) -> None:
    deadline = time.monotonic() + 10
    answered = threading.Event()
    while names.name(address) != name:
        assert time.monotonic() < deadline
        answered.wait(0.0005)


def test_a_name_is_there_once_it_was_found() -> None:
    names = RemoteNames({"192.0.2.1": "one.example", "2001:db8::1": "other.example"}.get)
    assert names.name(ONE) is None
    wait_for(names, ONE, "one.example")
    wait_for(names, OTHER, "other.example")
    assert names.known(ONE) == "one.example"


def test_nothing_is_asked_when_names_are_off() -> None:
    asked: list[str] = []

    def resolve(address: str) -> str:
        asked.append(address)
        return "x"

    names = RemoteNames(resolve, on=False)
    assert names.name(ONE) is None
    names.on = True
    wait_for(names, ONE, "x")
    names.on = False
    assert names.name(ONE) is None
    assert names.known(ONE) is None
    assert asked == ["192.0.2.1"]


def test_each_address_is_asked_for_once_until_its_name_is_old() -> None:
    asked: list[str] = []
    now = [0.0]

    def resolve(address: str) -> str:
        asked.append(address)
        return f"name{len(asked)}"

    names = RemoteNames(resolve, clock=lambda: now[0])
    wait_for(names, ONE, "name1")
    assert [names.name(ONE) for _ in range(100)] == ["name1"] * 100
    now[0] = 601
    wait_for(names, ONE, "name2")
    assert asked == ["192.0.2.1"] * 2


def test_a_resolver_that_hangs_holds_nothing_up() -> None:
    hanging, release = threading.Semaphore(0), threading.Event()

    def resolve(address: str) -> str:
        del address
        hanging.release()
        release.wait(30)
        return "late"

    names = RemoteNames(resolve)
    addresses = [pack_address(f"10.0.{high}.{low}") for high in range(8) for low in range(250)]
    begin = time.perf_counter()
    assert {names.name(address) for address in addresses} == {None}
    assert time.perf_counter() - begin < 1
    assert all(hanging.acquire(timeout=10) for _ in range(4))
    assert not hanging.acquire(blocking=False), "no more than four threads ask"
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "remote-names")
    release.set()
    wait_for(names, addresses[0], "late")


def test_what_found_no_room_is_asked_for_later() -> None:
    names = RemoteNames(lambda address: f"host-{address}")
    addresses = [pack_address(f"10.1.{high}.{low}") for high in range(8) for low in range(250)]
    for address in addresses:
        names.name(address)
    for address in addresses:
        wait_for(names, address, f"host-10.1.{address[14]}.{address[15]}")


@pytest.mark.parametrize("answer", ["192.0.2.1", "not an address"])
def test_the_systems_resolver_knows_no_such_name(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> tuple[str, str]:
        raise OSError(answer)

    monkeypatch.setattr("socket.getnameinfo", refuse)
    assert ask_system(answer) is None
