"""The blocking face of trackers: the engine's thread reads, the application takes.

A change leaves the queue by :meth:`_Inflow.pop` and reaches the caller without a moment at which
Python looks for signals and thrown exceptions: an interrupted ``next`` loses none.
"""

from __future__ import annotations

import os
import random
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any, Final

from raftckpt.client.changes import Change
from raftckpt.client.sync_driver import Driver
from raftckpt.client.threads import ThreadPort
from raftckpt.client.tracking import (
    Stage,
    Target,
    TrackerCore,
    not_started,
    track_point,
    tracker_core,
)
from raftckpt.client.wake import Bell, Wake
from raftckpt.errors import BadHandle, CheckpointError, Timeout

__all__ = ["Tracker", "open_tracker"]

_LET_IN_AT: Final = 64


class _Inflow:
    """What the engine's thread fills; it does not keep the tracker alive."""

    def __init__(self, core: TrackerCore) -> None:
        self.core = core
        self.bell = Bell()
        self.ready: deque[Change] = deque()
        self.wake: Wake | None = None
        self.watcher: Callable[[], object] | None = None
        self.over = False
        self.through = -1
        """Everything up to this revision was handed over."""
        self._pops = iter(self.ready.popleft, None)

    def settled(self) -> None:
        """Hand over what arrived (the engine's thread)."""
        core = self.core
        changes = core.hand_over()
        self.ready.extend(changes)
        self.through = core.through or 0
        core.release(len(self.ready), monotonic())
        over = core.stage is Stage.ENDED
        if changes or over != self.over:
            self.over = over
            with suppress(OSError):  # who waits looks now and then
                if self.wake is not None:
                    self.wake.notify()
                if self.watcher is not None:
                    self.watcher()
        self.bell.ring()

    def pop(self) -> Change:
        """Take the next change.

        A ``for`` takes from an iterator, and a function returns, without looking for signals in
        between: nobody can be interrupted with a change in the hand.

        Raises:
            IndexError: none is there.
        """
        for change in self._pops:
            return change
        raise IndexError

    def signal(self) -> None:
        """Make the descriptor readable, if something can be taken."""
        if self.wake is not None and (self.ready or self.over):
            self.wake.notify()

    def lower(self, wake: Wake, about_to_take: int) -> None:
        """The descriptor is not readable any more, until something comes."""
        wake.drain()
        if self.over or len(self.ready) > about_to_take:
            wake.notify()


class Tracker:
    """An iterator of the changes of a checkpoint. Made by ``track()``; close it, or use ``with``.

    It goes on by itself when its connection breaks or its replica dies, without loss and without
    repetition, and it does so when the session of the service is lost: it needs none. It ends when
    the checkpoint was destroyed. Thread-safe: each change is handed out once.
    """

    def __init__(self, feed: _Inflow, port: ThreadPort, driver: Driver) -> None:
        self._feed = feed
        self._port = port
        self._driver = driver
        self._closed = False
        self._pid = os.getpid()

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
        self._check()
        feed = self._feed
        deadline = monotonic() + timeout
        if not len(feed.ready) % _LET_IN_AT:
            self._let_in()
        while True:
            try:
                if len(feed.ready) < 2 and feed.wake is not None:
                    feed.lower(feed.wake, 1)
                return feed.pop()
            except IndexError:
                pass
            except BaseException:
                feed.signal()
                raise
            if feed.over and not feed.ready:
                raise feed.core.error or StopIteration
            if timeout > 0:
                self._driver.engine.check("next")
            if not feed.bell.wait(lambda: feed.ready or feed.over, deadline, self._alive):
                raise Timeout(
                    f"no change within {timeout:g} s ({feed.core.problem or 'none happened'})",
                    definite=True,
                )

    def _let_in(self) -> None:
        """Have the engine read on, if it stopped because too much waited here."""
        if not self._feed.core.hungry and not self._driver.engine.inside:
            self._driver.engine.post(self._port, lambda now: None)

    def drain(self) -> list[Change]:
        """Return all changes that wait, without waiting."""
        self._check()
        feed = self._feed
        changes: list[Change] = []
        try:
            for _ in range(len(feed.ready)):
                changes.append(feed.pop())
        except IndexError:  # another thread takes as well
            pass
        except BaseException:
            feed.ready.extendleft(reversed(changes))
            raise
        if feed.wake is not None:
            feed.lower(feed.wake, 0)
        self._let_in()
        return changes

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
        self._check()
        seconds = self._driver.timeout if timeout is None else timeout
        deadline = monotonic() + seconds
        if revision is None:
            revision = int(self._driver.run(track_point(None), seconds)[0])
        self._driver.engine.check("sync")
        wanted, feed, engine = revision, self._feed, self._driver.engine
        begun: list[Any] = []
        engine.post(self._port, lambda now: begun.append(feed.core.sync(wanted, now)))
        try:
            if not feed.bell.wait(
                lambda: feed.over or (begun and begun[0].done and feed.through >= wanted),
                deadline,
                self._alive,
            ):
                raise Timeout(
                    f"changes up to revision {revision} did not arrive within {seconds:g} s "
                    f"({feed.core.problem or 'the replica is behind'})",
                    definite=True,
                )
        finally:
            engine.post(self._port, lambda now: list(map(feed.core.give_up, begun)))
        if feed.core.error is not None:
            raise feed.core.error
        return feed.core.through or 0

    def fileno(self) -> int:
        """Return a descriptor that is readable while a change waits (or the tracker has ended).

        For ``select`` and its relatives only; take with ``next(0)`` or ``drain()``.

        Raises:
            NoResources: there is none left.
        """
        self._check()
        feed = self._feed
        if feed.wake is None:
            feed.wake = Wake()
            feed.signal()
        return feed.wake.reading

    def watch(self, watcher: Callable[[], object]) -> None:
        """Have somebody who waits for more than this told when a change came, or the end.

        Arguments:
            watcher: called by a thread of the client; it must be quick and not block.
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
        return self._closed or self._driver.closed

    def close(self) -> None:
        """Track no more. Idempotent."""
        self._closed = True
        if os.getpid() == self._pid:
            core, engine = self._feed.core, self._driver.engine
            engine.post(self._port, lambda now: core.close())
            engine.remove(self._port)
            self._feed.watcher = None

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
        if not getattr(self, "_closed", True) and not self._driver.closed:
            self.close()
            warnings.warn(
                "a raftckpt tracker was not closed: use 'with' or close()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def _alive(self) -> None:
        if not self._feed.over:
            self._driver.engine.alive("tracker")

    def _check(self) -> None:
        if os.getpid() != self._pid:
            raise BadHandle("this tracker belongs to the parent process; track again after fork")


def open_tracker(driver: Driver, target: Target, timeout: float) -> Tracker:
    """Make a tracker and wait until a replica serves it.

    Raises:
        CheckpointError: none does; says why.
    """
    driver.engine.check(f"track on checkpoint {target.name!r}")
    core = tracker_core(driver.core, target, random.random)
    core.seek(monotonic())
    feed = _Inflow(core)
    port = ThreadPort(core, feed.settled, core.close)
    tracker = Tracker(feed, port, driver)
    deadline = monotonic() + timeout
    try:
        driver.engine.add(port)
        feed.bell.wait(lambda: core.started or feed.over, deadline, tracker._alive)
        failure: CheckpointError | None = not_started(core, target, timeout)
        if failure is not None:
            raise failure
    except BaseException:
        tracker.close()
        raise
    return tracker
