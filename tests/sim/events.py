"""Virtual time: an event queue, per-node clocks and the digest of all that happened."""

from __future__ import annotations

import hashlib
import heapq
from collections import deque
from collections.abc import Callable
from typing import Any


class Trace:
    """Every event, folded into one digest; the last ones kept in words for a report."""

    def __init__(self, keep: int = 400, *, echo: bool = False) -> None:
        self._hash = hashlib.sha256()
        self.tail: deque[str] = deque(maxlen=keep)
        self.echo = echo
        self.count = 0

    def note(self, at: float, *words: object) -> None:
        line = f"{at:.6f} {' '.join(map(str, words))}"
        self._hash.update(line.encode())
        self._hash.update(b"\n")
        self.tail.append(line)
        self.count += 1
        if self.echo:
            print(line)

    def digest(self) -> str:
        return self._hash.hexdigest()


class Timer:
    """A scheduled call; :meth:`cancel` makes it do nothing."""

    __slots__ = ("args", "at", "call")

    def __init__(self, at: float, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        self.at = at
        self.call: Callable[..., None] | None = call
        self.args = args

    def cancel(self) -> None:
        self.call = None


class EventQueue:
    """Calls in the order of (time, order of scheduling); time only moves between calls."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = 0

    def at(self, when: float, call: Callable[..., None], *args: Any) -> Timer:
        timer = Timer(max(when, self.now), call, args)
        self._order += 1
        heapq.heappush(self._heap, (timer.at, self._order, timer))
        return timer

    def after(self, seconds: float, call: Callable[..., None], *args: Any) -> Timer:
        return self.at(self.now + seconds, call, *args)

    def run_until(self, end: float) -> None:
        while self._heap and self._heap[0][0] <= end:
            when, _, timer = heapq.heappop(self._heap)
            self.now = when
            if timer.call is not None:
                timer.call(*timer.args)
        self.now = end


class NodeClock:
    """A node's monotonic clock: its own origin, running fast or slow, never backwards."""

    def __init__(self, queue: EventQueue, offset: float, rate: float) -> None:
        self._queue = queue
        self._base = offset
        self._since = queue.now
        self.rate = rate

    def __call__(self) -> float:
        return self._base + (self._queue.now - self._since) * self.rate

    def set_rate(self, rate: float) -> None:
        self._base = self()
        self._since = self._queue.now
        self.rate = rate

    def true_time(self, reading: float) -> float:
        """The world's time at which this clock will show ``reading`` at the present rate."""
        return self._since + (reading - self._base) / self.rate
