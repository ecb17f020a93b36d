"""What something costs, counted: a slow machine changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

from raftckpt.model.checkpoints import Checkpoint
from raftckpt.model.machine import CheckpointMachine
from raftckpt.model.order import SortedNames
from raftckpt.model.types import CreationAttributes


def calls_of(work: Callable[[], object]) -> int:
    """How many functions of Python and C it calls."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def with_checkpoints(machine: CheckpointMachine, count: int) -> None:
    """Put so many checkpoints into a state, of growing sizes, as if they had been opened."""
    attributes = CreationAttributes()
    for uid in range(1_000_000, 1_000_000 + count):
        found = Checkpoint(uid, f"many/{uid}", attributes, 0, 0)
        found.memory_used = uid - 1_000_000
        machine.checkpoints[uid] = machine.names[found.name] = found
    machine.order = SortedNames(machine.names)
