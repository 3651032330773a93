"""What all tests share: the markers and the test bed on the import path."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
# Commands are started hundreds of times: they are compiled once, as installed ones are, wherever the tests run.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "live: captures real traffic in network namespaces of its own; needs root")
