"""The programs in this kernel: loaded, read, detached; and what is said where they cannot be."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from bed.waiting import until
from pktproc.errors import EngineError, Unsupported
from pktproc.kernel.cgroups import cgroup_root
from pktproc.kernel.ebpf import libbpf
from pktproc.kernel.ebpf.events import Kind, ProcessEvent, SocketEvent, process_facts
from pktproc.kernel.ebpf.programs import HOOKS, Programs

SO_COOKIE, IP_LOCAL_PORT_RANGE = 57, 51  # include/uapi/asm-generic/socket.h, include/uapi/linux/in.h
# This kernel has all that others stand in for.
WANTED = [hook for hook in HOOKS if not hook.instead_of]


def program_ids(pid: int) -> list[str]:
    """Return the numbers of the programs that a process holds, by loading or by a link (/proc/PID/fdinfo)."""
    found = []
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            fields = entry.read_text().split()
        except FileNotFoundError:
            continue
        if "prog_id:" in fields:
            found.append(fields[fields.index("prog_id:") + 1])
    return found


def is_loaded(program_id: str) -> bool:
    shown = subprocess.run(["bpftool", "prog", "show", "id", program_id], capture_output=True, check=False)
    return shown.returncode == 0


def wait_until_unloaded(program_ids: list[str]) -> None:
    """Wait for the kernel, which frees programs after a grace period; AssertionError if it does not."""
    until(lambda: not any(map(is_loaded, program_ids)))


@contextmanager
def following_packets() -> Iterator[Programs]:
    """Load the programs as for a capture."""
    with Programs() as programs:
        programs.attend_packets()
        yield programs


@contextmanager
def following_sockets() -> Iterator[Programs]:
    """Load the programs as for who wants to know of sockets alone."""
    with Programs() as programs:
        assert programs.attend_sockets() is False
        yield programs


def used_sockets(programs: Programs) -> list[SocketEvent]:
    return [
        event
        for event in programs.read().events
        if isinstance(event, SocketEvent) and event.process and process_facts(event.process).pid == os.getpid()
    ]


def exchange() -> tuple[int, int]:
    """Return the ports of a client and a server that exchanged a byte."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        client.sendall(b"x")
        server.recv(1)
        return client.getsockname()[1], listener.getsockname()[1]


def test_all_hooks_are_on_here() -> None:
    with Programs() as programs:
        programs.attend_packets()
        assert programs.attend_sockets() is False
        assert programs.missing == {}


def test_a_connection_is_told_once_for_each_user() -> None:
    with following_packets() as programs:
        client, server = exchange()
        found = [(event.kind, event.ends.local_port, event.ends.remote_port) for event in used_sockets(programs)]
        assert programs.lost == 0
    assert found == [(Kind.BOUND, server, 0), (Kind.SENT, client, server), (Kind.RECEIVED, server, client)]


def test_a_connection_is_told_without_its_packets_when_it_is_answered() -> None:
    with following_sockets() as programs:
        client, server = exchange()
        events = [event for event in programs.read().events if isinstance(event, SocketEvent)]
    ours = [event for event in events if event.process and process_facts(event.process).pid == os.getpid()]
    binds, begins, receives = ours
    (answered,) = (event for event in events if event.cookie == begins.cookie and event.kind == Kind.CONNECTS)
    assert [event.kind for event in ours] == [Kind.BOUND, Kind.BOUND, Kind.RECEIVED]
    assert (binds.ends.local_port, begins.ends.remote_port) == (server, server)
    assert (answered.ends.local_port, answered.ends.remote_port) == (client, server)
    assert (receives.ends.local_port, receives.ends.remote_port) == (server, client)
    assert answered.process is None


def socket_events(programs: Programs, cookie: int) -> list[tuple[Kind, int, int]]:
    """Return kind and ports of what was told of a socket, whoever did it."""
    found = [event for event in programs.read().events if isinstance(event, SocketEvent) and event.cookie == cookie]
    return [(Kind(event.kind), event.ends.local_port, event.ends.remote_port) for event in found]


def cookie_of(sock: socket.socket) -> int:
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), sys.byteorder)


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
        assert isinstance(port, int)
        return port


def test_a_connection_that_is_refused_is_told_without_its_packets() -> None:
    """Which is not bound, so that it has given its port back by then."""
    with following_sockets() as programs, socket.socket() as client:
        port, cookie = unused_port(), cookie_of(client)
        assert client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED
        local = client.getsockname()[1]
        assert socket_events(programs, cookie) == [(Kind.BOUND, 0, port), (Kind.GIVES_UP, local, port)]


