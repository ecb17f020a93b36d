"""Waiting for a condition: tests never just sleep, and how long it takes is not what they test."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["PATIENCE", "until"]

T = TypeVar("T")

PATIENCE: Final = 200.0
"""Seconds after which something will never come: a disk that takes a second for each sync stretches
what is done in two seconds to one minute. Below the timeout of a test, so that this one explains.
"""


def until(condition: Callable[[], T], what: str) -> T:
    """Return the first true value of ``condition``; fail when it will never come."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {PATIENCE:g} s: {what} ({_machine()})"
        time.sleep(0.01)
    return value


def _machine() -> str:
    """How busy it is: whether to blame the machine is the first question."""
    with tempfile.TemporaryFile() as file:
        begun = time.monotonic()
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())
        synced_ms = 1000 * (time.monotonic() - begun)
    return f"load {os.getloadavg()[0]:.1f}, a sync takes {synced_ms:.1f} ms"
