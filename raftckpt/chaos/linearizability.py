"""The judge: is there one order of all operations that explains what every client saw?

The unit is one generation of a checkpoint with all its sections; names are one more unit. First the
order of the revisions is checked (:mod:`.order`), then contents along it: a state machine of a few
lines executes the changes and compares what reads saw. Operations without a revision (outcome
unknown, refusals, expiry) get a search, per group of sections they connect (:mod:`.search`).

A local read promises a state at a revision that its replica had reached, and is checked for that. A
group that is not decided within the budget counts as undecided, never as fine.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from typing import Any, Final, NamedTuple, TypeAlias

from raftckpt.chaos.history import (
    ABSENT,
    Content,
    ContentDigest,
    Kind,
    Operation,
    Outcome,
    SectionPart,
)
from raftckpt.chaos.history import show as show_content
from raftckpt.chaos.order import CLOCK_SLACK_NS, FAR, Order, Violation, check_order, describe
from raftckpt.chaos.search import Event, Floating, OutOfTime, Refuted, Step, search

__all__ = ["Judgement", "Violation", "judge"]

Value: TypeAlias = tuple[Any, int | None, int | None] | None
"""A section in the model: content, number of the operation that set its expiration, and revision of
its last change (None: it was not told, or nobody asked for the revisions of these sections)."""
Made: TypeAlias = tuple[Any, int | None] | None
"""What a change makes of a section: content and expiration."""

# enough to see a pattern by: one is a failure, and to tell all takes longer than to find them
_SUSPECTS: Final = 3
_VIOLATIONS_MAX: Final = 20


class _Unknown:
    """The uid that an open without an answer made."""


class Judgement(NamedTuple):
    """What the judge found.

    Attributes:
        violations: contradictions, the first twenty.
        undecided: groups of sections for which the time did not suffice.
        operations: operations judged.
        placed: operations without a revision that had to be searched a place for.
        seconds: time it took.
    """

    violations: list[Violation]
    undecided: list[str]
    operations: int
    placed: int
    seconds: float

    @property
    def linearizable(self) -> bool:
        """Whether everything is explained. What is undecided is not."""
        return not self.violations and not self.undecided


def judge(operations: Sequence[Operation], *, budget_s: float = 60.0) -> Judgement:
    """Judge a history.

    Arguments:
        operations: of all clients, in any order. The cluster was new when it began.
        budget_s: seconds for the search.
    """
    begin = time.monotonic()
    operations = _without_idle_sets(operations)
    order = Order(operations)
    violations = list(islice(check_order(operations, order), _VIOLATIONS_MAX))
    undecided: list[str] = []
    placed = 0
    units: dict[int, list[Operation]] = defaultdict(list)
    for op in operations:
        units[op.unit].append(op)
    for number, members in units.items():
        unit = _Unit(number, members, order, begin + budget_s)
        violations += unit.check()
        undecided += unit.undecided
        placed += unit.placed
    return Judgement(
        violations[:_VIOLATIONS_MAX],
        undecided,
        len(operations),
        placed,
        time.monotonic() - begin,
    )


def _without_idle_sets(operations: Sequence[Operation]) -> list[Operation]:
    """Turn a set of the active replica that changed nothing into the observation it is.

    It is answered with the revision of the checkpoint's last change, which is somebody else's.
    """
    taken: dict[tuple[int, int | None], Operation] = {}
    for op in operations:
        if op.changes:
            known = taken.get((op.unit, op.revision))
            first = known is None or (op.kind is not Kind.FENCE, -op.invoked) > (
                known.kind is not Kind.FENCE,
                -known.invoked,
            )
            if first:
                taken[op.unit, op.revision] = op
    return [
        replace(op, outcome=Outcome.REFUSED, reason=_OWNED, revision=None)
        if op.kind is Kind.FENCE
        and op.changes
        and op.revision is not None
        and taken[op.unit, op.revision] is not op
        else op
        for op in operations
    ]


_OWNED: Final = "owned already"


# --- one unit --------------------------------------------------------------------------------


class _Unit:
    """One generation of a checkpoint, or the names."""

    def __init__(
        self, number: int, operations: list[Operation], order: Order, deadline: float
    ) -> None:
        self.number = number
        self.undecided: list[str] = []
        self.placed = 0
        self._operations = operations
        self._order = order
        self._deadline = deadline
        self._fixed = sorted(
            (op for op in operations if op.outcome is Outcome.OK and op.revision is not None),
            key=_position,
        )
        self._fence: _Fence | None = None
        self._whole = [op for op in self._fixed if op.kind is Kind.READ_ALL]
        self._views = {
            op.number: {part.section: part.data for part in op.parts} for op in self._whole
        }
        self._at = _by_section(
            op for op in self._fixed if op.kind not in (Kind.FENCE, Kind.READ_ALL)
        )
        self._floats = [op for op in operations if _floats(op) and op.kind is not Kind.FENCE]
        self._floats_at = _by_section(self._floats)
        self._lives_at = _by_section(
            op for op in operations if op.ttl_ns is not None and op.outcome is not Outcome.REFUSED
        )
        self._versioned = {
            part.section for op in operations for part in op.parts if part.revision is not None
        }

    def check(self) -> list[Violation]:
        """Find what contradicts the contents."""
        found: list[Violation] = []
        if any(op.kind is Kind.FENCE for op in self._operations):
            self._fence = _Fence(self._fixed, self._operations, self._order)
            found += self._search("fence", *self._fence.problem(), (), self._fence.watch)
        for sections in _groups(self._fixed, self._floats):
            found += self._check_group(sections)
            if len(found) >= _VIOLATIONS_MAX:  # telling them takes longer than finding them
                break
        return found

    def _check_group(self, sections: list[str]) -> list[Violation]:
        # without need revisions would only tell apart states that are alike
        order = None if self._versioned.isdisjoint(sections) else self._order
        group = _Group({section: at for at, section in enumerate(sections)}, order)
        fixed = sorted((*_of(self._at, sections), *self._whole), key=_position)
        events = [Event(op.revision or 0, op.changes, self._step(op, group), op) for op in fixed]
        items = [item for op in _of(self._floats_at, sections) for item in self._items(op, group)]
        items += [
            item for op in _of(self._lives_at, sections) for item in self._expiry(op, group.places)
        ]
        self.placed += len(items)
        name = sections[0] if len(sections) == 1 else f"{sections[0]} and {len(sections) - 1} more"
        return self._search(name, (None,) * len(sections), events, items, sections, None)

    def _step(self, op: Operation, group: _Group) -> Step:
        if op.kind is not Kind.READ_ALL:
            return _step(op, group)
        seen = self._views[op.number]
        expected = [(at, seen.get(section, ABSENT)) for section, at in group.places.items()]
        return lambda state: state if _matches(state, expected) else None

    def _items(self, op: Operation, group: _Group) -> Iterable[Floating]:
        order = self._order
        low = max(order.floor(op.invoked), _least(op))
        if op.outcome is Outcome.REFUSED:
            step = _refusal(op, group)
            if step is not None:
                yield Floating(low, order.ceiling(op.returned), False, True, step, op)
            return
        must = op.outcome is Outcome.OK
        high = order.ceiling(op.returned) if must else FAR
        fence = self._fence
        allowed = None if fence is None else (lambda position: fence.allows(position, op.session))
        alike = None
        if not must and op.kind in (Kind.DELETE, Kind.EXPIRATION) and op.ttl_ns is None:
            about = tuple((part.section, part.revision) for part in op.parts)
            alike = (op.kind, about, None if fence is None else op.session)
        step = _step(op, group)
        yield Floating(low, high, not op.kind.reads, must, step, op, allowed, alike=alike)

    def _expiry(self, op: Operation, index: dict[str, int]) -> Iterable[Floating]:
        low = self._order.floor(op.invoked + (op.ttl_ns or 0) - CLOCK_SLACK_NS)
        if op.revision is not None:
            low = max(low, op.revision)
        born = FAR if op.revision is None else op.revision
        at, number = index[op.parts[0].section], op.number

        def lives(state: tuple[Any, ...]) -> bool:
            return state[at] is not None and state[at][1] == number

        yield Floating(low, FAR, True, False, _expire(at, lives), op, born=born, lives=lives)

    def _search(
        self,
        name: str,
        initial: tuple[Any, ...],
        events: list[Event],
        items: list[Floating],
        sections: Sequence[str],
        watch: Callable[[int, int, Iterable[Any]], None] | None,
    ) -> list[Violation]:
        try:
            refuted = search(initial, events, items, self._order, self._deadline, watch)
        except OutOfTime:
            self.undecided.append(f"checkpoint {self.number}: {name}")
            return []
        return [] if refuted is None else [self._explain(refuted, sections)]

    # --- telling -------------------------------------------------------------------------------

    def _explain(self, refuted: Refuted, sections: Sequence[str]) -> Violation:
        op = refuted.operation
        lines = [f"nothing explains: {describe(op)}"]
        for state in refuted.states[:_SUSPECTS]:
            shown = []
            for section, value in zip(sections, state, strict=False):
                if section in _about(op) or op.kind is Kind.READ_ALL:
                    shown += _differs(op, section, value)
            if shown:
                lines.append("there could be: " + ", ".join(shown[:_SUSPECTS]))
        if not sections:
            lines += [f"owner could be: {state[0][0]}" for state in refuted.states[:_SUSPECTS]]
        lines += self._suspects(op, sections)
        return Violation(self._kind(op), self.number, tuple(lines))

    def _kind(self, op: Operation) -> str:
        if op.outcome is Outcome.REFUSED:
            return "unfounded refusal"
        if not op.kind.reads:
            return "impossible change" if op.revision is not None else "lost change"
        writers = [self._writers(part.section, part.data) for part in op.parts]
        if any(found and all(w.outcome is Outcome.REFUSED for w in found) for found in writers):
            return "read of a refused write"
        return "wrong content"

    def _suspects(self, op: Operation, sections: Sequence[str]) -> list[str]:
        lines = []
        for part in op.parts if op.kind.reads else ():
            if part.section not in sections:
                continue
            for writer in self._writers(part.section, part.data)[:1]:
                lines.append(f"what it saw was written by: {describe(writer)}")
            last = [
                other
                for other in self._at.get(part.section, ())
                if other.changes and (other.revision or 0) <= (op.revision or 0)
            ]
            if last:
                lines.append(f"last change before: {describe(last[-1])}")
            if len(lines) >= _SUSPECTS:
                break
        return lines

    def _writers(self, section: str, content: Content) -> list[Operation]:
        if content is ABSENT:
            return []
        return [
            op
            for op in self._operations
            if not op.kind.reads
            for part in op.parts
            if part.section == section
            and isinstance(part.data, bytes)
            and part.data
            and (_same(part.data, content) or (isinstance(content, bytes) and part.data in content))
        ]


def _differs(op: Operation, section: str, value: Value) -> list[str]:
    part = next(
        (part for part in op.parts if part.section == section), SectionPart(section, 0, ABSENT)
    )
    alike = _same(None if value is None else value[0], part.data)
    if op.kind.reads and alike and (part.revision is None or value is None):
        return []
    if value is None:
        return [f"{section} = absent"]
    revision = "" if value[2] is None else f" of revision {value[2]}"
    return [f"{section} = {_show(value[0])}{revision}"]


def _show(content: Any) -> str:
    return "a uid" if isinstance(content, _Unknown) else show_content(content)


# --- which sections belong together ----------------------------------------------------------


def _floats(op: Operation) -> bool:
    """Whether an operation has no place in the order and yet says something."""
    if op.outcome is Outcome.UNKNOWN:
        return op.possible and (op.kind is not Kind.OPEN or bool(op.value))
    if op.outcome is Outcome.REFUSED:
        return op.reason in _REFUSALS
    return op.revision is None


def _least(op: Operation) -> int:
    """Return a revision that had been taken for certain when an operation happened."""
    if op.outcome is Outcome.REFUSED:
        return (op.value or 0) if op.reason == _CONFLICT else 0
    return max((part.revision or 0 for part in op.parts), default=0)


def _about(op: Operation) -> list[str]:
    """Sections an operation is about; of a refusal the one that was refused."""
    if op.outcome is Outcome.REFUSED and op.index is not None:
        return [op.parts[op.index].section] if op.index < len(op.parts) else []
    return [part.section for part in op.parts]


def _position(op: Operation) -> tuple[int, bool]:
    return op.revision or 0, not op.changes


def _by_section(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    found: dict[str, list[Operation]] = defaultdict(list)
    for op in operations:
        for section in dict.fromkeys(_about(op)):
            found[section].append(op)
    return found


def _of(table: dict[str, list[Operation]], sections: list[str]) -> list[Operation]:
    """Return the operations on these sections, each once, in the order of their numbers."""
    if len(sections) == 1:
        return table.get(sections[0], [])
    found = {op.number: op for section in sections for op in table.get(section, ())}
    return list(found.values())


def _groups(fixed: list[Operation], floats: list[Operation]) -> list[list[str]]:
    """Split the sections into groups that no floating operation connects."""
    parent: dict[str, str] = {}

    def root(section: str) -> str:
        while parent[section] != section:
            parent[section] = parent[parent[section]]
            section = parent[section]
        return section

    for op in (*fixed, *floats):
        if op.kind is Kind.FENCE:
            continue
        for part in op.parts:
            parent.setdefault(part.section, part.section)
    for op in floats:
        if op.kind is not Kind.FENCE:
            about = _about(op)
            for section in about[1:]:
                parent[root(section)] = root(about[0])
    groups: dict[str, list[str]] = defaultdict(list)
    for section in parent:
        groups[root(section)].append(section)
    return list(groups.values())


# --- the model ---------------------------------------------------------------------------------


class _Group(NamedTuple):
    """Sections that belong together.

    Attributes:
        places: section -> its place in a state.
        order: tells which revisions are free; None: revisions of sections do not matter.
    """

    places: dict[str, int]
    order: Order | None

    def parts(self, op: Operation) -> list[tuple[int, SectionPart]]:
        """The parts of an operation that are about these sections, with their places."""
        return [
            (self.places[part.section], part) for part in op.parts if part.section in self.places
        ]

    def has(self, value: Value, revision: int) -> bool:
        """Whether a section may have a revision; 0: whether it is not there.

        One that was not told may be any that no known change has taken.
        """
        if value is None or not revision:
            return value is None and not revision
        known = value[2]
        if known is None:
            return self.order is None or self.order.is_free(revision)
        return known == revision

    def holds(self, state: tuple[Any, ...], parts: list[tuple[int, SectionPart]]) -> bool:
        """Whether the sections have the revisions that parts name."""
        return all(
            part.revision is None or self.has(state[at], part.revision) for at, part in parts
        )


def _step(op: Operation, group: _Group) -> Step:
    """Return what executes an operation on the sections of a group."""
    parts = group.parts(op)
    if op.kind is Kind.READ:
        expected = [(at, part.data) for at, part in parts]
        return lambda state: (
            state if _matches(state, expected) and group.holds(state, parts) else None
        )
    if op.kind is Kind.OPEN and not op.value:
        return lambda state: _opened(state, parts)
    results = op.results or (None,) * len(op.parts)
    if len(results) != len(op.parts):
        return lambda state: None
    told = zip(op.parts, results, strict=True)
    work = [
        (group.places[part.section], part, result)
        for part, result in told
        if part.section in group.places
    ]
    revision = None if group.order is None else op.revision

    def step(state: tuple[Any, ...]) -> tuple[Any, ...] | None:
        # conditions are about the state before, whatever the parts in front of them do
        if not group.holds(state, parts):
            return None
        values = list(state)
        for at, part, result in work:
            old = values[at]
            if result is not None and result != _end(old):
                return None
            made = _made(old, part, op)
            if made is _REFUSED:
                return None
            values[at] = None if made is None else (*made, revision)
        return tuple(values)

    return step


_REFUSED: Final = ("refused", None)


def _made(old: Value, part: SectionPart, op: Operation) -> Made:
    """Return what a part makes of a section."""
    return _CHANGES[part.kind or op.kind](old, part, op)


def _end(old: Value) -> int:
    """Where an append goes."""
    return 0 if old is None else len(old[0])


def _put(old: Value, part: Any, op: Operation) -> Made:
    return (part.data, None if old is None else old[1])


def _overwrite(old: Value, part: Any, op: Operation) -> Made:
    return _REFUSED if old is None else (part.data, old[1])


def _write(old: Value, part: Any, op: Operation) -> Made:
    if old is None:
        return _REFUSED
    content, offset, data = old[0], part.offset, part.data
    if len(content) < offset:
        content += bytes(offset - len(content))
    return (content[:offset] + data + content[offset + len(data) :], old[1])


def _append(old: Value, part: Any, op: Operation) -> Made:
    return (part.data, None) if old is None else (old[0] + part.data, old[1])


def _create(old: Value, part: Any, op: Operation) -> Made:
    if old is not None:
        return _REFUSED
    return (part.data, None if op.ttl_ns is None else op.number)


def _delete(old: Value, part: Any, op: Operation) -> Made:
    return _REFUSED if old is None else None


def _set_expiration(old: Value, part: Any, op: Operation) -> Made:
    if old is None:
        return _REFUSED
    return (old[0], None if op.ttl_ns is None else op.number)


def _open(old: Value, part: Any, op: Operation) -> Made:
    if old is not None:
        return _REFUSED
    return (part.data if op.outcome is Outcome.OK else _Unknown(), None)


_CHANGES: Final[dict[Kind, Callable[[Value, Any, Operation], Made]]] = {
    Kind.PUT: _put,
    Kind.OVERWRITE: _overwrite,
    Kind.WRITE: _write,
    Kind.APPEND: _append,
    Kind.CREATE: _create,
    Kind.DELETE: _delete,
    Kind.EXPIRATION: _set_expiration,
    Kind.OPEN: _open,
    Kind.UNLINK: _delete,
}
"""Whatever one change does; a transaction does several of them."""


def _opened(state: tuple[Any, ...], parts: list[Any]) -> tuple[Any, ...] | None:
    """Compare the uid an open found; learn the one nobody was told."""
    at, part = parts[0]
    value = state[at]
    if value is None:
        return None
    if isinstance(value[0], _Unknown):
        return (*state[:at], (part.data, None, None), *state[at + 1 :])
    return state if value[0] == part.data else None


def _expire(at: int, lives: Callable[[tuple[Any, ...]], bool]) -> Step:
    def step(state: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return (*state[:at], None, *state[at + 1 :]) if lives(state) else None

    return step


_CONFLICT: Final = "conflict"
_REFUSALS: Final = {
    "section_missing": False,
    "checkpoint_missing": False,
    "section_exists": True,
    _CONFLICT: None,
}
"""Refusals that tell something about a section: whether it is there, or what revision it has."""


def _refusal(op: Operation, group: _Group) -> Step | None:
    """Return what tells whether an operation was refused rightly; None: it tells nothing."""
    at = 0 if op.index is None and len(op.parts) == 1 else op.index
    if at is None or at >= len(op.parts) or op.reason not in _REFUSALS:
        return None
    refused = op.parts[at]
    place = group.places[refused.section]
    before = group.parts(replace(op, parts=op.parts[:at]))
    if op.reason == _CONFLICT:

        def conflicts(state: tuple[Any, ...]) -> tuple[Any, ...] | None:
            # it is told of the first condition that does not hold, and of what is there instead
            found = op.value is not None and op.value != refused.revision
            right = found and group.holds(state, before) and group.has(state[place], op.value or 0)
            return state if right else None

        return conflicts
    present = _REFUSALS[op.reason]
    parts = group.parts(op)

    def refuses(state: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not group.holds(state, parts):
            return None
        values = list(state)
        if op.kind is Kind.TRANSACTION:  # each part finds what those before it made
            for each, part in before:
                made = _made(values[each], part, op)
                if made is _REFUSED:
                    return None
                values[each] = None if made is None else (*made, None)
        return state if (values[place] is not None) == present else None

    return refuses


def _matches(state: tuple[Any, ...], expected: list[tuple[int, Content]]) -> bool:
    for at, seen in expected:
        value = state[at]
        if not _same(None if value is None else value[0], seen):
            return False
    return True


def _same(content: bytes | None, seen: Content) -> bool:
    if content is None or seen is ABSENT:
        return content is None and seen is ABSENT
    if isinstance(seen, ContentDigest):
        return len(content) == seen.size and _digest(content) == seen
    return content == seen


@lru_cache(maxsize=64)
def _digest(content: bytes) -> ContentDigest:
    return ContentDigest.of(content)


# --- fencing -----------------------------------------------------------------------------------


class _Fence:
    """Who may change a checkpoint after ``active_replica_set(exclusive=True)``.

    Its state is (owner, epoch). Every change that succeeded saw that its session was not fenced,
    every refusal that it was; what has no revision may only lie where its session was not.
    """

    def __init__(self, fixed: list[Operation], operations: list[Operation], order: Order) -> None:
        self._fixed = fixed
        self._operations = operations
        self._order = order
        self._from: list[int] = []
        self._owners: list[frozenset[str]] = []

    def problem(self) -> tuple[tuple[Any, ...], list[Event], list[Floating]]:
        """Return initial state, events and floating operations."""
        events = [
            Event(op.revision or 0, op.changes, _fence_step(op), op)
            for op in self._fixed
            if op.changes and op.kind not in (Kind.OPEN, Kind.UNLINK)
        ]
        order = self._order
        items = []
        for op in self._operations:
            low = order.floor(op.invoked)
            if op.outcome is Outcome.REFUSED and op.reason == "fenced":
                high = order.ceiling(op.returned)
                items.append(Floating(low, high, False, True, _fenced(op.session), op))
            elif op.outcome is Outcome.REFUSED and op.reason == _OWNED:
                high = order.ceiling(op.returned)
                items.append(Floating(low, high, False, True, _owning(op), op))
            elif op.possible and op.kind is Kind.FENCE:
                items.append(Floating(low, FAR, True, False, _fence_step(op), op))
        return ((None, 0),), events, items

    def watch(self, before: int, until: int, states: Iterable[Any]) -> None:
        """Note who could own it between two revisions."""
        owners = frozenset(state[0][0] or "" for state in states)
        if not self._owners or self._owners[-1] != owners:
            self._from.append(before)
            self._owners.append(owners)

    def allows(self, position: int, session: str) -> bool:
        """Whether ``session`` may have changed something at a revision."""
        at = bisect_right(self._from, position) - 1
        owners = self._owners[max(at, 0)] if self._owners else frozenset([""])
        return "" in owners or session in owners


def _fence_step(op: Operation) -> Step:
    session = op.session
    if op.kind is not Kind.FENCE:
        return lambda state: state if state[0][0] in (None, session) else None

    def step(state: tuple[Any, ...]) -> tuple[Any, ...] | None:
        owner, epoch = state[0]
        new = epoch if owner == session else epoch + 1
        if op.outcome is Outcome.OK and op.value is not None and op.value != new:
            return None
        return ((session, new),)

    return step


def _fenced(session: str) -> Step:
    return lambda state: state if state[0][0] not in (None, session) else None


def _owning(op: Operation) -> Step:
    return lambda state: state if state[0] == (op.session, op.value) else None
