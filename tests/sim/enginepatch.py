"""Put PySyncObj's own clock and dice under the control of a test, and take them back afterwards."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import pysyncobj.syncobj as engine
from pysyncobj.node import Node


class Dice(Protocol):
    """The one function of module ``random`` that the library calls."""

    def random(self) -> float: ...


class StableNode(Node):
    """A node whose hash is the same in every process: the library iterates over sets of nodes."""

    def __hash__(self) -> int:
        return zlib.crc32(str(self.id).encode())


@contextmanager
def patched(now: Callable[[], float], dice: Dice) -> Iterator[None]:
    """Let the library read ``now`` as its monotonic clock and ``dice`` as its randomness."""
    saved = engine.monotonicTime, engine.random
    engine.monotonicTime, engine.random = now, dice
    try:
        yield
    finally:
        engine.monotonicTime, engine.random = saved
