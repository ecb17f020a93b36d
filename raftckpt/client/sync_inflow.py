"""What fills a tracker from the engine's thread."""

from __future__ import annotations

import os
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import ref

from raftckpt.client.arrivals import Arrivals
from raftckpt.client.io.threads import ThreadPort
from raftckpt.client.io.wake import Bell
from raftckpt.client.tracking import TrackerCore
from raftckpt.errors import BadHandle

if TYPE_CHECKING:
    from raftckpt.client.sync_driver import Driver

__all__ = ["Inflow"]


class Inflow(Arrivals):
    """A core at its engine, for any thread."""

    def __init__(self, core: TrackerCore, driver: Driver) -> None:
        super().__init__(core)
        driver.engine.check("track")
        self._driver = driver
        self._bell = Bell()
        self.ring = self._bell.ring
        self._pid = os.getpid()
        self._closed = False
        core.seek(monotonic())
        port = ThreadPort(core, self.settled, core.close)
        self._port = ref(port)  # no circle: descriptors are given back without the collector
        driver.engine.add(port)

    def _post(self, job: Callable[[float], object]) -> None:
        self._driver.engine.post(self._port(), job)

    def look(self) -> None:
        """Have the engine look at the core again."""
        if not self._driver.engine.inside:
            self._post(lambda now: None)

    def check(self, what: str) -> None:
        """Refuse what could not be answered; read on, if it is time.

        Raises:
            BadHandle: after a fork.
        """
        if os.getpid() != self._pid:
            raise BadHandle("this tracker belongs to the parent process; track again after fork")
        self.let_in()

    def _alive(self) -> None:
        if not self.ended:
            self._driver.engine.alive("tracker")

    def wait(self, condition: Callable[[], object], deadline: float) -> bool:
        """Wait until a condition holds; False: the deadline has passed."""
        if deadline > monotonic():
            self._driver.engine.check("tracker")
        return self._bell.wait(condition, deadline, self._alive)

    def sync(self, revision: int, deadline: float) -> bool:
        """Wait until everything up to a revision can be taken; False: it came too late."""
        self._driver.engine.check("sync")
        begun: list[Any] = []
        self._post(lambda now: begun.append(self.core.sync(revision, now)))

        def done() -> object:
            return self.ended or (begun and begun[0].done and self.through >= revision)

        try:
            return self._bell.wait(done, deadline, self._alive)
        finally:
            self._post(lambda now: list(map(self.core.give_up, begun)))

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called, here or of the service."""
        return self._closed or self._driver.closed

    def close(self) -> None:
        """Fill no more; may be called anywhere (for finalizers)."""
        self._closed = True
        if os.getpid() == self._pid:
            self._post(lambda now: self.core.close())
            port = self._port()
            if port is not None:
                self._driver.engine.remove(port)
            self.watcher = None

    abandon = close
