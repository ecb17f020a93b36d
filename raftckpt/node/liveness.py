"""The leader's view of the sessions: who is attached, highest proposed sequence, who fell silent.

Only the leader's monotonic clock decides about silence, never wall time. A new leader gives every
session its full timeout. Nothing here is replicated: the verdict travels as a SessionExpire entry.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Protocol

from raftckpt import limits
from raftckpt.model.types import Result
from raftckpt.protocol import contract

__all__ = ["Liveness", "Requester", "SessionState"]

_NEVER = float("inf")
_ADOPTED_PER_CALL = 2000
"""Sessions a new leader starts to watch per step: a hundred thousand at once would stall it."""


class Requester(Protocol):
    """A client's connection as the replica sees it."""

    address: str
    """IP address it comes from ("" if unknown)."""
    session: SessionState | None
    """What is attached here."""
    principal: int
    """Number of whom it proved to be; 0: nobody."""
    private: bool
    """Nobody listens in and nobody from elsewhere speaks: loopback, or TLS."""
    gone: bool
    """Whether the connection is closed: a reply would reach nobody."""
    inflight_bytes: int
    """Bytes of commands accepted and not yet answered."""
    witness: int
    """Session of which this is a second connection, 0 for none."""

    def answer(self, request: int, result: Result) -> None:
        """Reply with the outcome of a command."""

    def answer_all(self, requests: list[int], results: list[Result]) -> None:
        """Reply with the outcomes of consecutive commands."""

    def deliver(self, request: int, result: Result) -> None:
        """Reply with the outcome of a query, which may be large."""

    def accepted(self, request: int) -> None:
        """Tell that the command is accepted; its final reply follows."""

    def refuse(
        self, request: int, code: int, reason: str, detail: Any = None, *, definite: bool = True
    ) -> None:
        """Reply that nothing was done (``definite``) or that it is unknown whether."""

    def notice(self, kind: str, value: Any) -> None:
        """Tell something that nobody asked for."""

    def attached(self) -> None:
        """The ATTACH of this connection was answered, whatever became of it."""

    def detached(self) -> None:
        """Another connection took the session over: this one is of no use any more."""


class SessionState:
    """A session at its leader.

    Attributes:
        id: session id.
        address: IP address it was last attached from, under this leader.
        waits_for: why a command with a later number cannot be taken: a gap, or what the one in
            the gap was refused for.
        proposed: highest sequence number handed to the log.
        seen: monotonic time of the last sign of life.
        eof_at: when its client closed the connection; inf: it did not.
        owner: the connection it is attached to.
        ending: whether its end is on its way to the log: how that ends is not known yet.
        timeout_s, grace_s: silence that ends it; silence after a close by the client's side.
        asynchronous: handle -> uid of the checkpoint if early acceptance is possible, else 0.
    """

    __slots__ = (
        "address",
        "asynchronous",
        "ending",
        "eof_at",
        "grace_s",
        "id",
        "owner",
        "proposed",
        "seen",
        "timeout_s",
        "waits_for",
        "watched_until",
    )

    def __init__(
        self, session: int, proposed: int, seen: float, timeout_s: float, grace_s: float
    ) -> None:
        self.id = session
        self.address = ""
        self.waits_for = "gap"
        self.proposed = proposed
        self.seen = seen
        self.eof_at = _NEVER
        self.ending = False
        self.owner: Requester | None = None
        self.timeout_s = timeout_s
        self.grace_s = grace_s
        self.asynchronous: dict[int, int] = {}
        self.watched_until = _NEVER

    def dies_at(self) -> float:
        """Monotonic time at which it is to be declared dead."""
        silent = self.seen + self.timeout_s
        return min(silent, self.eof_at + self.grace_s)


