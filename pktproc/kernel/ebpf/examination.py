"""What the engine `ebpf` could do here: its programs are loaded, attached and detached again."""

from __future__ import annotations

from pktproc.errors import EngineError
from pktproc.kernel.ebpf.programs import HOOKS, Programs
from pktproc.kernel.probe import Finding, State

_AREA = "engines"
_INSTEAD = "netlink does its work, but can miss very short-lived processes"


def examine_hooks() -> list[Finding]:
    """Return a finding for the engine, and one for each hook that is off, with what is not known without it."""
    try:
        with Programs() as programs:
            missing = dict(programs.missing)
    except (EngineError, OSError) as error:
        return [Finding(_AREA, "ebpf", State.MISSING, str(error), f"see the rows below; meanwhile {_INSTEAD}")]
    on = ", ".join(hook.program for hook in HOOKS if hook not in missing)
    engine = Finding(_AREA, "ebpf", State.LIMITED if missing else State.OK, f"hooks that are on: {on}")
    cure = "use a kernel that has it, if that matters"
    return [
        engine,
        *(
            Finding(_AREA, f"ebpf: {hook.program}", State.LIMITED, f"{why}; not known without it: {hook.loss}", cure)
            for hook, why in missing.items()
        ),
    ]
