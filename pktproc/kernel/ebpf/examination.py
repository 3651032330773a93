"""What eBPF could do here: programs are loaded, attached and detached again."""

from __future__ import annotations

import time
from contextlib import closing

from pktproc.errors import EngineError
from pktproc.kernel.ebpf.flow_cache import MOST_FLOWS, FlowCache
from pktproc.kernel.ebpf.programs import HOOKS, Programs
from pktproc.kernel.probe import Finding, State

_AREA = "engines"
_INSTEAD = "netlink does its work, but can miss very short-lived processes"


def examine_flow_cache() -> Finding:
    """Return the finding for counting packets in the kernel."""
    what = "ebpf: flow cache"
    try:
        with closing(FlowCache("wire", "inout", 0, time.monotonic_ns)):
            detail = f"summary, top and exporter leave up to {MOST_FLOWS:,} known flows to the kernel to count"
            return Finding(_AREA, what, State.OK, detail)
    except (EngineError, OSError) as error:
        cure = "see the rows below; meanwhile each packet is looked at, which gives the same sums for more CPU time"
        return Finding(_AREA, what, State.LIMITED, str(error), cure)


def examine_hooks() -> list[Finding]:
    """Return a finding for the engine, and one for each hook that is off, with what is not known without it."""
    try:
        with Programs() as programs:
            programs.attend_packets()
            programs.attend_sockets()
            missing = dict(programs.missing)
            on = [hook.program for hook in HOOKS if hook in programs.attached]
    except (EngineError, OSError) as error:
        return [Finding(_AREA, "ebpf", State.MISSING, str(error), f"see the rows below; meanwhile {_INSTEAD}")]
    engine = Finding(_AREA, "ebpf", State.LIMITED if missing else State.OK, f"hooks that are on: {', '.join(on)}")
    cure = "use a kernel that has it, if that matters"
    return [
        engine,
        *(
            Finding(_AREA, f"ebpf: {hook.program}", State.LIMITED, f"{why}; not known without it: {hook.loss}", cure)
            for hook, why in missing.items()
        ),
    ]