class Liveness:
    """Sessions in the order in which they may die. Cheap signs of life, lazy heap.

    A sign of life only sets ``state.seen``; the heap keeps one entry per session, which is pushed
    back when it comes up too early.
    """

    def __init__(self, now: float, sessions: Mapping[int, Any]) -> None:
        self.states: dict[int, SessionState] = {}
        self._since = now
        self._machine_sessions = sessions
        self._heap: list[tuple[float, int]] = []
        self._by_address: Counter[str] = Counter()
        self._adopting: Iterator[int] | None = iter(list(sessions))
        self._shortest_s = contract.SESSION_TIMEOUT_NS_MIN / limits.SECOND_NS

    def state(self, session: int) -> SessionState | None:
        """State of a session of the machine (created on first use), None if there is none."""
        state = self.states.get(session)
        if state is None:
            record = self._machine_sessions.get(session)
            if record is None:
                return None
            state = SessionState(
                session,
                record.last_sequence,
                self._since,
                record.timeout_ns / limits.SECOND_NS,
                record.grace_ns / limits.SECOND_NS,
            )
            self.states[session] = state
            self._watch(state)
        return state

    def opened(self, session: int, now: float) -> SessionState | None:
        """Begin to watch a session that was just created."""
        state = self.state(session)
        if state is not None:
            state.seen = max(state.seen, now)
        return state

    def ended(self, session: int) -> SessionState | None:
        """Forget a session that the machine ended."""
        state = self.states.pop(session, None)
        if state is not None:
            self._count(state.address, -1)
        return state

    def closed_by_client(self, state: SessionState, now: float) -> None:
        """Its client closed the connection: only the grace is left."""
        state.eof_at = now
        self._watch(state)

    def back(self, state: SessionState, now: float) -> None:
        """Its client asks to be attached: it lives, whenever that can be done.

        Should it close again before it is, the grace counts from here.
        """
        state.seen = now
        if state.eof_at != _NEVER:
            state.eof_at = now

    def crowded(self, address: str) -> bool:
        """Whether an IP address has as many sessions as one may have."""
        return self._by_address[address] >= limits.SESSIONS_PER_ADDRESS_MAX

    def not_ending(self, sessions: Iterable[int]) -> None:
        """Their end is no longer on its way, whatever became of it."""
        for session in sessions:
            state = self.states.get(session)
            if state is not None:
                state.ending = False

    def _count(self, address: str, more: int) -> None:
        if address:
            self._by_address[address] += more
            if not self._by_address[address]:
                del self._by_address[address]

    def resumed(self, state: SessionState, now: float, address: str) -> None:
        """It is attached (again)."""
        if address != state.address:
            self._count(state.address, -1)
            self._count(address, 1)
            state.address = address
        state.eof_at = _NEVER
        state.seen = now

    def stood_still(self, gap: float, now: float) -> None:
        """The replica itself was stopped for so long: give that time to everybody."""
        self._since = min(now, self._since + gap)
        for state in self.states.values():
            state.seen = min(now, state.seen + gap)
            if state.eof_at < now:
                state.eof_at = min(now, state.eof_at + gap)

    def _watch(self, state: SessionState) -> None:
        until = state.dies_at()
        state.watched_until = until
        heapq.heappush(self._heap, (until, state.id))

    def deadline(self) -> float:
        """Monotonic time at which :meth:`dead` is to be called (inf: never)."""
        if self._adopting is not None:
            return 0.0
        return self._heap[0][0] if self._heap else _NEVER

    def dead(self, now: float, most: int) -> list[int]:
        """Sessions whose time ran out, at most ``most``; they are watched on until they end."""
        if self._adopting is not None:
            self._adopt(self._adopting)
        found: list[int] = []
        heap = self._heap
        while heap and heap[0][0] <= now and len(found) < most:
            until, session = heapq.heappop(heap)
            state = self.states.get(session)
            if state is None or until != state.watched_until:
                continue  # it ended, or another entry took the place of this one
            dies_at = state.dies_at()
            if dies_at <= now:
                found.append(session)
                state.ending = True
                dies_at = now + self._shortest_s  # should the proposal be lost: once more
            state.watched_until = dies_at
            heapq.heappush(heap, (dies_at, session))
        return found

    def _adopt(self, sessions: Iterable[int]) -> None:
        adopted = list(islice(sessions, _ADOPTED_PER_CALL))
        for session in adopted:
            self.state(session)
        if len(adopted) < _ADOPTED_PER_CALL:
            self._adopting = None
