"""The pytest plugin is loaded in every run wherever raftckpt is installed: it must be light."""

from __future__ import annotations

import subprocess
import sys


def test_plugin_imports_neither_cluster_nor_consensus() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules)\n"
        "import raftckpt.testing.fixtures\n"
        "heavy = {'yaml', 'asyncio', 'pysyncobj', 'uvloop', 'raftckpt.testing.local_cluster'}\n"
        "print(sorted(heavy & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]", done.stderr
