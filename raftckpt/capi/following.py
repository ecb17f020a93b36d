"""Tells the changes of open checkpoints to the callbacks that programs registered.

A followed handle has one registration with :mod:`raftckpt.saf`, which tells each change once, in
order, with its data, on a thread of its own. From there it goes on to the callbacks: at once, and
through dispatch. A program that does not dispatch makes that thread wait, and the changes wait in
the tracker behind it, which has its limits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from raftckpt.client.changes import Change
from raftckpt.errors import SaAisError
from raftckpt.saf import SaCkptIOVectorElementT, immediate_consumption_register
from raftckpt.saf.initialization import OpenCheckpoint

__all__ = ["Following", "Sink"]

Sink: TypeAlias = Callable[[OpenCheckpoint, list[SaCkptIOVectorElementT]], None]

_WRITTEN = frozenset({"written", "overwritten", "resync"})
"""What both are told; SAFplus tells deletions, too, and neither tells of a creation."""


class Following:
    """What is told about one open checkpoint.

    Attributes:
        arrival: called through dispatch with what was written.
        consumption: called at once with what was written and deleted.
    """

    def __init__(self, checkpoint: OpenCheckpoint) -> None:
        self.arrival: Sink | None = None
        self.consumption: Sink | None = None
        self._checkpoint = checkpoint

    def start(self) -> SaAisError:
        """Follow from now on."""
        return immediate_consumption_register(
            self._checkpoint.handle, self._tell, through_dispatch=False
        )

    def _tell(
        self,
        handle: int,
        name: str,
        vector: list[SaCkptIOVectorElementT],
        cookie: Any,
        change: Change,
    ) -> None:
        written = change.kind in _WRITTEN
        consumption, arrival = self.consumption, self.arrival
        if consumption is not None and (written or change.kind == "deleted"):
            consumption(self._checkpoint, vector)
        if arrival is not None and written:
            self._checkpoint.owner.push(lambda: arrival(self._checkpoint, vector), self._checkpoint)
