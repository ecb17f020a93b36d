"""The order the revisions give: is it one order, does it respect real time, is it accounted for?

Every change takes the next revision of the whole cluster and every linearizable read tells the
revision of the state it saw. Operations that returned a revision are thereby ordered; one pass
decides whether that order is possible. What returned none gets the window of revisions in which it
must lie (:class:`Order`); ``search`` finds out where.

Invariants checked here: a revision is taken once; what returned before another began is not behind
it; a session's accepted writes are in front of what it asks next; a replica's local reads never go
back; and every revision was asked for by somebody (a write that was applied twice takes one too
many, whatever it wrote).
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from typing import Final, NamedTuple

from raftckpt.chaos.history import DIRECTORY, Kind, Operation, Outcome, SectionPart, show

__all__ = ["CLOCK_SLACK_NS", "FAR", "Order", "Violation", "check_order", "describe"]

FAR: Final = 1 << 62
"""A revision or time that never comes."""

CLOCK_SLACK_NS: Final = 500_000_000
"""So much earlier than a section's life says by our clock may it expire by cluster time."""

_PARTS_SHOWN: Final = 3
"""So that a finding is a line."""
_WITHOUT_DATA: Final = (Kind.DELETE, Kind.EXPIRATION, Kind.UNLINK, Kind.FENCE)


class Violation(NamedTuple):
    """A contradiction, told in a few lines."""

    kind: str
    unit: int
    lines: tuple[str, ...]

    def __str__(self) -> str:
        where = "names" if self.unit == DIRECTORY else f"checkpoint {self.unit}"
        return "\n    ".join((f"{self.kind} ({where})", *self.lines))


def describe(operation: Operation) -> str:
    """Tell an operation in one line."""
    parts = [_part(operation, part) for part in operation.parts[:_PARTS_SHOWN]]
    if len(operation.parts) > _PARTS_SHOWN:
        parts.append(f"... {len(operation.parts)} sections")
    what = f"{operation.kind.value} {', '.join(parts)}".rstrip()
    end = "?" if operation.returned is None else f"{operation.returned / 1e9:.6f}"
    told = {
        Outcome.OK: f"revision {operation.revision}",
        Outcome.REFUSED: f"refused ({_refusal(operation)})",
        Outcome.UNKNOWN: "outcome unknown",
    }[operation.outcome]
    local = f" locally at {operation.replica}" if operation.replica else ""
    return f"{operation.session}: {what}{local}: {told} [{operation.invoked / 1e9:.6f}..{end} s]"


def _refusal(operation: Operation) -> str:
    found = "" if operation.value is None else f": it has {operation.value}"
    at = "" if operation.index is None else f", part {operation.index}"
    return f"{operation.reason}{found}{at}"


def _part(operation: Operation, part: SectionPart) -> str:
    kind = part.kind or operation.kind
    text = part.section if part.kind is None else f"{part.kind.value} {part.section}"
    if kind not in _WITHOUT_DATA and not (kind.reads and operation.outcome is not Outcome.OK):
        at = f"[{part.offset}:]" if part.offset else ""
        text += f"{at} = {show(part.data)}"
    if part.revision is not None:
        text += f" of revision {part.revision}" if kind.reads else f" if it has {part.revision}"
    return text


class Order:
    """Operations in the order of their revisions, and where others fit between them.

    Attributes:
        fixed: every operation that returned a revision, in order: a change, then what read it.
        taken: revisions taken by changes that are known, ascending.
        free: revisions that somebody else must have taken, ascending.
    """

    def __init__(self, operations: Iterable[Operation]) -> None:
        self.fixed = sorted(
            (op for op in operations if op.outcome is Outcome.OK and op.revision is not None),
            key=_position,
        )
        self.taken = [revision(op) for op in self.fixed if op.changes]
        known = set(self.taken)
        self.free = [at for at in range(1, self.last) if at not in known]
        ended = sorted((op.returned, revision(op)) for op in self.fixed if op.returned is not None)
        self._ends = [time for time, _ in ended]
        self._floors = list(accumulate((found for _, found in ended), max))
        begun = sorted(
            ((op.invoked, revision(op) + (not op.changes)) for op in self.fixed if not op.replica),
            reverse=True,
        )
        self._begins = [-time for time, _ in begun]
        self._ceilings = list(accumulate((found for _, found in begun), min))

    @property
    def last(self) -> int:
        """Highest revision taken by a change that is known."""
        return self.taken[-1] if self.taken else 0

    def floor(self, time: int) -> int:
        """Return the highest revision that had been told to somebody before ``time``."""
        at = bisect_left(self._ends, time)
        return self._floors[at - 1] if at else 0

    def ceiling(self, time: int | None) -> int:
        """Return the revision below which lies everything that was over at ``time``."""
        at = 0 if time is None else bisect_left(self._begins, -time)
        return self._ceilings[at - 1] if at else FAR

    def is_free(self, revision: int) -> bool:
        """Whether no known change has taken a revision."""
        at = bisect_left(self.taken, revision)
        return revision > 0 and (at == len(self.taken) or self.taken[at] != revision)

    def free_after(self, position: int) -> int:
        """Return the first revision behind ``position`` that no known change has taken."""
        at = bisect_right(self.free, position)
        return self.free[at] if at < len(self.free) else max(position + 1, self.last + 1)


