"""What the garbage collector need not look through."""

from __future__ import annotations

import gc

# Objects made before the young ones are looked through, and how often that is before elder ones are, and all.
_YOUNG, _TIMES_YOUNG, _TIMES_ELDER = 50_000, 20, 1_000


def spare_what_stays() -> None:
    """Have the collector leave alone what was loaded until here, and hardly ever look through all that came later.

    What is kept of packets is bounded, is made by the thousand and holds no circles. To look for some in all of it took
    half of the time in a storm of connections, in pauses of up to a second in which the kernel had to drop packets.
    """
    gc.freeze()
    gc.set_threshold(_YOUNG, _TIMES_YOUNG, _TIMES_ELDER)
