"""Benchmarks, run by hand from the checkout as root: `python -m benchmarks.capture` and so on.

They share the network namespaces and the truthful programs of the test bed.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
