"""Calls somebody waits for: what became of them, deadlines, and barriers behind earlier writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from raftckpt.client.calls import Call
from raftckpt.errors import CheckpointError

__all__ = ["Barriers", "WaitingCalls"]


class WaitingCalls:
    """Outcomes until they are handed out, and the earliest deadline.

    Attributes:
        completed: calls that got done, in order.
        deadline: no call's deadline is earlier.
    """

    __slots__ = ("completed", "deadline")

    def __init__(self) -> None:
        self.completed: list[Call] = []
        self.deadline = inf

    def begin(self, call: Call, deadline: float, now: float) -> None:
        """Wait for a call from now on."""
        call.deadline = deadline
        call.started = now
        if deadline < self.deadline:
            self.deadline = deadline

    def finish(self, call: Call, value: object) -> None:
        """The call succeeded."""
        call.value = value
        call.done = True
        self.completed.append(call)

    def fail(self, call: Call, error: CheckpointError) -> None:
        """The call failed, unless it is done already."""
        if not call.done:
            call.error = error
            call.done = True
            self.completed.append(call)

    def take(self) -> list[Call]:
        """Return the calls that got done since the last time."""
        completed = self.completed
        if completed:
            self.completed = []
        return completed

    def expire(
        self, calls: Iterable[Call], now: float, why: Callable[[Call], CheckpointError]
    ) -> None:
        """Fail the calls whose deadline has come; find the next deadline."""
        self.deadline = inf
        for call in calls:
            if call.deadline <= now:
                self.fail(call, why(call))
            elif call.deadline < self.deadline:
                self.deadline = call.deadline


class Barriers:
    """Calls that are done when every earlier accepted write is settled, and what they report.

    Attributes:
        refusals: first refusal of an accepted write, by handle, until a barrier reports it.
        written: highest revision of this client's changes since the last successful synchronize.
    """

    def __init__(self, waiting: WaitingCalls) -> None:
        self.refusals: dict[int, CheckpointError] = {}
        self.written = 0
        self.waiting: list[tuple[int, Call]] = []
        self._outcomes = waiting

    def add(self, sequence: int, call: Call) -> None:
        """Wait until everything up to ``sequence`` is settled."""
        self.waiting.append((sequence, call))

    def check(self, settled: float, revision: int) -> None:
        """Everything up to ``settled`` is; ``revision`` is the highest that is known."""
        written = self.written
        waiting: list[tuple[int, Call]] = []
        for sequence, call in self.waiting:
            if call.done:
                continue
            if sequence > settled:
                waiting.append((sequence, call))
                continue
            handle = call.handle
            if handle < 0:  # all of them: the service is about to close
                handle = next(iter(self.refusals), 0)
            refusal = self.refusals.pop(handle, None)
            if refusal is not None:
                self._outcomes.fail(call, refusal)
            elif call.written:  # if anything was
                self.written = 0
                self._outcomes.finish(call, written or revision)
            else:
                self._outcomes.finish(call, revision)
        self.waiting = waiting
