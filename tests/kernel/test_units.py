"""The systemd unit of a process, by its cgroup."""

from __future__ import annotations

import pytest

from pktproc.kernel.processes import systemd_unit


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        (b"0::/system.slice/nginx.service\n", "nginx.service"),
        (b"0::/user.slice/user-1000.slice/user@1000.service/app.slice/firefox.scope\n", "firefox.scope"),
        (b"0::/system.slice/docker-0123.scope/init\n", "docker-0123.scope"),
        (b"12:cpu:/system.slice/a b.service\n1:name=systemd:/system.slice/a b.service\n", "a b.service"),
        (b"0::/\n", None),
        (b"0::/user.slice\n", None),
        (b"0::/my.services/x\n", None),
        (b"", None),
    ],
)
def test_the_innermost_service_or_scope_is_named(cgroup: bytes, unit: str | None) -> None:
    assert systemd_unit(cgroup) == unit
