"""curl and Python's http.server: a real client and a real server that know nothing of the bed."""

from __future__ import annotations

import sys
from pathlib import Path

from bed.namespaces import Namespace
from bed.program import TIMEOUT, Command


class WebServer(Command):
    """Run http.server on a directory; leaving the constructor means that it accepts connections."""

    def __init__(
        self,
        address: str,
        port: int,
        directory: Path,
        namespace: Namespace,
        *,
        interpreter: str = sys.executable,
    ) -> None:
        command = [
            interpreter,
            "-u",
            "-m",
            "http.server",
            "--bind",
            address,
            "--directory",
            str(directory),
            str(port),
        ]
        super().__init__(command, namespace)
        if not self.stdout.find(lambda line: line.startswith("Serving HTTP"), 1, TIMEOUT):
            self.close()
            raise AssertionError(f"http.server did not start: {self.describe()}")


def curl(url: str, namespace: Namespace) -> tuple[int, tuple[str, int]]:
    """Fetch a URL and return curl's pid, its address and its port, as curl itself reports the latter two."""
    report = "%{stdout}%{local_ip} %{local_port}\n"
    command = ["curl", "--silent", "--show-error", "--fail", "--output", "/dev/null", "--write-out", report, url]
    with Command(command, namespace) as client:
        assert client.finish() == 0, client.describe()
        address, port = client.stdout.so_far()[-1].split()
        return client.pid, (address, int(port))
