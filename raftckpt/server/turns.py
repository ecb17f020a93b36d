"""How long a replica answers clients in one turn of its event loop; the rest waits for the next.

Between turns come the steps of the log and what other connections sent, so no client, and no
number of clients, keeps heartbeats waiting. Who waits is served in the order of his coming; long
replies wait beside what was asked, not before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from raftckpt.node.clock import Clock

__all__ = ["SLICE_S", "Turns"]

SLICE_S: Final = 0.0005
"""For the requests of one connection."""
_TURN_S: Final = 0.004
"""For all connections."""
_REPLIES_S: Final = 0.002
"""For the long replies of all connections, whose rows are encoded as they leave; one frame at
least."""
_REST_TIMES: Final = 2
"""After long replies had their share of a turn they rest so many times as long as it took, while
somebody asks for little beside them: what he asks takes several turns, on several replicas, and
each of them keeps a processor. As in ``node.batches``."""
_BESIDE_S: Final = 0.1
"""For so long after he asked he is taken to be there: people and timers ask more seldom."""
_TOLD_S: Final = 0.001
"""Less needs no note when a turn ends: it is counted in the next one."""


class Turns:
    """Keeps the time.

    Arguments:
        clock: monotonic time.
        soon: calls something in the next turn of the loop.
        after: calls something after so many seconds.

    Attributes:
        replies: long ones that wait to go on.
        asked_at: when somebody asked who waits for no long reply, as long as others do.
    """

    __slots__ = (
        "_after",
        "_clock",
        "_queue",
        "_rests_until",
        "_soon",
        "_spent",
        "_turning",
        "asked_at",
        "replies",
    )

    def __init__(
        self,
        clock: Clock,
        soon: Callable[[Callable[[], None]], None],
        after: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self.replies: deque[Callable[[], None]] = deque()
        self.asked_at = float("-inf")
        self._clock = clock
        self._soon = soon
        self._after = after
        self._spent = 0.0
        self._turning = False
        self._rests_until = float("-inf")
        self._queue: deque[Callable[[], None]] = deque()

    def now(self) -> float:
        """Monotonic time, in seconds."""
        return self._clock.monotonic()

    @property
    def left(self) -> bool:
        """Whether more may be done in this turn; those who wait come first."""
        return self._spent < _TURN_S and not self._queue

    def spend(self, since: float) -> None:
        """Something was done since then."""
        self._spent += self._clock.monotonic() - since
        if self._spent > _TOLD_S:
            self._turn()

    def later(self, callback: Callable[[], None]) -> None:
        """Call something in a turn to come, when all who came before had theirs."""
        self._queue.append(callback)
        self._turn()

    def reply(self, callback: Callable[[], None]) -> None:
        """Have a frame of a long reply leave in a turn to come."""
        self.replies.append(callback)
        if self._rests_until <= self._clock.monotonic():
            self._turn()

    def _turn(self) -> None:
        if not self._turning:
            self._turning = True
            self._soon(self._next)

    def _next(self) -> None:
        self._turning = False
        self._spent = 0.0
        for _ in range(len(self._queue)):  # who comes meanwhile waits for the next turn
            self._queue.popleft()()
            if self._spent >= _TURN_S:
                break
        rests = bool(self.replies) and self._reply()
        if self._queue or (self.replies and not rests):
            self._turn()

    def _reply(self) -> bool:
        """Have long replies go on, unless they rest; whether they rest now."""
        now = began = self._clock.monotonic()
        if now < self._rests_until:
            return True
        for _ in range(len(self.replies)):  # each has one frame
            self.replies.popleft()()
            now = self._clock.monotonic()
            if now >= began + _REPLIES_S:
                break
        if now - self.asked_at > _BESIDE_S:
            return False
        rest = _REST_TIMES * (now - began)
        self._rests_until = now + rest
        self._after(rest, self._rested)
        return True

    def _rested(self) -> None:
        self._rests_until = float("-inf")  # whatever the clock of the loop thinks of it
        if self.replies:
            self._turn()
