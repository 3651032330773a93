"""The procfs engine from end to end: a tree in, the owners of connections out."""

from __future__ import annotations

import ipaddress
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

from bed.namespaces import NamespacePair
from bed.program import Program
from kernel.fake_proc import CLOSE, HOME, LISTEN, TIME_WAIT, End, FakeProc
from pktproc.attribution.engine import Addresses, Query
from pktproc.attribution.index import ConnectionIndex
from pktproc.kernel import addresses, namespaces
from pktproc.kernel.procfs_engine import ProcfsEngine
from pktproc.model import Attribution, Match, Protocol, Reason, pack_address

OTHER = HOME + 500
CLIENT, SERVER = ("127.0.0.1", 40000), ("127.0.0.1", 80)

FIB_TRIE = textwrap.dedent("""\
    Main:
      +-- 0.0.0.0/0 3 0 5
         |-- 0.0.0.0
            /0 universe UNICAST
         +-- 10.77.0.0/16 2 0 2
            +-- 10.77.0.0/30 2 0 2
               |-- 10.77.0.0
                  /16 link UNICAST
               |-- 10.77.0.1
                  /32 host LOCAL
            |-- 10.77.255.255
               /32 link BROADCAST
    Local:
      +-- 127.0.0.0/8 2 0 2
         +-- 127.0.0.0/31 1 0 0
            |-- 127.0.0.0
               /8 host LOCAL
            |-- 127.0.0.1
               /32 host LOCAL
         |-- 127.255.255.255
            /32 link BROADCAST
    """)
IF_INET6 = textwrap.dedent("""\
    00000000000000000000000000000001 01 80 10 80       lo
    fd770000000000000000000000000001 02 10 00 80    left0
    """)


def query(local: End, remote: End, protocol: int = Protocol.TCP, netns: int = HOME) -> Query:
    return Query(netns, protocol, pack_address(local[0]), local[1], pack_address(remote[0]), remote[1])


def ask(fake: FakeProc, asked: Query) -> Attribution:
    index = ConnectionIndex(ProcfsEngine(fake.root), time.monotonic_ns, time.time_ns)
    return index.resolve([asked])[0].attribution


def owner(fake: FakeProc, asked: Query) -> tuple[int, Match | None]:
    found = ask(fake, asked)
    assert found.process is not None, found
    assert found.evidence == "procfs"
    return found.process.pid, found.match


def test_the_same_tuple_in_two_namespaces_has_two_owners(fake: FakeProc) -> None:
    for pid, netns in ((10, HOME), (20, OTHER)):
        fake.start(pid, netns=netns, sockets=[pid])
        fake.open("tcp", CLIENT, SERVER, inode=pid, netns=netns)
    assert owner(fake, query(CLIENT, SERVER)) == (10, Match.EXACT)
    assert owner(fake, query(CLIENT, SERVER, netns=OTHER)) == (20, Match.EXACT)


def test_tcp_and_udp_on_one_port_have_two_owners(fake: FakeProc) -> None:
    fake.start(10, sockets=[10])
    fake.start(20, sockets=[20])
    fake.open("tcp", ("0.0.0.0", 53), state=LISTEN, inode=10)
    fake.open("udp", ("0.0.0.0", 53), state=CLOSE, inode=20)
    assert owner(fake, query(("10.77.0.1", 53), ("10.77.0.2", 5000))) == (10, Match.LISTENER)
    assert owner(fake, query(("10.77.0.1", 53), ("10.77.0.2", 5000), Protocol.UDP)) == (20, Match.BOUND)


@pytest.mark.parametrize(("table", "protocol"), [("tcp6", Protocol.TCP), ("udp6", Protocol.UDP)])
def test_a_dual_stack_socket_takes_ipv4(fake: FakeProc, table: str, protocol: int) -> None:
    fake.start(10, sockets=[10])
    fake.open(table, ("::", 80), state=LISTEN if protocol == Protocol.TCP else CLOSE, inode=10)
    assert owner(fake, query(("10.77.0.1", 80), ("10.77.0.2", 5000), protocol))[0] == 10
    assert owner(fake, query(("fd77::1", 80), ("fd77::2", 5000), protocol))[0] == 10


def test_a_connection_with_mapped_addresses_is_ipv4(fake: FakeProc) -> None:
    fake.start(10, sockets=[10])
    fake.open("tcp6", ("::ffff:10.77.0.1", 80), ("::ffff:10.77.0.2", 5000), inode=10)
    assert owner(fake, query(("10.77.0.1", 80), ("10.77.0.2", 5000))) == (10, Match.EXACT)


def test_udplite_raw_and_ping_sockets_are_found(fake: FakeProc) -> None:
    fake.start(10, sockets=[10])
    fake.start(20, sockets=[20])
    fake.start(30, sockets=[30])
    fake.open("udplite", ("10.77.0.1", 7), state=CLOSE, inode=10)
    fake.open("raw", ("0.0.0.0", 89), state=CLOSE, inode=20)
    fake.open("icmp6", ("::", 4711), state=CLOSE, inode=30)
    assert owner(fake, query(("10.77.0.1", 7), ("10.77.0.2", 5000), Protocol.UDPLITE))[0] == 10
    assert owner(fake, query(("10.77.0.1", 0), ("10.77.0.2", 0), 89))[0] == 20
    assert owner(fake, query(("fd77::1", 4711), ("fd77::2", 0), Protocol.ICMPV6))[0] == 30


