"""Programs of benchmarks/, which are no package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@contextmanager
def program(name: str) -> Iterator[Any]:
    """Import one; it and what it imported from its folder are forgotten afterwards."""
    if not BENCHMARKS.is_dir():
        pytest.skip("benchmarks/ is not part of what was installed")
    known = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        try:
            yield importlib.import_module(name)
        finally:
            for each in set(sys.modules) - known:
                if (BENCHMARKS / f"{each}.py").is_file():
                    del sys.modules[each]
