"""The engine `ebpf`: programs in the kernel tell who uses which socket; for the rest it is the engine `netlink`."""

from __future__ import annotations

from pktproc.attribution.engine import Told, Use, Way
from pktproc.kernel.ebpf.events import Kind, SocketEvent, decode
from pktproc.kernel.ebpf.lives import Lives
from pktproc.kernel.ebpf.programs import Programs
from pktproc.kernel.netlink_engine import NetlinkEngine
from pktproc.kernel.processes import ProcessReader
from pktproc.model import ProcessId

_WAYS: dict[int, Way] = {
    Kind.CREATED: Way.CREATED,
    Kind.LISTENED: Way.LISTENED,
    Kind.CONNECTED: Way.CONNECTED,
    Kind.SENT: Way.SENT,
    Kind.RECEIVED: Way.RECEIVED,
    Kind.ARRIVES: Way.ARRIVES,
    Kind.ACCEPTABLE: Way.ESTABLISHED,
    Kind.CLOSED: Way.CLOSED,
}


class EbpfEngine(NetlinkEngine):
    """Tell what the programs see; answer for sockets that are older than they are as `netlink` does."""

    name = "ebpf"
    evidence = "ebpf"
    fallback = NetlinkEngine.name

    def __init__(self, *, cmdline: bool = True) -> None:
        self._programs = Programs()
        try:
            super().__init__(cmdline=cmdline)
        except BaseException:
            self._programs.close()
            raise
        self._lives = Lives(ProcessReader(), cmdline=cmdline)
        self._lost = 0
        for hook, why in self._programs.missing.items():
            self.limits.append(f"without the kernel's {hook.program} it is not known {hook.loss}: {why}")

    def told(self) -> Told:
        """Return what the programs saw since the last call."""
        uses: list[Use] = []
        exits: list[tuple[ProcessId, int]] = []
        while (records := self._programs.read()).positions:
            for event in decode(records):
                if isinstance(event, SocketEvent):
                    uses.append(self._use(event))
                elif event.kind == Kind.EXITED:
                    exits.append((self._lives.identity(event.process), event.time_ns))
                else:
                    self._lives.take(event)
        lost = self._programs.lost - self._lost
        if lost:
            self._lost += lost
            self._programs.start_anew()
        return Told(uses, exits, lost)

    def _use(self, event: SocketEvent) -> Use:
        facts = event.process
        process = self._lives.describe(facts) if facts and not facts.kernel else None
        return Use(event.time_ns, _WAYS[event.kind], event.cookie, event.ends, process, event.previous_ns)

    def close(self) -> None:
        """Detach the programs and close the netlink sockets."""
        self._programs.close()
        super().close()
