"""Where could the operations without a revision have been? A search over configurations.

After Wing and Gong, Lowe: all possible states are carried along the known events ("just in time
linearization"). A configuration is a state, which of the floating operations it has used, and the
revision it has come to. Between two known events every floating operation that may lie there is
tried; an event that a configuration contradicts ends it. Of two configurations with the same state
the one that has used more of the changes that may or may not have happened, or has explained fewer
of the observations, can do nothing the other cannot, and is dropped: so their number stays near the
number of different contents that are possible. (Changes that certainly happened are no spare ones:
there the two are compared only if they have made the same.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

from raftckpt.chaos.history import Operation
from raftckpt.chaos.order import FAR, Order

__all__ = ["Event", "Floating", "OutOfTime", "Refuted", "Step", "search"]

State = tuple[Any, ...]
Step = Callable[[State], State | None]
"""Executes an operation; None: it cannot have happened (or been seen) in this state."""

_PATIENCE = 256


class OutOfTime(Exception):
    """The budget is used up; nothing is known."""


class Event(NamedTuple):
    """An operation at its place."""

    revision: int
    change: bool
    step: Step
    operation: Operation


class Floating(NamedTuple):
    """An operation whose place is not known.

    Attributes:
        low: as a change: it lies behind this revision; seen: not before it.
        high: it lies before this revision.
        change: whether it takes a revision of its own.
        must: whether it certainly happened.
        step: executes it.
        operation: for reports.
        allowed: whether it may have happened at a revision (fencing).
        lives: tells of what undoes itself whether a state allows it: an expiration can happen
            while the section has it, and therefore only once.
        born: behind this revision no state becomes one that ``lives`` is true of.
        alike: of two that may have happened, have no end and do the same, the first to come is
            tried alone: whatever the latter could do the former can, and the latter is left.
    """

    low: int
    high: int
    change: bool
    must: bool
    step: Step
    operation: Operation
    allowed: Callable[[int], bool] | None = None
    born: int = FAR
    lives: Callable[[State], bool] | None = None
    alike: Hashable = None


class Refuted(NamedTuple):
    """Nothing explains this operation.

    Attributes:
        operation: which.
        states: the states that were possible before it.
    """

    operation: Operation
    states: list[State]


class _Configuration(NamedTuple):
    state: State
    made: frozenset[int]
    """Changes of those that must have happened."""
    used: frozenset[int]
    """Changes of those that may have happened."""
    explained: frozenset[int]
    """Observations."""
    position: int

    def covers(self, other: _Configuration) -> bool:
        """Whether it can do whatever another one with the same state and ``made`` can."""
        return (
            self.position <= other.position
            and self.used <= other.used
            and self.explained >= other.explained
        )

    def has(self, key: int) -> bool:
        return key in self.used or key in self.explained or key in self.made

    def made_by(self, key: int, must: bool, state: State, position: int) -> _Configuration:
        """Return what it becomes by a change."""
        more = frozenset((key,))
        _, made, used, explained, _ = self
        if must:
            return _Configuration(state, made | more, used, explained, position)
        return _Configuration(state, made, used | more, explained, position)

    def without(self, gone: frozenset[int]) -> _Configuration:
        """Return it without what no longer matters."""
        return self._replace(
            made=self.made - gone, used=self.used - gone, explained=self.explained - gone
        )


class _Table:
    """Configurations none of which is better than another."""

    def __init__(self) -> None:
        self._alike: dict[tuple[State, frozenset[int]], list[_Configuration]] = {}

    def add(self, new: _Configuration) -> bool:
        """Add a configuration unless there is one at least as good."""
        known = self._alike.setdefault((new.state, new.made), [])
        if any(old.covers(new) for old in known):
            return False
        known[:] = [old for old in known if not new.covers(old)]
        known.append(new)
        return True

    def all(self) -> list[_Configuration]:
        return [each for known in self._alike.values() for each in known]


def search(
    initial: State,
    events: Sequence[Event],
    floating: Iterable[Floating],
    order: Order,
    deadline: float,
    watch: Callable[[int, int, Iterable[State]], None] | None = None,
) -> Refuted | None:
    """Tell whether the events can be explained.

    Arguments:
        initial: the state before all.
        events: in order.
        floating: what happened, or may have, at places unknown.
        order: which revisions are taken.
        deadline: by time.monotonic().
        watch: is told, for each span of revisions, the states that are possible in it.

    Returns:
        None: yes. Else what cannot be explained.

    Raises:
        OutOfTime: at the deadline.
    """
    waiting = sorted(floating, key=lambda each: each.low, reverse=True)
    active: dict[int, Floating] = {}
    number = 0
    nothing: frozenset[int] = frozenset()
    table = [_Configuration(initial, nothing, nothing, nothing, 0)]
    before = 0
    if not events and not waiting:
        return None
    last = events[-1].operation if events else waiting[0].operation
    for event in (*events, Event(FAR, True, lambda state: state, last)):
        limit = event.revision + (not event.change)
        while waiting and waiting[-1].low < limit:
            number += 1
            active[number] = waiting.pop()
        if active:
            grown = _grow(table, active, order, limit, deadline)
            table = _retired(grown, active, event.revision)
            if not table:
                return Refuted(_overdue(grown, active, event), _states(grown))
            for key in [key for key, each in active.items() if each.high <= event.revision]:
                del active[key]
        if watch is not None:
            watch(before, event.revision, _states(table))
        after = _Table()
        for each in table:
            state = event.step(each.state)
            if state is not None:
                after.add(each._replace(state=state, position=event.revision))
        survivors = after.all()
        if not survivors:
            return Refuted(event.operation, _states(table))
        table = survivors
        _buried(table, active, event.revision)
        before = event.revision
    return None


def _overdue(table: list[_Configuration], active: dict[int, Floating], event: Event) -> Operation:
    """Return what the best configuration has no place for."""
    missing = [
        [
            item.operation
            for key, item in active.items()
            if item.must and item.high <= event.revision and not each.has(key)
        ]
        for each in table
    ]
    fewest = min(missing, key=len, default=[])
    return fewest[0] if fewest else event.operation


def _states(table: Iterable[_Configuration]) -> list[State]:
    return list(dict.fromkeys(each.state for each in table))


def _grow(
    table: list[_Configuration],
    active: dict[int, Floating],
    order: Order,
    limit: int,
    deadline: float,
) -> list[_Configuration]:
    """Try everything that may lie before ``limit``."""
    grown = _Table()
    patience = _PATIENCE
    # Free revisions are rare: most of the time no change can lie between two events.
    room = any(order.free_after(each.position) < limit for each in table)
    items = {key: item for key, item in active.items() if room and item.change}
    seen = [(key, item) for key, item in active.items() if not item.change]

    def settled(each: _Configuration) -> _Configuration:
        """Explain what can be explained on the spot: that never does any harm."""
        here = [
            key
            for key, item in seen
            if item.low <= each.position < item.high
            and key not in each.explained
            and item.step(each.state) is not None
        ]
        return each._replace(explained=each.explained.union(here)) if here else each

    def waited(each: _Configuration) -> _Configuration | None:
        """Stay in this state until one more observation can have been made in it."""
        lows = {
            item.low
            for key, item in seen
            if each.position < item.low < limit and key not in each.explained
        }
        for low in sorted(lows):
            later = settled(each._replace(position=low))
            if later.explained != each.explained:
                return later
        return None

    table = [settled(each) for each in table]
    fresh = [each for each in table if grown.add(each)]
    while fresh:
        each = fresh.pop()
        later = waited(each)
        if later is not None and grown.add(later):
            fresh.append(later)
        tried: set[Hashable] = set()
        for key, item in items.items():
            if each.has(key) or item.alike in tried:
                continue
            if item.alike is not None:
                tried.add(item.alike)
            patience -= 1
            if not patience:
                patience = _PATIENCE
                if time.monotonic() > deadline:
                    raise OutOfTime
            position = order.free_after(max(each.position, item.low))
            if position >= min(limit, item.high):
                continue
            if item.allowed is not None and not item.allowed(position):
                continue
            state = item.step(each.state)
            if state is None:
                continue
            if item.lives is None:
                new = each.made_by(key, item.must, state, position)
            else:  # not noted: it would tell states apart for ever
                new = each._replace(state=state, position=position)
            new = settled(new)
            if grown.add(new):
                fresh.append(new)
    return grown.all()


def _buried(table: list[_Configuration], active: dict[int, Floating], revision: int) -> None:
    """Forget what cannot happen again."""
    for key in [
        key
        for key, item in active.items()
        if item.lives is not None
        and item.born <= revision
        and not any(item.lives(each.state) for each in table)
    ]:
        del active[key]


def _retired(
    table: list[_Configuration], active: dict[int, Floating], revision: int
) -> list[_Configuration]:
    """Drop who has not explained what is over; forget what is explained."""
    over = [key for key, item in active.items() if item.high <= revision]
    due = frozenset(key for key in over if active[key].must)
    if not over:
        return table
    kept = _Table()
    gone = frozenset(over)
    for each in table:
        if due <= each.made | each.explained:
            kept.add(each.without(gone))
    return kept.all()