def test_a_connection_that_is_closed_before_an_answer_is_told_to_close_last() -> None:
    """Nothing answers where the one connection that may wait to be accepted is there already."""
    with (
        following_sockets() as programs,
        socket.create_server(("127.0.0.1", 0), backlog=0) as listener,
        socket.create_connection(listener.getsockname()),
        socket.socket() as client,
    ):
        port, cookie = listener.getsockname()[1], cookie_of(client)
        client.setblocking(False)
        assert client.connect_ex(("127.0.0.1", port)) == errno.EINPROGRESS
        local = client.getsockname()[1]
        client.close()
        *_, given_up, closed = socket_events(programs, cookie)
    assert given_up == (Kind.GIVES_UP, local, port)
    assert closed == (Kind.CLOSED, 0, 0)


def test_a_connection_that_never_got_a_port_is_not_told() -> None:
    """The one port that both may have is taken by a connection to the same server."""
    with (
        following_sockets() as programs,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket() as first,
        socket.socket() as second,
    ):
        port = unused_port()
        for client in (first, second):
            client.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, (port << 16 | port).to_bytes(4, sys.byteorder))
        first.connect(listener.getsockname())
        assert second.connect_ex(listener.getsockname()) == errno.EADDRNOTAVAIL
        assert [kind for kind, *_ in socket_events(programs, cookie_of(second))] == [Kind.BOUND]


@pytest.mark.parametrize("protocol", [socket.IPPROTO_TCP, socket.IPPROTO_UDP])
def test_a_raw_socket_is_not_taken_for_one_of_its_protocol(protocol: int) -> None:
    with following_sockets() as programs, socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol) as raw:
        cookie = cookie_of(raw)
        raw.sendto(bytes(20), ("127.0.0.1", 0))
        raw.recv(100)
        assert socket_events(programs, cookie) == []


