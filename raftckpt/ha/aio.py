"""The asyncio face: the same names as in :mod:`raftckpt.ha`, awaitable.

Example::

    async with ha.aio.connect(endpoints) as service:
        component = ha.aio.Component(service, "counters", "c1", on_active=work, on_standby=wait)
        await component.run()

This file is also the source of the blocking face (``sync.py`` is made from it by
``tools/faces.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from types import TracebackType
from typing import Any, Final

import raftckpt.aio
from raftckpt.aio import Connecting
from raftckpt.client.aio import Checkpoint, Service
from raftckpt.client.aio_tracking import Tracker
from raftckpt.client.kit import Change, Witness, group_operations, witness_of
from raftckpt.errors import Timeout
from raftckpt.ha._core import Callbacks, Described, Invoke, Membership, Pause, Run, Steps, Sync
from raftckpt.ha._lease import LEASE_PREFIX, Holding, holder_name
from raftckpt.ha.aio_parts import Alarm, Serving, called
from raftckpt.ha.types import Assignment, GroupStatus, GroupSummary
from raftckpt.model.groups import AdminState, Operation

__all__ = ["Component", "Group", "Lease", "connect", "groups", "lease"]

_WAIT_SECONDS_MAX: Final = 60.0  # of one wait: nothing depends on it, there is another one after it
_LEAVE_SECONDS: Final = 2.0  # who leaves says so, and does not wait long for the answer
_CHANGES_PER_TURN: Final = 1000  # between two looks at the role
_SESSION_SECONDS: Final = 5.0
"""Of silence, where no broken connection told earlier: eight elections at their slowest, so that a
change of leaders ends no session."""


def connect(
    endpoints: str | Iterable[str],
    *,
    session_timeout: float = _SESSION_SECONDS,
    disconnect_grace: float = 0.0,
    **options: Any,
) -> Connecting:
    """Connect as components should: when the process dies, its session ends at once.

    Arguments:
        endpoints: as of :func:`raftckpt.connect`, as all the other options.
        session_timeout: seconds of silence after which a component that is cut off is replaced.
        disconnect_grace: seconds a session goes on after its process died.
        options: see :func:`raftckpt.connect`.
    """
    return raftckpt.aio.connect(
        endpoints, session_timeout=session_timeout, disconnect_grace=disconnect_grace, **options
    )


class Component(Described):
    """A component of a service group; it joins by :meth:`join`, or with :meth:`run`.

    Callbacks are called by :meth:`run` or :meth:`dispatch`, in the thread that calls these.
    They may be coroutine functions.
    One that returns has carried the assignment out; one that returns
    :data:`~raftckpt.ha.LATER` says so by :meth:`respond`; one that raises has failed: the component
    is taken out of service, another one becomes active, and the exception leaves :meth:`dispatch`.

    Arguments:
        service: a session of its own, best by :func:`raftckpt.ha.connect`.
        group: name of the service group; made by the first who joins.
        name: name of the component, unique in the group.
        on_active: begin to work.
        on_standby: stand by.
        on_quiesced: stop working (QUIESCED), or finish what was begun and then stop (QUIESCING);
            when it is answered another component goes on. With the reason ``isolated`` no replica
            was heard from and another one may become active soon; if none did, ``on_active`` is
            called again with the reason ``reconnected``. None: ``on_removed`` is told of that.
        on_unassigned: the group is locked.
        on_removed: it was taken out of service; its changes are refused until this returns.
        rank: preferred order of promotion; smaller first, then the order of joining.
        response_timeout: seconds until an assignment must be answered.
        health_check: seconds without a call of :meth:`dispatch` after which it counts as hung;
            None: only its session is watched.
        rejoin: join again, as a standby, after it was taken out of service.
        timeout: seconds to wait for a component of the same name in an older session to end.
        stop_time: seconds ``on_quiesced`` needs to stop the work; so much earlier it is called when
            no replica is heard from.

    Raises:
        Exist: another session has a component of this name.
        Fenced: a component of this session failed and has not answered that it knows.
        InvalidParam: an argument is not valid.
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
        self._stopping = self._closed = False
        self._alarm = Alarm()
        self._trackers: dict[Tracker, Callable[[Change], Any]] = {}
        self._witness: Witness | None = None
        # (the blocking one joins here)

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
            Fenced: a component of this session failed and has not answered that it knows.
        """
        if self._witness is not None or self._closed:
            return
        self._membership.serve(self._alarm.ring)
        try:
            await self._drive(self._membership.join(monotonic() + self._timeout, monotonic))
        except BaseException:
            self._driver.core.roles.forget((self.group, self.name))
            raise
        self._witness = witness_of(self._driver)
        beat = self._membership.beat_seconds
        if beat is not None:
            self._alarm.ring_every(beat)

    # --- hot standby --------------------------------------------------------------------------
    async def track(
        self,
        ckpt: Checkpoint | str,
        on_change: Callable[[Change], Any],
        *,
        from_revision: int | None = None,
        image: bool = True,
    ) -> Tracker:
        """Follow a checkpoint; ``on_change`` is called by :meth:`dispatch`.

        Before ``on_active`` is called, ``on_change`` was called for every change that the previous
        active got committed: a hot standby goes on without reading.

        Arguments:
            ckpt: an open checkpoint, or the name of one.
            on_change: takes a :class:`raftckpt.Change`, an image first; it goes on when active.
            from_revision: see :meth:`raftckpt.Checkpoint.track`, as ``image``.
            image: begin with an image.
        """
        if isinstance(ckpt, str):
            tracker = await self._service.track(ckpt, from_revision, image)
        else:
            tracker = await ckpt.track(from_revision, image)
        self._trackers[tracker] = on_change
        tracker.watch(self._alarm.ring)
        return tracker

    async def _deliver(self, through: int = 0) -> int:
        """Call back for changes that wait: some, or all up to a revision (``through``).

        Not more: changes may come as fast as they are delivered, and assignments must have a turn.
        """
        delivered = 0
        for tracker, on_change in list(self._trackers.items()):
            left = _CHANGES_PER_TURN
            while left > 0:
                change = await self._next_of(tracker)
                if change is None:
                    break
                delivered += 1
                left -= change.revision >= through
                await called(on_change, change)
            else:
                self._alarm.ring()  # there may be more
        return delivered

    async def _next_of(self, tracker: Tracker) -> Change | None:
        try:
            return await tracker.next(0)
        except Timeout:
            return None
        except StopAsyncIteration:  # the checkpoint was destroyed
            del self._trackers[tracker]
            return None

    async def _sync(self, revision: int) -> None:
        """Deliver every tracked change up to a revision."""
        deadline = monotonic() + self._membership.response_seconds
        for tracker in list(self._trackers):
            await tracker.sync(revision, max(0.0, deadline - monotonic()))
        await self._deliver(revision)

    # --- working ------------------------------------------------------------------------------
    async def run(self) -> None:
        """Call back, until :meth:`stop` or :meth:`close` is called.

        Raises:
            SessionLost: the session ended; connect again.
            Exception: what a callback raised.
        """
        while not self._stopping:
            await self.dispatch(_WAIT_SECONDS_MAX)

    def fileno(self) -> int:
        """Descriptor that is readable when :meth:`dispatch` has something to do."""
        return self._alarm.fileno()

    async def dispatch(self, timeout: float = 0.0) -> int:
        """Call the callbacks that are due.

        Arguments:
            timeout: seconds to wait for the first one.

        Returns:
            How many callbacks were called.

        Raises:
            SessionLost: the session ended; connect again.
            Exception: what a callback raised.
        """
        await self.join()
        deadline = monotonic() + timeout
        while not self._closed:
            self._beat()
            now = monotonic()
            wait = self._membership.patience(now, max(0.0, deadline - now))
            await self._alarm.wait(wait)
            self._beat()
            done: int = await self._deliver()
            done += await self._drive(self._membership.work(monotonic, self._timeout))
            if done or self._stopping or monotonic() >= deadline:
                return done
        return 0

    async def respond(self, assignment: Assignment, ok: bool = True) -> None:
        """Answer an assignment whose callback returned :data:`~raftckpt.ha.LATER`.

        Arguments:
            assignment: which.
            ok: it was carried out; False: it could not be, the component failed.

        Raises:
            BadOperation: another assignment took its place, or it was answered before.
        """
        await self._drive(self._membership.respond(assignment, ok))

    def stop(self) -> None:
        """Have :meth:`run` return; the blocking one may be called by a signal handler, too."""
        self._stopping = True
        self._alarm.ring()

    async def close(self, *, failed: bool = False) -> None:
        """Leave the group: if it was active, the next one is, at once. Idempotent.

        Arguments:
            failed: what did the work came to an end by itself: the next one is told so.
        """
        if self._closed:
            return
        self.stop()
        self._closed = True
        self._alarm.stop()
        for tracker in self._trackers:
            await tracker.close()
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
            return await called(step.callback, step.assignment)
        if isinstance(step, Pause):
            await self._driver.pause(step.seconds)
        elif isinstance(step, Sync):
            await self._sync(step.revision)
        return None

    def _beat(self) -> None:
        call = self._membership.beat(monotonic())
        if call is not None and not self._driver.closed:
            self._driver.submit(call, self._membership.beat_seconds or 0.0)


class Lease(Holding):
    """A lock that is had in an ``async with``. Made by :func:`lease`.

    It is a service group: who waits is a standby, and the token is the group's fencing epoch. It
    lasts as long as the session; it is lost, by our own clock, before another one can have it.
    """

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
        self._decision = Alarm()
        self._component: Component | None = None
        self._serving: Serving | None = None

    async def __aenter__(self) -> Lease:
        deadline = monotonic() + self._wait
        component = self._component = Component(
            self._service, LEASE_PREFIX + self.name, holder_name(), **self._options
        )
        self._serving = Serving(component.run, self._lose)
        try:
            while not self._decided() and monotonic() < deadline:
                await self._decision.wait(max(0.0, deadline - monotonic()))
            if not self._has:
                raise self._error()
        except BaseException:
            await self._leave()
            raise
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
        if self._component is not None:
            await self._component.close()
        if self._serving is not None:
            await self._serving.end()

    def _changed(self) -> None:
        self._decision.ring()


def lease(
    service: Service,
    name: str,
    wait: float | None = None,
    *,
    on_lost: Callable[[], object] | None = None,
    stop_time: float = 0.0,
) -> Lease:
    """Have a lock in an ``async with``: for what the store cannot fence by itself.

    Give the ``token`` to whatever is changed under the lock: it only grows, and who is given a
    smaller one than it has seen refuses. The lease is had until the end of the block, or until it
    is lost: its session is over, or may be, as no replica was heard from.

    Arguments:
        service: the lease lasts as long as its session, at most.
        name: of the lock.
        wait: seconds to wait for it; None: as long as it takes.
        on_lost: called, by whoever serves it, when it is lost in the block.
        stop_time: seconds the work needs to stop; so much earlier it counts as lost when no replica
            is heard from.

    Raises:
        Timeout: it was not had in time (definite).
        SessionLost: the session ended.

    Example::

        async with ha.lease(service, "nightly", wait=5.0) as lease:
            storage.write(data, fence=lease.token)
    """
    return Lease(service, name, wait, on_lost, stop_time)


async def groups(service: Service, *, timeout: float | None = None) -> list[GroupSummary]:
    """List the service groups."""
    rows = await service._driver.run(group_operations.groups(), timeout)
    return [GroupSummary.from_wire(row) for row in rows]


class Group:
    """A service group, for operators.

    Every change returns when it is decided; the components carry it out after that, which
    :meth:`status` shows. All of them may be repeated.

    Raises:
        NotExist: no component ever joined a group of this name.
    """

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
        """Have the active finish what it is at, then lock.

        Raises:
            BadOperation: the group is not unlocked.
        """
        return AdminState(await self._admin(Operation.SHUTDOWN, timeout))

    async def swap(self, to: str | None = None, *, timeout: float | None = None) -> None:
        """Hand ACTIVE over in an orderly way.

        Arguments:
            to: name of the standby that is to get it; None: the next in rank.
            timeout: seconds.

        Raises:
            BadOperation: nobody is active or ready, or a hand-over is under way.
        """
        await self._admin(Operation.SWAP, timeout, to)

    async def delete(self, *, timeout: float | None = None) -> None:
        """Forget a group without components.

        Raises:
            BadOperation: it has some.
        """
        await self._admin(Operation.DELETE, timeout)
