"""A component without IO: joins, carries assignments out, answers. Faces do what it yields.

The methods that have work for the outside are generators of steps: a call to be run, a callback to
be called, a pause. The face sends back what came of it, or throws what was raised.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, NamedTuple, TypeAlias

from raftckpt.client.kit import Call, ClientCore, group_operations
from raftckpt.errors import (
    BadOperation,
    CheckpointError,
    InvalidParam,
    NotExist,
    SessionLost,
    Timeout,
    TryAgain,
    Unavailable,
)
from raftckpt.ha.types import LATER, Assignment
from raftckpt.model.groups import HaState

__all__ = [
    "BEATS_PER_PERIOD",
    "Callbacks",
    "Described",
    "Invoke",
    "Membership",
    "Pause",
    "Run",
    "Steps",
    "Sync",
]

Callback: TypeAlias = Callable[[Assignment], Any]
Steps: TypeAlias = Generator[Any, Any, Any]

BEATS_PER_PERIOD: Final = 3
"""Two signs of life may be late, or lost with a replica, before the third one is missed."""
ISOLATED: Final = "isolated"
RECONNECTED: Final = "reconnected"
_WORKING: Final = (HaState.ACTIVE, HaState.QUIESCING)
_MARGIN_SECONDS: Final = 0.5
"""Time to tell a component, and for clocks that do not run alike."""
_ANSWER_SECONDS: Final = 1.0
"""For an answer to be taken; it is given again then."""
_LAST_SECONDS: Final = 0.01
"""For one that is given in the moment in which it is to be told that it is cut off."""
_JOIN_PAUSE_SECONDS: Final = 0.05
"""A heartbeat, doubled each time: a name whose session is just ending is had soon."""
_JOIN_PAUSE_SECONDS_MAX: Final = 0.5
"""About an election: so much later than the end of the other one a name is had, at most."""
_FOR_NOW: Final = (Timeout, TryAgain, Unavailable)
"""An answer that met one of these is given again."""


class Run(NamedTuple):
    """Step: run a call; its value is sent back."""

    call: Call
    timeout: float | None = None


class Invoke(NamedTuple):
    """Step: call back; what it returns is sent back."""

    callback: Callback
    assignment: Assignment


class Sync(NamedTuple):
    """Step: deliver every tracked change up to a revision."""

    revision: int


class Pause(NamedTuple):
    """Step: wait."""

    seconds: float


class Callbacks(NamedTuple):
    """What the program does on which state."""

    on_active: Callback
    on_standby: Callback
    on_quiesced: Callback | None
    on_unassigned: Callback | None
    on_removed: Callback | None

    def of(self, state: HaState) -> Callback | None:
        """The callback of a state; None: there is nothing to do."""
        if state is HaState.ACTIVE:
            return self.on_active
        if state is HaState.STANDBY:
            return self.on_standby
        if state is HaState.UNASSIGNED:
            return self.on_unassigned
        if state is HaState.REMOVED:
            return self.on_removed
        return self.on_quiesced


class Membership:
    """One component's part in one group.

    Attributes:
        current: the assignment that was carried out last, or is being carried out.
        member: its number in the cluster, 0 while it is not joined.
    """

    def __init__(
        self,
        core: ClientCore,
        group: str,
        name: str,
        callbacks: Callbacks,
        *,
        rank: int,
        response_timeout: float,
        health_check: float | None,
        rejoin: bool,
        stop_seconds: float = 0.0,
    ) -> None:
        for callback in callbacks:
            if callback is not None and not callable(callback):
                raise InvalidParam(f"a callback is a function, not {callback!r}")
        self.group = group
        self.name = name
        self.current: Assignment | None = None
        self.member = 0
        self._core = core
        self._clock: Callable[[], float] = lambda: 0.0
        self._wake: Callable[[], None] = lambda: None
        self._key = (group, name)
        self._callbacks = callbacks
        self._options = (rank, response_timeout, health_check)
        self._rejoin = rejoin
        self._stop_seconds = stop_seconds
        self._health_check = health_check
        self._unanswered: tuple[Assignment, bool] | None = None
        self._beat_at = 0.0
        self._told_of_the_end = False
        self._suspended: Assignment | None = None
        """What it was to be when it was cut off; it may get that back."""
        group_operations.join(group, name, *self._options)  # raises what is wrong with them

    @property
    def response_seconds(self) -> float:
        """Time it has for an answer."""
        return self._options[1]

    @property
    def beat_seconds(self) -> float | None:
        """Time between two signs of life; None: none are expected."""
        return None if self._health_check is None else self._health_check / BEATS_PER_PERIOD

    def serve(self, wake: Callable[[], None]) -> None:
        """Begin to listen; ``wake`` is called from any thread when there is something to do."""
        timeout = self._core.config.session_timeout_ns / 1e9
        self._core.roles.watch(min(_MARGIN_SECONDS, timeout / 8) + self._stop_seconds)
        self._core.roles.serve(self._key, wake)
        self._wake = wake

    # --- joining ------------------------------------------------------------------------------
    def join(self, deadline: float, clock: Callable[[], float]) -> Steps:
        """Join; while another session has a component of this name, wait for its end.

        A join without an answer may have been carried out, and the component may even have been
        taken out of service since because it did not answer: then it begins anew.
        """
        self._clock = clock
        doubtful = self._core.roles.doubtful
        pause = _JOIN_PAUSE_SECONDS
        while True:
            left = max(0.001, deadline - clock())
            doubted = self._key in doubtful
            doubtful.add(self._key)  # until there is an answer, however this ends
            try:
                joined = yield Run(
                    group_operations.join(self.group, self.name, *self._options), left
                )
                doubtful.discard(self._key)
                self.member = joined[0]
                return
            except CheckpointError as error:
                if error.definite and not doubted:
                    doubtful.discard(self._key)
                if doubted and error.reason in ("component_joined", "deposed"):
                    begins_anew = yield from self._clear(error.reason, left)
                    if begins_anew:
                        continue
                elif error.reason != "component_exists":
                    raise
                if clock() + pause > deadline:
                    raise
            yield Pause(pause)
            pause = min(2 * pause, _JOIN_PAUSE_SECONDS_MAX)

    def _clear(self, reason: str, timeout: float) -> Steps:
        """End what a join without an answer began; False: its end was not told yet."""
        if reason == "component_joined":
            yield Run(group_operations.leave(self.group, self.name, failed=False), timeout)
        else:
            role = self._core.roles.take(self._key)
            if role is None or role["state"] != HaState.REMOVED:
                return False
            yield from self.respond(Assignment.from_wire(role), True)
        self._core.roles.doubtful.discard(self._key)
        return True

    # --- working ------------------------------------------------------------------------------
    def beat(self, now: float) -> Call | None:
        """Return the sign of life that is due, to be sent without waiting for its end."""
        period = self.beat_seconds
        if period is None or not self.member or now < self._beat_at:
            return None
        self._beat_at = now + period
        return group_operations.alive(self.member)

    def patience(self, now: float, most: float) -> float:
        """Seconds until :meth:`beat` has something to send, or an answer is to be given again."""
        if self._unanswered is not None:
            return min(most, _JOIN_PAUSE_SECONDS)
        if self._health_check is None:
            return most
        return max(0.0, min(most, self._beat_at - now))

    def work(self, clock: Callable[[], float], timeout: float) -> Steps:
        """Carry out what was told; returns how many callbacks were due.

        Raises:
            SessionLost: the session ended.
            Exception: of the callback, after the cluster was told that the component failed.
        """
        done = 0
        self._clock = clock
        if self._core.roles.isolated:
            done += yield from self._suspend()
        if self._unanswered is not None:
            yield from self._answer(*self._unanswered)
        while not self._cut_off():
            role = self._core.roles.take(self._key)
            if role is None:
                break
            assignment = Assignment.from_wire(role)
            if role["answered"] and assignment.state is not HaState.REMOVED:
                continue
            done += 1
            self.member = role["member"]  # the answer to a join may have been lost
            yield from self._carry_out(assignment)
            if assignment.state is HaState.REMOVED and self._unanswered is None:
                self.member = 0
                if self._rejoin:
                    yield from self.join(clock() + timeout, clock)
        if self._core.roles.lost:
            yield from self._end()
        if self._suspended is not None:
            done += yield from self._give_back(self._suspended)
        return done

    def _cut_off(self) -> bool:
        """Whether another one may be active: what was told before is not begun before we know.

        The program may have been stopped between being told and now.
        """
        if self._core.roles.isolated:
            return True  # it is woken when that is over
        late = self._clock() >= self._core.safe_until()
        if late:
            self._wake()  # whoever looks after the session is about to know
        return late

    def _suspend(self) -> Steps:
        """Stop working before another one may become active."""
        current = self.current
        if self._suspended is not None or current is None or current.state not in _WORKING:
            return 0
        self._suspended = current
        self.current = replace(current, state=HaState.QUIESCED, reason=ISOLATED)
        # who gave no callback for it has one for the end of all work
        callback = self._callbacks.on_quiesced or self._callbacks.on_removed
        if callback is not None:
            yield Invoke(callback, self.current)
        return 1

    def _give_back(self, former: Assignment) -> Steps:
        """The session lives, and nothing else was assigned: go on."""
        roles = self._core.roles
        if roles.isolated or self._key not in (roles.back or ()):
            return 0
        self._suspended = None
        self.current = replace(former, reason=RECONNECTED)
        callback = self._callbacks.of(former.state)
        if callback is not None:
            yield Invoke(callback, self.current)
        return 1

    def _carry_out(self, assignment: Assignment) -> Steps:
        self.current = assignment
        self._suspended = None
        callback = self._callbacks.of(assignment.state)
        try:
            if assignment.state is HaState.ACTIVE:
                yield Sync(assignment.revision)
            verdict = (yield Invoke(callback, assignment)) if callback is not None else None
        except Exception:
            yield from self._answer(assignment, assignment.state is HaState.REMOVED)
            raise
        if verdict is not LATER:
            yield from self._answer(assignment, True)

    def _answer(self, assignment: Assignment, ok: bool) -> Steps:
        """Answer; what could not be taken for now is kept and given again."""
        self._unanswered = (assignment, ok)
        try:
            yield from self.respond(assignment, ok)
        except _FOR_NOW:
            return
        except (BadOperation, NotExist, SessionLost):
            pass  # a newer assignment took its place, or the session ended: we will be told
        self._unanswered = None

    def respond(self, assignment: Assignment, ok: bool) -> Steps:
        """Answer an assignment; a suspension is nobody's but ours, and needs none."""
        if assignment.reason == ISOLATED:
            return
        call = group_operations.respond(self.group, self.name, assignment.number, ok)
        yield Run(call, self._answer_seconds())

    def _answer_seconds(self) -> float:
        """How long to wait for an answer to be taken.

        Who waits cannot be told that it is cut off: so while it works, no longer than until then.
        """
        current = self.current
        if self._suspended is not None or current is None or current.state not in _WORKING:
            return _ANSWER_SECONDS
        left = self._core.safe_until() - self._clock()
        return min(_ANSWER_SECONDS, max(_LAST_SECONDS, left))

    def _end(self) -> Steps:
        why = self._core.roles.lost
        if not self._told_of_the_end:
            self._told_of_the_end = True
            self.member = 0
            self.current = Assignment(
                self.group, self.name, 0, HaState.REMOVED, "session_lost", active=""
            )
            callback = self._callbacks.on_removed
            if callback is not None:
                yield Invoke(callback, self.current)
        raise SessionLost(f"component {self.name!r} of group {self.group!r}: session lost: {why}")

    # --- leaving ------------------------------------------------------------------------------
    def leave(self, timeout: float, *, failed: bool = False) -> Steps:
        """Leave the group, as far as that is possible; the end of the session does the rest."""
        roles = self._core.roles
        try:
            if self.member and not roles.lost:
                call = group_operations.leave(self.group, self.name, failed=failed)
                yield Run(call, timeout)
        except CheckpointError:
            role = roles.take(self._key)
            if role is not None and role["state"] == HaState.REMOVED:
                with suppress(CheckpointError):
                    yield from self.respond(Assignment.from_wire(role), True)
        self.member = 0
        roles.forget(self._key)


class Described:
    """What both faces tell about a component."""

    _membership: Membership

    @property
    def group(self) -> str:
        """Name of the service group."""
        return self._membership.group

    @property
    def name(self) -> str:
        """Name of the component."""
        return self._membership.name

    @property
    def assignment(self) -> Assignment | None:
        """The assignment carried out last, or being carried out."""
        return self._membership.current

    @property
    def state(self) -> HaState:
        """Its HA state, as far as it was told."""
        current = self._membership.current
        return HaState.UNASSIGNED if current is None else current.state
