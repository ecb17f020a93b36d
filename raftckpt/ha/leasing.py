"""Leases: a lock for what is outside of the store, with a token that only grows.

A lease is a service group: who waits is a standby, and the token is the group's fencing epoch. It
lasts as long as the session; it is lost, by our own clock, before another one can have it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic
from types import TracebackType

from raftckpt.client.blocking import Service
from raftckpt.client.wake import Bell
from raftckpt.errors import CheckpointError
from raftckpt.ha._lease import LEASE_PREFIX, Holding, holder_name
from raftckpt.ha.component import Component

__all__ = ["Lease", "lease"]


class Lease(Holding):
    """A lock that is had in a ``with``. Made by :func:`lease`."""

    def __init__(
        self,
        service: Service,
        name: str,
        wait: float | None,
        on_lost: Callable[[], object] | None,
        stop_time: float,
    ) -> None:
        super().__init__(name, wait, on_lost, stop_time)
        self._service = service
        self._core = service._driver.core
        self._bell = Bell()
        self._component: Component | None = None

    def __enter__(self) -> Lease:
        deadline = monotonic() + self._wait
        component = Component(
            self._service, LEASE_PREFIX + self.name, holder_name(), **self._options
        )
        self._component = component
        threading.Thread(
            target=self._serve, args=(component,), name="raftckpt-lease", daemon=True
        ).start()
        try:
            self._bell.wait(self._decided, deadline, lambda: None)
            if not self._has:
                raise self._error()
        except BaseException:
            component.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._on_lost = None  # given back
        self._has = False
        if self._component is not None:
            self._component.close()

    def _serve(self, component: Component) -> None:
        try:
            component.run()
        except CheckpointError as error:
            self._lose(error)

    def _changed(self) -> None:
        self._bell.ring()


def lease(
    service: Service,
    name: str,
    wait: float | None = None,
    *,
    on_lost: Callable[[], object] | None = None,
    stop_time: float = 0.0,
) -> Lease:
    """Have a lock in a ``with``: for what the store cannot fence by itself.

    Give the ``token`` to whatever is changed under the lock: it only grows, and who is given a
    smaller one than it has seen refuses. The lease is had until the end of the block, or until it
    is lost: its session is over, or may be, as no replica was heard from.

    Arguments:
        service: the lease lasts as long as its session, at most.
        name: of the lock.
        wait: seconds to wait for it; None: as long as it takes.
        on_lost: called, by another thread, when it is lost in the block.
        stop_time: seconds the work needs to stop; so much earlier it counts as lost when no replica
            is heard from.

    Raises:
        Timeout: it was not had in time (definite).
        SessionLost: the session ended.

    Example::

        with ha.lease(service, "nightly", wait=5.0) as lease:
            storage.write(data, fence=lease.token)
    """
    return Lease(service, name, wait, on_lost, stop_time)
