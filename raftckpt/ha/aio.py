"""The asyncio face: the same names as in :mod:`raftckpt.ha`, awaitable.

Example::

    async with raftckpt.aio.connect(endpoints, disconnect_grace=0) as service:
        component = ha.aio.Component(service, "counters", "c1", on_active=work, on_standby=wait)
        await component.run()
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from inspect import isawaitable
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any, Final

from raftckpt.client import group_operations
from raftckpt.client.aio import Checkpoint, Service
from raftckpt.client.aio_tracking import Tracker
from raftckpt.client.changes import Change
from raftckpt.client.witness import Witness, witness_of
from raftckpt.errors import CheckpointError
from raftckpt.ha._core import Callbacks, Described, Invoke, Membership, Pause, Run, Steps, Sync
from raftckpt.ha._lease import LEASE_PREFIX, Holding, holder_name
from raftckpt.ha.types import Assignment, GroupStatus, GroupSummary
from raftckpt.model.groups import AdminState, Operation

__all__ = ["Component", "Group", "Lease", "groups", "lease"]

_WAIT_SECONDS_MAX: Final = 60.0
_LEAVE_SECONDS: Final = 2.0
_AHEAD: Final = 64
"""Changes taken from a tracker and not delivered; what comes after them waits in the tracker."""


class Component(Described):
    """A component of a service group; it joins by :meth:`join`, or with :meth:`run`.

    Arguments, callbacks and errors are those of :class:`raftckpt.ha.Component`; a callback may be a
    coroutine function.
    """

    def __init__(
        self,
        service: Service,
        group: str,
        name: str,
        *,
        on_active: Callable[[Assignment], Any],
        on_standby: Callable[[Assignment], Any],
        on_quiesced: Callable[[Assignment], Any] | None = None,
        on_unassigned: Callable[[Assignment], Any] | None = None,
        on_removed: Callable[[Assignment], Any] | None = None,
        rank: int = 0,
        response_timeout: float = 10.0,
        health_check: float | None = None,
        rejoin: bool = True,
        timeout: float | None = None,
        stop_time: float = 0.0,
    ) -> None:
        self._driver = service._driver
        self._service = service
        self._membership = Membership(
            self._driver.core,
            group,
            name,
            Callbacks(on_active, on_standby, on_quiesced, on_unassigned, on_removed),
            rank=rank,
            response_timeout=response_timeout,
            health_check=health_check,
            rejoin=rejoin,
            stop_seconds=stop_time,
        )
        self._timeout = self._driver.timeout if timeout is None else timeout
        self._woken = asyncio.Event()
        self._feeds: list[_Feed] = []
        self._stopping = self._closed = False
        self._witness: Witness | None = None

    async def __aenter__(self) -> Component:
        await self.join()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def join(self) -> None:
        """Join the group. Idempotent.

        Raises:
            Exist: another session has a component of this name.
        """
        if self._witness is not None or self._closed:
            return
        self._membership.serve(self._woken.set)
        try:
            await self._drive(self._membership.join(monotonic() + self._timeout, monotonic))
        except BaseException:
            self._driver.core.roles.forget((self.group, self.name))
            raise
        self._witness = witness_of(self._driver)

    async def track(
        self,
        ckpt: Checkpoint | str,
        on_change: Callable[[Change], Any],
        *,
        from_revision: int | None = None,
        image: bool = True,
    ) -> Tracker:
        """Follow a checkpoint; see :meth:`raftckpt.ha.Component.track`."""
        if isinstance(ckpt, str):
            tracker = await self._service.track(ckpt, from_revision, image)
        else:
            tracker = await ckpt.track(from_revision, image)
        self._feeds.append(_Feed(tracker, on_change, self._woken))
        return tracker

    async def _deliver(self) -> int:
        """Call back for the changes that wait."""
        delivered = 0
        for feed in self._feeds:
            delivered += await feed.deliver()
        return delivered

    async def _sync(self, revision: int) -> None:
        """Deliver every tracked change up to a revision."""
        async with asyncio.timeout(self._membership.response_seconds):
            for feed in self._feeds:
                await feed.sync(revision)
        await self._deliver()

    async def run(self) -> None:
        """Join and call back, until :meth:`stop` or :meth:`close` is called.

        Raises:
            SessionLost: the session ended; connect again.
            Exception: what a callback raised.
        """
        while not self._stopping:
            await self.dispatch(_WAIT_SECONDS_MAX)

    async def dispatch(self, timeout: float = 0.0) -> int:
        """Call the callbacks that are due; wait ``timeout`` seconds for the first one."""
        await self.join()
        deadline = monotonic() + timeout
        while not self._closed:
            self._beat()
            now = monotonic()
            wait = self._membership.patience(now, max(0.0, deadline - now))
            if wait > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), wait)
            self._woken.clear()
            self._beat()
            done: int = await self._deliver()
            done += await self._drive(self._membership.work(monotonic, self._timeout))
            if done or self._stopping or monotonic() >= deadline:
                return done
        return 0

    async def respond(self, assignment: Assignment, ok: bool = True) -> None:
        """Answer an assignment whose callback returned :data:`~raftckpt.ha.LATER`.

        Raises:
            BadOperation: another assignment took its place, or it was answered before.
        """
        await self._drive(self._membership.respond(assignment, ok))

    def stop(self) -> None:
        """Have :meth:`run` return."""
        self._stopping = True
        self._woken.set()

    async def close(self, *, failed: bool = False) -> None:
        """Leave the group: if it was active, the next one is, at once. Idempotent.

        Arguments:
            failed: what did the work came to an end by itself: the next one is told so.
        """
        if self._closed:
            return
        self.stop()
        self._closed = True
        for feed in self._feeds:
            await feed.close()
        if not self._driver.closed:
            await self._drive(self._membership.leave(_LEAVE_SECONDS, failed=failed))

    # --- inside -------------------------------------------------------------------------------
    async def _drive(self, steps: Steps) -> Any:
        """Do what the core asks for, until it is through."""
        value: Any = None
        error: Exception | None = None
        while True:
            try:
                step = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as stop:
                return stop.value
            value = error = None
            try:
                value = await self._do(step)
            except Exception as raised:
                error = raised

    async def _do(self, step: Any) -> Any:
        if isinstance(step, Run):
            return await self._driver.run(step.call, step.timeout)
        if isinstance(step, Invoke):
            verdict = step.callback(step.assignment)
            return await verdict if isawaitable(verdict) else verdict
        if isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
        elif isinstance(step, Sync):
            await self._sync(step.revision)
        return None

    def _beat(self) -> None:
        call = self._membership.beat(monotonic())
        if call is not None and not self._driver.closed:
            self._driver.submit(call, self._membership.beat_seconds or 0.0)


class _Feed:
    """Takes the changes of a tracker, a few ahead of their delivery."""

    def __init__(
        self, tracker: Tracker, on_change: Callable[[Change], Any], woken: asyncio.Event
    ) -> None:
        self._tracker = tracker
        self._on_change = on_change
        self._woken = woken
        self._taken: deque[Change] = deque()
        self._room = asyncio.Event()
        self._failure: BaseException | None = None
        self._task = asyncio.get_running_loop().create_task(self._take())

    async def _take(self) -> None:
        try:
            async for change in self._tracker:
                self._taken.append(change)
                self._woken.set()
                if len(self._taken) >= _AHEAD:
                    self._room.clear()
                    await self._room.wait()
        except CheckpointError as error:
            self._failure = error
            self._woken.set()

    async def deliver(self) -> int:
        """Call back for what was taken."""
        delivered = 0
        while self._taken:
            verdict = self._on_change(self._taken.popleft())
            if isawaitable(verdict):
                await verdict
            delivered += 1
        self._room.set()
        if self._failure is not None:
            raise self._failure
        return delivered

    async def sync(self, revision: int) -> None:
        """Take everything up to a revision."""
        if not self._task.done():
            await self._tracker.sync(revision)
            self._taken.extend(await self._tracker.drain())

    async def close(self) -> None:
        """Take no more."""
        self._task.cancel()
        await self._tracker.close()


class Lease(Holding):
    """A lock that is had in an ``async with``. Made by :func:`lease`."""

    def __init__(
        self,
        service: Service,
        name: str,
        wait: float | None,
        on_lost: Callable[[], object] | None,
        stop_time: float,
    ) -> None:
        super().__init__(name, wait, on_lost, stop_time)
        self._core = service._driver.core
        self._decision = asyncio.Event()
        self._component = Component(
            service, LEASE_PREFIX + self.name, holder_name(), **self._options
        )
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Lease:
        self._task = asyncio.create_task(self._serve())
        try:
            async with asyncio.timeout(None if self._wait == inf else self._wait):
                await self._decision.wait()
        except TimeoutError:
            pass
        except BaseException:
            await self._leave()
            raise
        if not self._has:
            await self._leave()
            raise self._error()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._on_lost = None  # given back
        self._has = False
        await self._leave()

    async def _leave(self) -> None:
        await self._component.close()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _serve(self) -> None:
        try:
            await self._component.run()
        except CheckpointError as error:
            self._lose(error)

    def _changed(self) -> None:
        if self._decided():
            self._decision.set()


def lease(
    service: Service,
    name: str,
    wait: float | None = None,
    *,
    on_lost: Callable[[], object] | None = None,
    stop_time: float = 0.0,
) -> Lease:
    """Have a lock in an ``async with``; see :func:`raftckpt.ha.lease`."""
    return Lease(service, name, wait, on_lost, stop_time)


async def groups(service: Service, *, timeout: float | None = None) -> list[GroupSummary]:
    """List the service groups."""
    rows = await service._driver.run(group_operations.groups(), timeout)
    return [GroupSummary.from_wire(row) for row in rows]


class Group:
    """A service group, for operators; see :class:`raftckpt.ha.Group`."""

    def __init__(self, service: Service, name: str) -> None:
        self.name = group_operations.name_of(name, "the name of a group")
        self._run = service._driver.run

    async def status(self, *, timeout: float | None = None) -> GroupStatus:
        """Describe the group and its components."""
        call = group_operations.group_status(self.name)
        return GroupStatus.from_wire(await self._run(call, timeout))

    async def _admin(
        self, operation: Operation, timeout: float | None, target: str | None = None
    ) -> Any:
        return await self._run(group_operations.admin(self.name, operation, target), timeout)

    async def unlock(self, *, timeout: float | None = None) -> AdminState:
        """Let components be active and stand by."""
        return AdminState(await self._admin(Operation.UNLOCK, timeout))

    async def lock(self, *, timeout: float | None = None) -> AdminState:
        """Have the active quiesce at once, then take all assignments away; components stay."""
        return AdminState(await self._admin(Operation.LOCK, timeout))

    async def lock_instantiation(self, *, timeout: float | None = None) -> AdminState:
        """Lock, and have supervisors (``raftckpt run``) end the components."""
        return AdminState(await self._admin(Operation.LOCK_INSTANTIATION, timeout))

    async def shutdown(self, *, timeout: float | None = None) -> AdminState:
        """Have the active finish what it is at, then lock."""
        return AdminState(await self._admin(Operation.SHUTDOWN, timeout))

    async def swap(self, to: str | None = None, *, timeout: float | None = None) -> None:
        """Hand ACTIVE over in an orderly way, to the standby ``to`` or the next in rank."""
        await self._admin(Operation.SWAP, timeout, to)

    async def delete(self, *, timeout: float | None = None) -> None:
        """Forget a group without components."""
        await self._admin(Operation.DELETE, timeout)
