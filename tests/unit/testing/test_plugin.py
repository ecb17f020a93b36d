"""The pytest plugin is loaded in every run wherever raftckpt is installed: it must be light."""

from __future__ import annotations

import subprocess
import sys


def test_the_plugin_imports_nothing() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules)\n"
        "import raftckpt_pytest\n"
        "print(sorted(set(sys.modules) - before - {'raftckpt_pytest'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.strip() == "[]", done.stderr
