"""Judge the history of the counter: was anything lost, doubled or skipped? Pure.

The counter is honest if each number follows the one before it: within a component always, and
after a takeover the value read must be the last acknowledged number or the single one that was in
flight when the former active died (its write may have landed although nobody was told).
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

__all__ = ["Acknowledged", "Begun", "Event", "Found", "Killed", "RunJudgement", "judge"]


class Found(NamedTuple):
    """A component became active (or the final check looked) and read this value; None: nothing."""

    at_ns: int
    component: str
    value: int | None


class Begun(NamedTuple):
    """A component is about to write this number."""

    at_ns: int
    component: str
    number: int


class Acknowledged(NamedTuple):
    """Write and synchronize of this number returned."""

    at_ns: int
    component: str
    number: int


class Killed(NamedTuple):
    """Something was killed -9."""

    at_ns: int
    kind: str
    what: str


Event: TypeAlias = Found | Begun | Acknowledged | Killed


class Failover(NamedTuple):
    """What a kill cost.

    ``gap_ns`` runs from the kill to the acknowledgement of the first number *begun* after it, so an
    answer that was already on its way when the process died does not flatter the figure.
    """

    kind: str
    what: str
    gap_ns: int | None
    last_before: int | None
    first_after: int | None
    component: str


class RunJudgement(NamedTuple):
    """The verdict.

    Attributes:
        problems: what is wrong, in words; empty means "ok".
        written: how many numbers were acknowledged.
        failovers: one per kill, in order.
    """

    problems: list[str]
    written: int
    failovers: list[Failover]

    @property
    def verdict(self) -> str:
        """The word "ok" or "lost"."""
        return "lost" if self.problems else "ok"


def judge(history: list[Event]) -> RunJudgement:
    """Judge a history; it must end with the :class:`Found` of a final read.

    Arguments:
        history: what was observed, in causal order: everything of a component that died stands
            before the first event of its successor.
    """
    judge_ = _Judge()
    for event in history:
        judge_.look(event)
    if not history or not isinstance(history[-1], Found):
        judge_.problems.append("the history has no final read: nothing is proven")
    if judge_.written == 0:
        judge_.problems.append("no number was ever acknowledged: nothing is proven")
    failovers = [_failover(history, event) for event in history if isinstance(event, Killed)]
    for each in failovers:
        if each.gap_ns is None:
            judge_.problems.append(
                f"no number was acknowledged after the kill of {each.what} ({each.kind})"
            )
    return RunJudgement(judge_.problems, judge_.written, failovers)


class _Judge:
    """Walks the history once; ``acknowledged`` and ``in_flight`` are all that a reader may find."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.written = 0
        self.acknowledged: int | None = None
        self.in_flight: int | None = None
        self.component = ""
        self.next: int | None = None

    def look(self, event: Event) -> None:
        match event:
            case Found():
                self._found(event)
            case Begun():
                self._begun(event)
            case Acknowledged():
                self._acknowledged(event)
            case Killed():
                pass

    def _found(self, event: Found) -> None:
        legal = {self.acknowledged}
        if self.in_flight is not None:
            legal.add(self.in_flight)
        if event.value not in legal:
            last, value = self.acknowledged, event.value
            lost = last is not None and (value is None or value < last)
            kind = "lost" if lost else "invented"
            self.problems.append(
                f"{kind}: {event.component} read {value}, the last acknowledged number is {last}"
                + (f", {self.in_flight} was in flight" if self.in_flight is not None else "")
            )
        self.component = event.component
        self.acknowledged = event.value
        self.in_flight = None
        self.next = 0 if event.value is None else event.value + 1

    def _begun(self, event: Begun) -> None:
        if event.component != self.component:
            self.problems.append(f"{event.component} wrote {event.number} without being active")
        elif self.in_flight is not None:
            self.problems.append(f"{event.number} was begun while {self.in_flight} was in flight")
        elif self.next is not None and event.number != self.next:
            kind = "duplicate" if event.number < self.next else "hole"
            self.problems.append(
                f"{kind}: {event.component} wrote {event.number} where {self.next} was due"
            )
        self.in_flight = event.number
        self.next = event.number + 1

    def _acknowledged(self, event: Acknowledged) -> None:
        if event.component != self.component or event.number != self.in_flight:
            self.problems.append(
                f"{event.component} was acknowledged {event.number}, in flight was {self.in_flight}"
            )
        self.acknowledged = event.number
        self.in_flight = None
        self.written += 1


def _failover(history: list[Event], kill: Killed) -> Failover:
    last_before: int | None = None
    for event in history:
        if isinstance(event, Acknowledged) and event.at_ns <= kill.at_ns:
            last_before = event.number
    begun: set[tuple[str, int]] = set()
    for event in history:
        if event.at_ns <= kill.at_ns:
            continue
        if isinstance(event, Begun):
            begun.add((event.component, event.number))
        elif isinstance(event, Acknowledged) and (event.component, event.number) in begun:
            return Failover(
                kill.kind, kill.what, event.at_ns - kill.at_ns, last_before, event.number,
                event.component,
            )  # fmt: skip
        elif isinstance(event, Killed):
            break
    return Failover(kill.kind, kill.what, None, last_before, None, "")
