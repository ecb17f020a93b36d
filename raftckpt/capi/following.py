"""Tells the changes of open checkpoints to the callbacks that programs registered.

A followed handle has one registration with :mod:`raftckpt.saf`, which tells each change once, in
order, with its data, on a thread of its own. From there it goes on to the callbacks: at once, and
through dispatch. A program that does not dispatch makes that thread wait, and the changes wait in
the tracker behind it, which has its limits.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

from raftckpt.client.changes import Change
from raftckpt.errors import SaAisError
from raftckpt.limits import SAF_PENDING_CALLBACKS_MAX
from raftckpt.saf import SaCkptIOVectorElementT, immediate_consumption_register
from raftckpt.saf.initialization import OpenCheckpoint

__all__ = ["CheckpointFollowing", "OwnWrite", "Sink"]

Sink: TypeAlias = Callable[[OpenCheckpoint, list[SaCkptIOVectorElementT]], None]

_WRITTEN: Final = frozenset({"written", "overwritten", "transaction", "resync"})
"""What both are told; SAFplus tells deletions, too, and neither tells of a creation."""
_MAY_HAVE_HAPPENED: Final = frozenset({SaAisError.OK, SaAisError.ERR_TIMEOUT})


class OwnWrite:
    """A write through a followed handle: a digest of what it wrote, when it began and ended."""

    __slots__ = ("begun", "digest", "ended")

    def __init__(self, digest: int, begun: int) -> None:
        self.digest = digest
        self.begun = begun
        self.ended: int | None = None


class _OwnWrites:
    """What was written through one handle and has not been heard of as a change yet.

    A change names the session that made it and no handle. So it is the handle's own if it says what
    was written through the handle. Where two handles wrote the same, each is told of one of the two
    changes; nobody can see which.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times = itertools.count()
        # who never dispatches hears of none: the oldest are forgotten, and told if ever
        self._writes: deque[OwnWrite] = deque(maxlen=SAF_PENDING_CALLBACKS_MAX)

    def begin(self, digest: int) -> OwnWrite:
        with self._lock:
            write = OwnWrite(digest, next(self._times))
            self._writes.append(write)
        return write

    def end(self, write: OwnWrite, rc: int) -> None:
        with self._lock:
            write.ended = next(self._times)
            if rc not in _MAY_HAVE_HAPPENED and write in self._writes:
                self._writes.remove(write)

    def take(self, digest: int) -> bool:
        """Return whether a change is one of them, which is told of once."""
        with self._lock:
            found = next((write for write in self._writes if write.digest == digest), None)
            if found is None:
                return False
            self._writes.remove(found)
            # changes come in order: what had ended before this began would have come, it never will
            for write in list(self._writes):
                if write.ended is not None and write.ended < found.begun:
                    self._writes.remove(write)
        return True


def _digest(kind: str, parts: Iterable[Sequence[Any]]) -> int:
    return hash((kind, tuple([tuple(part[:3]) for part in parts])))


class CheckpointFollowing:
    """What is told about one open checkpoint.

    Attributes:
        arrival: called through dispatch with what was written, but not through this handle.
        consumption: called at once with what other initializations wrote and deleted.
    """

    def __init__(self, checkpoint: OpenCheckpoint) -> None:
        self.arrival: Sink | None = None
        self.consumption: Sink | None = None
        self._checkpoint = checkpoint
        self._own = _OwnWrites()

    def start(self) -> SaAisError:
        """Follow from now on."""
        return immediate_consumption_register(
            self._checkpoint.handle, self._tell, through_dispatch=False, own=True
        )

    def begins(self, kind: str, parts: Iterable[Sequence[Any]]) -> OwnWrite | None:
        """Note that something is about to be written through the handle."""
        return None if self.arrival is None else self._own.begin(_digest(kind, parts))

    def ends(self, write: OwnWrite | None, rc: int) -> None:
        """Note what became of it."""
        if write is not None:
            self._own.end(write, rc)

    def _tell(
        self,
        handle: int,
        name: str,
        vector: list[SaCkptIOVectorElementT],
        cookie: Any,
        change: Change,
    ) -> None:
        checkpoint = self._checkpoint
        own = change.session == checkpoint.owner.driver.core.session and not change.is_image
        written = change.kind in _WRITTEN
        consumption, arrival = self.consumption, self.arrival
        if consumption is not None and not own and (written or change.kind == "deleted"):
            consumption(checkpoint, vector)
        if arrival is None or not written:
            return
        if not (own and self._own.take(_digest(change.kind, change.parts))):
            checkpoint.owner.push(lambda: arrival(checkpoint, vector), checkpoint)
