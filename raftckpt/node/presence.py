"""Who is there: which connection speaks for which session, and what their ends mean.

Only of attached sessions commands are taken, so a connection that takes one over makes the former
one useless.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from raftckpt.errors import SaAisError
from raftckpt.model.types import Result, refuse, success
from raftckpt.node.clock import Clock
from raftckpt.node.leadership import Leadership
from raftckpt.node.liveness import Requester, SessionState
from raftckpt.node.roles import Witnesses
from raftckpt.node.situation import Situation
from raftckpt.protocol import operations as ops

__all__ = ["ON_SESSIONS", "Presence"]

_TRY_AGAIN: Final = int(SaAisError.ERR_TRY_AGAIN)
_OK: Final = int(SaAisError.OK)
_OPENING: Final = frozenset((ops.SessionOpen, ops.SessionAdmit))
ON_SESSIONS: Final = _OPENING | {ops.SessionClose, ops.SessionExpire}
"""Commands that begin or end sessions."""


class Presence:
    """The connections of sessions and components, and second ones (witnesses).

    While this replica leads, ``state.owner is owner`` if and only if ``owner.session is state``;
    whoever does not lead has attached nobody.

    Arguments:
        situation: what this replica knows of itself and its cluster.
        clock: monotonic time.
        wake: called when a deadline may have come nearer.
    """

    def __init__(self, situation: Situation, clock: Clock, wake: Callable[[], None]) -> None:
        self.witnesses = Witnesses()
        self._situation = situation
        self._clock = clock
        self._wake = wake

    def bind(self, leadership: Leadership, owner: Requester, state: SessionState) -> None:
        """Attach a session to a connection; those that either had before have it no more."""
        if owner.session is not None and owner.session is not state:
            owner.session.owner = None
        if state.owner is not None and state.owner is not owner:
            state.owner.session = None
            state.owner.detached()
        leadership.liveness.resumed(state, self._clock.monotonic(), owner.address)
        state.owner = owner
        owner.session = state

    def changed(self, command: Any, owner: Requester | None, result: Result) -> None:
        """A command of ``ON_SESSIONS``, proposed here for ``owner``, was applied."""
        leadership = self._situation.leadership
        if leadership is None or result.code != _OK:
            return
        liveness = leadership.liveness
        if type(command) in _OPENING:
            state = liveness.opened(result.value[0], self._clock.monotonic())
            if state is not None and owner is not None:
                if owner.gone:  # it did not even wait for its session
                    liveness.closed_by_client(state, self._clock.monotonic())
                else:
                    self.bind(leadership, owner, state)
            return
        for state in (
            [liveness.ended(command.session)]
            if type(command) is ops.SessionClose
            else [liveness.ended(session) for session in command.sessions]
        ):
            if state is not None and state.owner is not None:
                state.owner.session = None
                if type(command) is ops.SessionExpire:
                    state.owner.notice("session_lost", "expired")

    def rights_changed(self) -> None:
        """Sessions may have ended with the principals they were of."""
        leadership = self._situation.leadership
        if leadership is None:
            return
        liveness, living = leadership.liveness, self._situation.machine.sessions
        for number in [number for number in liveness.states if number not in living]:
            state = liveness.ended(number)
            if state is not None and state.owner is not None:
                state.owner.notice("session_lost", "revoked")
                state.owner.session = None

    def stepped_down(self, former: Leadership) -> None:
        """Who does not lead has nobody attached."""
        for state in former.liveness.states.values():
            if state.owner is not None:
                state.owner.session = None

    # --- what connections say -------------------------------------------------------------------
    def closed(self, owner: Requester, *, by_client: bool) -> None:
        """The connection is gone; a close by the client's side starts the grace."""
        if owner.witness:
            self._witness_closed(owner, by_client)
        state = owner.session
        owner.session = None
        if state is None or state.owner is not owner:
            return
        state.owner = None
        leadership = self._situation.leadership
        if by_client and leadership is not None:
            leadership.liveness.closed_by_client(state, self._clock.monotonic())
            self._wake()  # the deadline may have come nearer

    def witness(self, owner: Requester, message: ops.WitnessRequest) -> None:
        """Make this a second connection of a session."""
        request, session, situation = message.request, message.session, self._situation
        if session not in situation.machine.sessions:  # perhaps not yet: we may be behind
            owner.refuse(request, _TRY_AGAIN, "gap")
        elif not situation.is_its_own(owner, message):
            owner.refuse(request, SaAisError.ERR_ACCESS, "secret")
        elif owner.witness:
            owner.refuse(request, SaAisError.ERR_INVALID_PARAM, "schema", "already a witness")
        else:
            owner.witness = session
            self.witnesses.opened(session)
            owner.answer(request, success(situation.leader))

    def _witness_closed(self, owner: Requester, by_client: bool) -> None:
        session, owner.witness = owner.witness, 0
        now, situation = self._clock.monotonic(), self._situation
        gone = self.witnesses.closed(session, situation.machine, now, by_client=by_client)
        if gone and situation.leadership is not None:
            liveness = situation.leadership.liveness
            state = liveness.state(session)
            if state is not None and state.owner is None:
                liveness.closed_by_client(state, now)
                self._wake()

    def component_alive(self, owner: Requester, message: ops.ComponentAlive) -> None:
        """Take a sign of life of a component."""
        request, number, situation = message.request, message.member, self._situation
        if situation.leadership is None:
            situation.refuse_not_leader(owner, request)
        elif owner.session is None:
            situation.refuse_detached(owner, request)
        elif situation.leadership.roles.alive(owner.session.id, number, self._clock.monotonic()):
            owner.answer(request, success([situation.machine.revision]))
        else:
            owner.answer(request, refuse(SaAisError.ERR_NOT_EXIST, "component_missing", number))
