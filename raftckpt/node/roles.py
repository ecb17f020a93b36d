"""The leader's view of components: whom to tell what, and who does not answer or is hung.

Only the leader's monotonic clock decides about silence, as it does for sessions: a new leader gives
everybody the full time again. The verdict travels as a GroupFail entry; what arrived before it
counts.
"""

from __future__ import annotations

import heapq
from typing import Final

from raftckpt import limits
from raftckpt.model.group_commands import role_of
from raftckpt.model.groups import HaState, Member
from raftckpt.model.state import State
from raftckpt.node.liveness import Liveness, Requester
from raftckpt.protocol import contract

__all__ = ["Roles", "Witnesses"]

_NEVER: Final = float("inf")
_REMOVED: Final = int(HaState.REMOVED)
_HEALTH: Final = 0
"""In the place of an assignment: the entry watches the signs of life."""
_SLACK: Final = 1024
"""Arbitrary: what is left of those that went is cleared when it is more than so much beside what
lives."""
_AGAIN_S: Final = contract.COMPONENT_SILENCE_NS_MIN / limits.SECOND_NS
"""When a verdict is given again, should its entry be lost."""


class Roles:
    """Components of the state, as long as this replica leads.

    Arguments:
        now: monotonic time of the beginning of the leadership.
        state: the replicated state.
        liveness: where sessions are attached.
    """

    def __init__(self, now: float, state: State, liveness: Liveness) -> None:
        self._state = state
        self._liveness = liveness
        self._seen: dict[int, float] = {}
        self._heap: list[tuple[float, int, int]] = []
        for member in state.groups.members.values():
            self._watch(member, now)

    def _watch(self, member: Member, now: float) -> None:
        """Expect an answer and, from its first assignment on, signs of life."""
        if member.state == _REMOVED:
            self._seen.pop(member.number, None)
            return
        if not member.answered:
            until = now + member.response_ns / limits.SECOND_NS
            heapq.heappush(self._heap, (until, member.number, member.assignment))
        if member.health_ns and member.number not in self._seen:
            self._seen[member.number] = now
            until = now + member.health_ns / limits.SECOND_NS
            heapq.heappush(self._heap, (until, member.number, _HEALTH))
        if len(self._heap) > 4 * len(self._state.groups.members) + _SLACK:
            self._heap = [entry for entry in self._heap if self._counts(entry)]
            heapq.heapify(self._heap)

    def _counts(self, entry: tuple[float, int, int]) -> bool:
        """Whether an entry is about something that is still expected."""
        _, number, assignment = entry
        member = self._state.groups.members.get(number)
        if member is None or member.state == _REMOVED:
            self._seen.pop(number, None)
            return False
        if assignment == _HEALTH:
            return True
        return member.assignment == assignment and not member.answered

    # --- telling ------------------------------------------------------------------------------
    def tell(self, now: float) -> None:
        """Tell the components that were given an assignment by the entry just applied."""
        for member in self._state.groups.told.values():
            self._watch(member, now)
            session = self._liveness.state(member.session)
            if session is not None and session.owner is not None:
                session.owner.notice("role", role_of(self._state, member))

    def attached(self, owner: Requester, session: int) -> None:
        """Tell a session that is attached (again) all its present assignments."""
        record = self._state.sessions.get(session)
        if record is not None and record.members:
            for member in self._state.groups.of_session(record.members):
                owner.notice("role", role_of(self._state, member))

    # --- watching -----------------------------------------------------------------------------
    def alive(self, session: int, number: int, now: float) -> bool:
        """Note a sign of life; False: the session has no such component."""
        member = self._state.groups.members.get(number)
        if member is None or member.session != session:
            return False
        if number in self._seen:
            self._seen[number] = now
        return True

    def stood_still(self, gap: float, now: float) -> None:
        """The replica itself was stopped for so long: give that time to everybody."""
        self._heap = [(until + gap, number, assignment) for until, number, assignment in self._heap]
        for number, seen in self._seen.items():
            self._seen[number] = min(now, seen + gap)

    def deadline(self) -> float:
        """Monotonic time at which :meth:`overdue` is to be called (inf: never)."""
        return self._heap[0][0] if self._heap else _NEVER

    def overdue(self, now: float, most: int) -> list[tuple[int, int]]:
        """Rows of a GroupFail: who did not answer, or gave no sign of life, in time."""
        found: list[tuple[int, int]] = []
        heap = self._heap
        while heap and heap[0][0] <= now and len(found) < most:
            entry = heapq.heappop(heap)
            if not self._counts(entry):
                continue
            _, number, assignment = entry
            again = now + _AGAIN_S
            if assignment == _HEALTH:
                member = self._state.groups.members[number]
                until = self._seen[number] + member.health_ns / limits.SECOND_NS
                if until > now:
                    heapq.heappush(heap, (until, number, _HEALTH))
                    continue
            found.append((number, assignment))
            heapq.heappush(heap, (again, number, assignment))
        return found


class Witnesses:
    """Second connections of sessions, kept by every replica for the time when it leads.

    When a client's process dies together with the leader, nobody who saw its connection close is
    left to say so, unless the next leader saw another one close.
    """

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        self.deserted: dict[int, float] = {}
        """Session -> when the client's side closed the last of its second connections."""

    def opened(self, session: int) -> None:
        """A session has another second connection here."""
        self._open[session] = self._open.get(session, 0) + 1
        self.deserted.pop(session, None)

    def closed(self, session: int, state: State, now: float, *, by_client: bool) -> bool:
        """One is gone; True: it was the last, and closed by the client's side."""
        left = self._open[session] - 1
        if left:
            self._open[session] = left
            return False
        del self._open[session]
        if not by_client or session not in state.sessions:
            return False
        if len(self.deserted) >= _SLACK:
            living = state.sessions
            self.deserted = {key: at for key, at in self.deserted.items() if key in living}
        self.deserted[session] = now
        return True

    def testify(self, liveness: Liveness) -> None:
        """Tell a new leadership which sessions were deserted."""
        for session, at in list(self.deserted.items()):
            state = liveness.state(session)
            if state is not None:
                liveness.closed_by_client(state, at)
            else:
                del self.deserted[session]
