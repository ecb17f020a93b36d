"""The blocking face of trackers, thread-safe.

Made from ``aio_tracking.py`` by ``tools/faces.py``: do not edit.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from math import inf
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from raftckpt.client.changes import Change
from raftckpt.client.sync_inflow import Inflow
from raftckpt.client.tracking import Target, not_started, track_point, tracker_core
from raftckpt.errors import Timeout

if TYPE_CHECKING:
    from raftckpt.client.sync_driver import Driver

__all__ = ["Tracker", "open_tracker"]


class Tracker:
    """An iterator of the changes of a checkpoint. Made by ``track()``; close it.

    It goes on by itself when its connection breaks or its replica dies, without loss and without
    repetition, and it does so when the session of the service is lost: it needs none. It ends when
    the checkpoint was destroyed. Each change is handed out once.
    """

    def __init__(self, feed: Inflow, driver: Driver) -> None:
        self._feed = feed
        self._driver = driver

    # --- changes ------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Change]:
        return self

    def __next__(self) -> Change:
        return self._next(inf)

    def next(self, timeout: float | None = None) -> Change:
        """Return the next change.

        Arguments:
            timeout: seconds to wait; None: as long as it takes, 0: not at all.

        Raises:
            Timeout: none came in time.
            StopIteration: the checkpoint was destroyed, or the tracker closed.
            CheckpointError: it cannot go on.
        """
        return self._next(inf if timeout is None else timeout)

    def _next(self, timeout: float) -> Change:
        feed = self._feed
        feed.check("next")
        deadline = monotonic() + timeout
        while True:
            try:
                return feed.take()
            except IndexError:
                pass
            if feed.ended and not feed.ready:
                raise feed.core.error or StopIteration
            if not feed.wait(feed.moved, deadline):
                raise Timeout(
                    f"no change within {timeout:g} s ({feed.core.problem or 'none happened'})",
                    definite=True,
                )

    def drain(self) -> list[Change]:
        """Return all changes that wait, without waiting."""
        self._feed.check("drain")
        return self._feed.take_all()

    def sync(self, revision: int | None = None, timeout: float | None = None) -> int:
        """Wait until everything up to ``revision`` has arrived and can be taken without waiting.

        Arguments:
            revision: None: that of the cluster now, so that everything that was acknowledged
                before this call has arrived.
            timeout: seconds; None: that of ``connect()``.

        Returns:
            The revision up to which everything has arrived.

        Raises:
            Timeout: it has not arrived in time.
        """
        feed = self._feed
        feed.check("sync")
        seconds = self._driver.timeout if timeout is None else timeout
        deadline = monotonic() + seconds
        if revision is None:
            point = self._driver.run(track_point(None), seconds)
            revision = int(point[0])
        if not feed.sync(revision, deadline):
            raise Timeout(
                f"changes up to revision {revision} did not arrive within {seconds:g} s "
                f"({feed.core.problem or 'the replica is behind'})",
                definite=True,
            )
        if feed.core.error is not None:
            raise feed.core.error
        return feed.core.through or 0

    def fileno(self) -> int:
        """Return a descriptor that is readable while a change waits (or the tracker has ended).

        For ``select`` and its relatives only; take with ``next(0)`` or ``drain()``.

        Raises:
            NoResources: there is none left.
        """
        self._feed.check("fileno")
        return self._feed.descriptor()

    def watch(self, watcher: Callable[[], object]) -> None:
        """Have somebody who waits for more than this told when a change came, or the end.

        Arguments:
            watcher: called by whoever reads for the client; it must be quick and not block.
        """
        self._feed.watcher = watcher
        if self.waiting:
            watcher()

    @property
    def waiting(self) -> int:
        """Changes that can be taken without waiting."""
        return len(self._feed.ready)

    # --- about it -----------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """Everything up to this revision has arrived."""
        return self._feed.core.through or 0

    @property
    def session(self) -> int:
        """Session of the service that made it: ``change.session`` of one's own changes."""
        return self._driver.core.session

    @property
    def node(self) -> str | None:
        """Replica that serves it now, if any."""
        return self._feed.core.node or None

    @property
    def problem(self) -> str | None:
        """Why no replica serves it now (it goes on trying); None: one does."""
        return self._feed.core.problem

    # --- the end ------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called, here or of the service."""
        return self._feed.closed

    def close(self) -> None:
        """Track no more. Idempotent."""
        self._feed.close()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        feed: Any = getattr(self, "_feed", None)
        if feed is not None and not feed.closed:
            feed.abandon()
            warnings.warn(
                "a raftckpt tracker was not closed: use 'with' or close()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


def open_tracker(driver: Driver, target: Target, timeout: float) -> Tracker:
    """Make a tracker and wait until a replica serves it.

    Raises:
        CheckpointError: none does; says why.
    """
    feed = Inflow(tracker_core(driver.core, target, random.random), driver)
    tracker = Tracker(feed, driver)
    try:
        feed.wait(feed.begun, monotonic() + timeout)
        failure = not_started(feed.core, target, timeout)
        if failure is not None:
            raise failure
    except BaseException:
        tracker.close()
        raise
    return tracker