def revision(operation: Operation) -> int:
    """Return the revision of an operation that has one."""
    return operation.revision or 0


def _position(operation: Operation) -> tuple[int, bool]:
    return revision(operation), not operation.changes


def check_order(operations: Sequence[Operation], order: Order) -> Iterator[Violation]:
    """Find what contradicts the order of the revisions, whatever the contents."""
    yield from _taken_twice(order.fixed)
    yield from _inversions(order.fixed, "real time", lambda op: op.returned)
    sessions = defaultdict(list)
    for op in order.fixed:
        sessions[op.session].append(op)
    for own in sessions.values():
        if any(op.accepted is not None for op in own):
            yield from _inversions(own, "order of a session", _told)
    yield from _going_back(order.fixed)
    yield from _unaccounted(operations, order)


def _taken_twice(fixed: Iterable[Operation]) -> Iterator[Violation]:
    for _, group in groupby((op for op in fixed if op.changes), key=revision):
        first, *others = group
        for other in others:
            lines = (describe(first), describe(other))
            yield Violation("two changes with one revision", other.unit, lines)


def _told(operation: Operation) -> int | None:
    return operation.returned if operation.accepted is None else operation.accepted


def _inversions(
    ordered: Sequence[Operation], what: str, told: Callable[[Operation], int | None]
) -> Iterator[Violation]:
    """Find operations that were over before one began which the revisions put before them."""
    latest: Operation | None = None
    for (_, read), group in groupby(ordered, key=_position):
        members = list(group)
        for op in members:
            end = told(op)
            if latest is not None and end is not None and end < latest.invoked:
                kind = _inverted(latest, op)
                lines = (
                    f"in front by revision: {describe(latest)}",
                    f"but before it began this was over: {describe(op)}",
                )
                yield Violation(f"{kind}: against {what}", op.unit, lines)
                break  # one of a kind is enough to look at
        for op in members:
            later = latest is None or op.invoked > latest.invoked
            if later and not op.replica and (not read or op.returned is not None):
                latest = op


def _inverted(front: Operation, back: Operation) -> str:
    if front.kind.reads:
        return "stale read"
    return "read from the future" if back.kind.reads else "changes in the wrong order"


def _going_back(fixed: Iterable[Operation]) -> Iterator[Violation]:
    replicas = defaultdict(list)
    for op in fixed:
        if op.replica:
            replicas[op.replica].append(op)
    for reads in replicas.values():
        reads.sort(key=lambda op: op.invoked)
        ended: list[tuple[int, int, Operation]] = []
        best: Operation | None = None
        for op in reads:
            while ended and ended[0][0] < op.invoked:
                over = heapq.heappop(ended)[2]
                if best is None or revision(over) > revision(best):
                    best = over
            if best is not None and revision(op) < revision(best):
                lines = (describe(best), f"and later: {describe(op)}")
                yield Violation("a replica went back", op.unit, lines)
                break
            if op.returned is not None:
                heapq.heappush(ended, (op.returned, op.number, op))


# --- accounting ------------------------------------------------------------------------------


def _unaccounted(operations: Sequence[Operation], order: Order) -> Iterator[Violation]:
    """Match the revisions nobody was told with what may have taken them."""
    if not order.fixed:
        return
    holders = sorted(_holders(operations, order))
    ready: list[int] = []
    at = 0
    missing: list[int] = []
    for position in order.free:
        while at < len(holders) and holders[at][0] < position:
            heapq.heappush(ready, holders[at][1])
            at += 1
        while ready and ready[0] <= position:
            heapq.heappop(ready)
        if ready:
            heapq.heappop(ready)
        else:
            missing.append(position)
    if missing:
        first = missing[0]
        index = bisect_right(order.taken, first)
        around = [op for op in order.fixed if op.changes]
        lines = [f"{len(missing)} revisions were taken by changes that nobody asked for: "]
        lines[0] += ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        lines += [f"before {first}: {describe(op)}" for op in around[max(0, index - 1) : index]]
        lines += [f"after {first}:  {describe(op)}" for op in around[index : index + 1]]
        yield Violation("something was applied twice", DIRECTORY, tuple(lines))


def _holders(operations: Iterable[Operation], order: Order) -> Iterator[tuple[int, int]]:
    """Yield the window of everything that may take a revision without anybody being told."""
    for op in operations:
        if op.outcome is Outcome.REFUSED:
            continue
        if op.possible and (op.kind is not Kind.OPEN or op.value):
            yield order.floor(op.invoked), FAR
        elif op.changes and op.revision is None:
            yield order.floor(op.invoked), order.ceiling(op.returned)
        if op.ttl_ns is not None and not op.kind.reads:  # the section expires
            yield order.floor(op.invoked + op.ttl_ns - CLOCK_SLACK_NS), FAR
        if op.kind is Kind.UNLINK or op.kind is Kind.FENCE:
            # the checkpoint is dropped when its last opener leaves; the owner's session ends
            yield op.revision or order.floor(op.invoked), FAR
