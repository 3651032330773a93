"""What the user asked to be done with a capture file, checked; nothing heavy is imported here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pktproc.cli.filter_words import expression
from pktproc.cli.print_options import PrintOptions
from pktproc.cli.selection_options import SelectionOptions
from pktproc.cli.write_options import annotation_forms, check_output
from pktproc.errors import UsageError

DEFAULT_TOLERANCE_S = 2.0


@dataclass(frozen=True, slots=True)
class FileOptions:
    """Hold the options of one run over a capture file.

    Packets are named by `stores` or, without any, by the file's own annotations. They are written to `output`, if that
    is not None, in pcapng with annotations of some `forms`, and printed if `prints` says so.
    """

    source: str
    stores: tuple[str, ...]
    output: str | None
    forms: frozenset[str]
    skew_s: float
    tolerance_s: float
    expression: str
    count: int | None
    selection: SelectionOptions
    printing: PrintOptions
    prints: bool

    @classmethod
    def of(cls, source: str, stores: Sequence[str], words: Sequence[str], chosen: Mapping[str, Any]) -> Self:
        """Return the options that the command line chose; raise `UsageError` for what does not go together."""
        output = chosen["output"]
        skew_s, tolerance_s = chosen.get("skew", 0.0), chosen.get("tolerance", DEFAULT_TOLERANCE_S)
        if not (math.isfinite(skew_s) and math.isfinite(tolerance_s)):
            raise UsageError("--skew and --tolerance take seconds, such as 1.5")
        prints = output is None or chosen["as_json"] or chosen["print_"]
        if output is not None:
            check_output(output, (source, *stores), prints=prints)
        return cls(
            source=source,
            stores=tuple(dict.fromkeys(stores)),
            output=output,
            forms=annotation_forms(chosen["annotate"]),
            skew_s=skew_s,
            tolerance_s=tolerance_s,
            expression=expression(words, chosen["filter_file"]),
            count=chosen["count"],
            selection=SelectionOptions.of(chosen),
            printing=PrintOptions.of(chosen),
            prints=prints,
        )