@pytest.mark.parametrize("lacking", ["inet_sock_set_state", "sock_send_length"])
def test_packets_are_followed_where_nothing_else_tells_of_sockets(
    lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Linux before 6.3, which has no sock_send_length."""
    monkeypatch.setattr(
        "pktproc.kernel.ebpf.programs.kernel_tracepoints", lambda names: libbpf.kernel_tracepoints(names) - {lacking}
    )
    with Programs() as programs:
        assert programs.attend_sockets() is True
        client, server = exchange()
        found = [(event.kind, event.ends.local_port, event.ends.remote_port) for event in used_sockets(programs)]
    assert found == [(Kind.BOUND, server, 0), (Kind.SENT, client, server), (Kind.RECEIVED, server, client)]


def test_a_program_is_told_from_its_birth_to_its_end() -> None:
    with Programs() as programs:
        child = subprocess.Popen(["/bin/echo", "hello"], stdout=subprocess.DEVNULL)
        child.wait()
        lives = [e for e in programs.read().events if isinstance(e, ProcessEvent) and e.process.pid == child.pid]
    assert [event.kind for event in lives] == [Kind.FORKED, Kind.EXECUTED, Kind.EXITED]
    assert (lives[1].path, lives[1].arguments) == (b"/bin/echo", b"/bin/echo\0hello\0")
    assert lives[2].process.comm == b"echo"


def test_who_holds_older_sockets_is_listed_as_proc_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as other:
        inode, local = os.fstat(listener.fileno()).st_ino, os.fstat(other.fileno()).st_ino
        command = ["sleep", "60"]
        with subprocess.Popen(command, pass_fds=[listener.fileno()]) as heir, Programs() as programs:
            found = programs.holdings()
            heir.kill()
    assert found is not None
    ours = found[found["inode"] == inode]
    assert set(ours["pid"].tolist()) == {os.getpid(), heir.pid}
    assert local not in found["inode"]


def test_two_at_once_do_not_disturb_each_other() -> None:
    with following_packets() as first:
        with following_packets() as second:
            exchange()
            assert len(used_sockets(second)) == 3
        assert len(used_sockets(first)) == 3
        exchange()
        assert len(used_sockets(first)) == 3


def test_a_connection_is_told_before_it_is_accepted_and_who_closes_it_unused() -> None:
    with following_packets() as programs, socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address) as client:
            before = [event for event in programs.read().events if isinstance(event, SocketEvent)]
            listener.accept()[0].close()
            (closed,) = (event for event in used_sockets(programs) if event.kind == Kind.CLOSED)
            ports = address[1], client.getsockname()[1]
    (comes_in,) = (e for e in before if e.kind == Kind.COMES_IN and (e.ends.local_port, e.ends.remote_port) == ports)
    assert comes_in.process is None
    assert closed.ends == comes_in.ends


def test_what_was_told_is_told_anew_when_asked_for() -> None:
    with Programs() as programs:
        left, right = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with left, right:
            right.bind(("127.0.0.1", 0))
            left.connect(right.getsockname())
            left.send(b"x")
            assert used_sockets(programs)
            left.send(b"x")
            assert not used_sockets(programs)
            programs.start_anew()
            left.send(b"x")
            assert [event.kind for event in used_sockets(programs)] == [Kind.SENT]


def test_nothing_is_left_after_an_exception() -> None:
    ids: list[str] = []

    def fail() -> None:
        with Programs():
            ids.extend(program_ids(os.getpid()))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert len(set(ids)) == len(WANTED)
    assert program_ids(os.getpid()) == []
    wait_until_unloaded(ids)


def test_nothing_is_left_after_a_kill() -> None:
    body = "from pktproc.kernel.ebpf.programs import Programs; p = Programs(); print('on', flush=True); input()"
    command = [sys.executable, "-c", body]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        ids = program_ids(child.pid)
        assert len(set(ids)) == len(WANTED)
        child.kill()
    wait_until_unloaded(ids)


def test_without_privileges_the_message_says_which() -> None:
    body = """
from pktproc.errors import EngineError
from pktproc.kernel.ebpf.programs import Programs
try:
    Programs()
except EngineError as error:
    print(type(error).__name__, error)
"""
    command = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", body]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("Denied"), done
    assert "CAP_BPF" in done.stdout
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_without_the_library_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libbpf, "_NAMES", ("libno-such-library.so.1",))
    libbpf.library.cache_clear()
    try:
        with pytest.raises(Unsupported, match="apt install libbpf1"):
            libbpf.library()
    finally:
        libbpf.library.cache_clear()


def test_in_a_container_the_message_says_how_to_start_it() -> None:
    body = "from pktproc.kernel.ebpf.programs import Programs; Programs()"
    command = ["unshare", "--cgroup", sys.executable, "-c", body]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Unsupported: eBPF: this is not the cgroup namespace of the host" in done.stderr
    assert "--cgroupns=host" in done.stderr


MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
38 31 0:31 / {} rw,relatime shared:5 master:2 - cgroup2 cgroup2 rw
"""


def test_cgroup_v2_is_found_wherever_it_is_mounted() -> None:
    assert cgroup_root(MOUNTS.format("/sys/fs/cgroup/unified")) == Path("/sys/fs/cgroup/unified")
    assert cgroup_root(MOUNTS.format(r"/with\040space")) == Path("/with space")


def test_without_cgroup_v2_the_message_says_how_to_mount_it() -> None:
    with pytest.raises(Unsupported, match="mount -t cgroup2"):
        cgroup_root(MOUNTS.splitlines()[0])


def test_the_program_that_the_kernel_refuses_is_found_however_much_libbpf_says_before(tmp_path: Path) -> None:
    good = "\n".join(f'SEC("cgroup_skb/egress") int good{n}(void *skb) {{ return 1; }}' for n in range(200))
    source = tmp_path / "refused.bpf.c"
    source.write_text(
        f'#define SEC(name) __attribute__((section(name), used))\n{good}\nchar LICENSE[] SEC("license") = "GPL";\n'
        'SEC("cgroup_skb/egress") int bad(void *skb) { return *(volatile int *)8; }\n'
    )
    compiled = source.with_suffix(".o")
    subprocess.run(["clang", "-g", "-O2", "-target", "bpf", "-c", source, "-o", compiled], check=True)
    with closing(libbpf.Log()) as log, closing(libbpf.BpfObject(compiled.read_bytes())) as loaded:
        assert "bad" in set(loaded.programs())
        with pytest.raises(EngineError):
            loaded.load()
        assert log.refused() == ["bad"]


@pytest.mark.parametrize(
    ("told", "cure"),
    [
        ("none integrity [confidentiality]", "lockdown=integrity"),
        ("none [integrity] confidentiality", "CONFIG_BPF_SYSCALL"),
        (None, "CONFIG_BPF_SYSCALL"),
    ],
)
def test_a_kernel_that_is_locked_down_is_said_to_be(tmp_path: Path, told: str | None, cure: str) -> None:
    """Linux 6.12 with lockdown=confidentiality refuses the programs with EINVAL."""
    mode = tmp_path / "lockdown"
    if told is not None:
        mode.write_text(f"{told}\n")
    error = libbpf.failure("load", errno.EINVAL, mode)
    assert isinstance(error, Unsupported)
    assert cure in str(error)
