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
_TOLD_S: Final = 0.001
"""Less needs no note when a turn ends: it is counted in the next one."""


class Turns:
    """Keeps the time.

    Arguments:
        clock: monotonic time.
        soon: calls something in the next turn of the loop.
    """

    __slots__ = ("_clock", "_queue", "_replies", "_soon", "_spent", "_turning")

    def __init__(self, clock: Clock, soon: Callable[[Callable[[], None]], None]) -> None:
        self._clock = clock
        self._soon = soon
        self._spent = 0.0
        self._turning = False
        self._queue: deque[Callable[[], None]] = deque()
        self._replies: deque[Callable[[], None]] = deque()

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
        self._replies.append(callback)
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
        if self._replies:
            self._reply()
        if self._queue or self._replies:
            self._turn()

    def _reply(self) -> None:
        until = self._clock.monotonic() + _REPLIES_S
        for _ in range(len(self._replies)):  # each has one frame
            self._replies.popleft()()
            if self._clock.monotonic() >= until:
                return
