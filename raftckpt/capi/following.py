"""Tells the changes of open checkpoints to the callbacks that programs registered.

Each followed handle has a tracker and a thread that takes from it. What the handle's own session
wrote is left out. Changes wait in the tracker (which has its limits and asks for an image when it
falls behind) until they can be delivered, so a program that does not dispatch costs no memory.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from raftckpt import limits
from raftckpt.client.changes import Change
from raftckpt.client.sync_tracking import open_tracker
from raftckpt.client.tracking import target_of, track_point
from raftckpt.errors import CheckpointError
from raftckpt.saf.initialization import OpenCheckpoint

__all__ = ["Arrived", "Following", "Sink"]

log = logging.getLogger("raftckpt.capi")


class Arrived(NamedTuple):
    """One element of a change; ``data`` is None for a deletion."""

    section: bytes
    offset: int
    data: bytes | None


Sink: TypeAlias = Callable[[OpenCheckpoint, list[Arrived]], None]


class Following:
    """Follows one open checkpoint from now on.

    Arguments:
        checkpoint: opened for reading.

    Attributes:
        arrival: called through dispatch, with what was written.
        consumption: called at once, with what was written and deleted.

    Raises:
        CheckpointError: no replica serves it.
    """

    def __init__(self, checkpoint: OpenCheckpoint) -> None:
        self.arrival: Sink | None = None
        self.consumption: Sink | None = None
        self._checkpoint = checkpoint
        self._room = threading.Semaphore(limits.C_UNDISPATCHED_CHANGES_MAX)
        self._stopped = False
        driver = checkpoint.owner.driver
        point = checkpoint.run(track_point(checkpoint.opened))
        target = target_of(checkpoint.opened.name, point, None, False)
        self._tracker = open_tracker(driver, target, driver.timeout)
        threading.Thread(target=self._follow, name="raftckpt-follow", daemon=True).start()

    def stop(self) -> None:
        """Follow no more. Idempotent."""
        self._stopped = True
        self._room.release()
        self._tracker.close()

    def _follow(self) -> None:
        try:
            for change in self._tracker:
                if self._stopped:
                    return
                if change.session != self._tracker.session or change.is_image:
                    self._tell(change)
        except CheckpointError as error:
            log.error("follows_no_more checkpoint=%s %s", self._checkpoint.opened.name, error)
        finally:
            self._tracker.close()

    def _tell(self, change: Change) -> None:
        if change.kind == "deleted":
            deleted = [Arrived(change.section or b"", 0, None)]
            written: list[Arrived] = []
        elif change.kind in ("written", "overwritten", "resync"):
            deleted, written = [], [Arrived(*part) for part in change.parts]
        else:
            return
        consumption, arrival = self.consumption, self.arrival
        if consumption is not None and (deleted or written):
            try:
                consumption(self._checkpoint, deleted or written)
            except Exception:  # the next change is not to suffer for it
                log.exception("consumption_raised")
        if arrival is not None and written:
            self._room.acquire()
            if not self._stopped:
                self._checkpoint.owner.push(
                    lambda: self._deliver(arrival, written), self._checkpoint
                )

    def _deliver(self, arrival: Sink, written: list[Arrived]) -> None:
        self._room.release()
        arrival(self._checkpoint, written)
