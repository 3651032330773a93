"""What conditions ask about beside sockets, read from the kernel as far as one needs it."""

from __future__ import annotations

from collections.abc import Mapping

from pktproc.inventory.conditions import Needs, Surroundings
from pktproc.kernel import cgroups
from pktproc.kernel.tables import Tables


def surroundings(needs: Needs, tables: Mapping[int, Tables]) -> Surroundings:
    """Return what is needed of the namespaces whose `tables` are looked at."""
    found = Surroundings()
    if "interfaces" in needs:
        names = {netns: each.interfaces() for netns, each in tables.items()}
        found = found._replace(interfaces={(netns, at): name for netns in names for at, name in names[netns].items()})
    if "cgroups" in needs:
        found = found._replace(cgroup_root=cgroups.mount(), cgroups=cgroups.paths())
    if "binding" in needs:
        found = found._replace(ephemeral={netns: each.ephemeral_ports() for netns, each in tables.items()})
    return found