def test_a_socket_that_nobody_holds_any_more_is_closed(fake: FakeProc) -> None:
    fake.start(10)
    fake.open("tcp", CLIENT, SERVER, state=TIME_WAIT, inode=0)
    found = ask(fake, query(CLIENT, SERVER))
    assert (found.process, found.reason) == (None, Reason.CLOSED)


def test_every_table_is_read_once_for_all_queries(fake: FakeProc) -> None:
    fake.start(10, sockets=range(1000, 1100))
    for number in range(100):
        fake.open("tcp", ("10.77.0.1", 2000 + number), ("10.77.0.2", 80), inode=1000 + number)
    asked = [query(("10.77.0.1", 2000 + number), ("10.77.0.2", 80)) for number in range(100)]
    found = ProcfsEngine(fake.root).candidates(asked)
    assert [[socket.inode for socket in sockets] for sockets in found] == [[1000 + number] for number in range(100)]


def test_all_sockets_of_a_namespace_are_listed(fake: FakeProc) -> None:
    fake.start(10)
    fake.start(20, netns=OTHER)
    fake.open("tcp", CLIENT, SERVER, inode=1)
    fake.open("udp6", ("::", 53), inode=2)
    fake.open("raw6", ("::", 58), inode=3)
    fake.open("tcp", CLIENT, SERVER, inode=4, netns=OTHER)
    engine = ProcfsEngine(fake.root)
    assert [socket.inode for socket in engine.sockets(HOME)] == [1, 2, 3]
    assert [socket.inode for socket in engine.sockets(OTHER)] == [4]
    assert engine.sockets(OTHER + 1) == []
    assert not engine.readable(OTHER + 1)


def test_a_namespace_is_read_through_another_process_when_the_first_is_gone(fake: FakeProc) -> None:
    fake.start(10, netns=OTHER)
    fake.start(20, netns=OTHER)
    fake.open("tcp", CLIENT, SERVER, inode=4, netns=OTHER)
    engine = ProcfsEngine(fake.root)
    assert len(engine.sockets(OTHER)) == 1
    fake.end(10)
    assert len(engine.sockets(OTHER)) == 1
    fake.end(20)
    assert engine.sockets(OTHER) == []
    assert OTHER not in engine.namespaces()


def test_a_pid_that_moved_to_another_namespace_is_not_read_for_the_old_one(fake: FakeProc) -> None:
    fake.start(10, netns=OTHER)
    fake.open("tcp", CLIENT, SERVER, inode=1)
    engine = ProcfsEngine(fake.root)
    fake.end(10)
    fake.start(10, netns=HOME)
    assert engine.sockets(OTHER) == []


def test_namespaces_are_found_by_their_eldest_process(fake: FakeProc) -> None:
    fake.start(30, netns=OTHER)
    fake.start(20, netns=OTHER)
    fake.start(10)
    found = namespaces.discover(fake.root)
    assert (found[HOME].pid, found[OTHER].pid) == (10, 20)
    assert found[OTHER].path == fake.root / "20" / "ns" / "net"


def test_addresses_come_from_the_tables(fake: FakeProc) -> None:
    fake.start(10)
    fake.write_net("fib_trie", FIB_TRIE)
    fake.write_net("if_inet6", IF_INET6)
    found = ProcfsEngine(fake.root).addresses(HOME)
    assert found.local == {pack_address(text) for text in ("10.77.0.1", "127.0.0.1", "::1", "fd77::1")}
    assert found.broadcast == {pack_address(text) for text in ("10.77.255.255", "127.255.255.255")}


def test_missing_address_tables_give_no_addresses(tmp_path: Path) -> None:
    assert addresses.from_procfs(tmp_path) == Addresses()


def test_a_name_whose_namespace_is_gone_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name can vanish between the listing of the folder and the look at the name."""
    names = tmp_path / "netns"
    names.mkdir()
    (names / "vanished").symlink_to(tmp_path / "nothing")
    monkeypatch.setattr(namespaces, "NAMED_FOLDERS", (names,))
    assert namespaces.current() in namespaces.discover()


@pytest.mark.live
def test_real_namespaces_are_read_with_and_without_a_process(pair: NamespacePair) -> None:
    engine = ProcfsEngine()
    left, right = pair.left, pair.right
    with Program("tcp_server", right.v4, 7900, namespace=right).ready() as server:
        assert {left.inode, right.inode} <= engine.namespaces()
        asked = [query((side.v4, 7900), (left.v4, 5000), netns=side.inode) for side in (left, right)]
        assert [len(found) for found in engine.candidates(asked)] == [0, 1]
        index = ConnectionIndex(engine, time.monotonic_ns, time.time_ns)
        found = index.resolve(asked)[1].attribution
        assert found.process is not None
        assert found.process.pid == server.pid
        for side in (left, right):
            local = engine.addresses(side.inode).local
            listed = {
                pack_address(text)
                for line in side.run("ip", "-o", "address").splitlines()
                for text in [line.split()[3].partition("/")[0]]
            }
            assert listed == local


def test_the_addresses_of_this_namespace_are_those_of_ip() -> None:
    done = subprocess.run(["ip", "-o", "address"], capture_output=True, text=True, check=True)
    listed = {pack_address(str(ipaddress.ip_interface(line.split()[3]).ip)) for line in done.stdout.splitlines()}
    assert addresses.from_procfs(Path("/proc/self/net")).local == listed
