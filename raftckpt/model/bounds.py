"""Limits of the state that an operator may set: equal on all replicas, changed through the log.

They decide in ``apply``, so that a refusal is the same everywhere. What is not set has the value
of the contract. The memory has no default: it is set once, by the first leader that knows of all
voters how much they have, or by an operator; until then nothing is refused here.

Above ``high`` per cent of the memory the state is full: what would add data is refused until less
than ``low`` per cent are used. Between ``high`` and the whole is what was on its way, what leaders
accepted before it was in the log, and what sessions need to make room.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from raftckpt.errors import SaAisError
from raftckpt.model.types import Result, refuse
from raftckpt.protocol.contract import (
    CHECKPOINTS_MAX,
    GROUPS_MAX,
    MEMORY_HIGH_PERCENT,
    MEMORY_HIGH_PERCENT_MAX,
    MEMORY_LOW_PERCENT,
    SA_TIME_MAX,
    SESSIONS_MAX,
    STAGED_BYTES_MAX,
)

__all__ = ["BOUNDS", "Bound", "Bounds"]

NO_END: Final = SA_TIME_MAX


class Bound(NamedTuple):
    """What a limit may be.

    Attributes:
        default: while it is not set.
        least, most: between them it may be set; more than ``most`` was never tried.
        unit: "bytes", "percent" or "" for a number of things.
    """

    default: int
    least: int
    most: int
    unit: str


BOUNDS: Final[dict[str, Bound]] = {
    "memory": Bound(0, 0, NO_END, "bytes"),
    "high": Bound(MEMORY_HIGH_PERCENT, 2, MEMORY_HIGH_PERCENT_MAX, "percent"),
    "low": Bound(MEMORY_LOW_PERCENT, 1, MEMORY_HIGH_PERCENT_MAX, "percent"),
    "staged": Bound(STAGED_BYTES_MAX, 1, STAGED_BYTES_MAX, "bytes"),
    "sessions": Bound(SESSIONS_MAX, 1, SESSIONS_MAX, ""),
    "checkpoints": Bound(CHECKPOINTS_MAX, 1, CHECKPOINTS_MAX, ""),
    "groups": Bound(GROUPS_MAX, 1, GROUPS_MAX, ""),
}
"""By name, in the order in which they are told; memory 0: no end."""


class Bounds:
    """The limits in force, and whether the memory is used up.

    Attributes:
        given: what was set, by name.
        full: new data is refused.
        memory, high, low: bytes; ``NO_END`` without a limit.
        staged, sessions, checkpoints, groups: as they are in force.
    """

    __slots__ = (
        "checkpoints", "full", "given", "groups", "high", "low", "memory", "sessions", "staged",
    )  # fmt: skip

    def __init__(self) -> None:
        self.given: dict[str, int] = {}
        self.full = False
        self._derive()

    def value(self, name: str) -> int:
        """A limit as it is in force."""
        return self.given.get(name, BOUNDS[name].default)

    def change(self, values: Iterable[tuple[str, int]]) -> Result | None:
        """Set some limits; a refusal if they do not go together: then none is set."""
        wanted = self.given | dict(values)
        for name, value in wanted.items():
            bound = BOUNDS.get(name)
            if bound is None:
                return refuse(SaAisError.ERR_INVALID_PARAM, "param", f"there is no limit {name}")
            if not bound.least <= value <= bound.most:
                said = f"the limit {name} is {bound.least}..{bound.most}"
                return refuse(SaAisError.ERR_INVALID_PARAM, "param", said)
        if wanted.get("low", MEMORY_LOW_PERCENT) >= wanted.get("high", MEMORY_HIGH_PERCENT):
            return refuse(SaAisError.ERR_INVALID_PARAM, "param", "low is not below high")
        self.given = wanted
        self._derive()
        return None

    def judge(self, used: int) -> None:
        """Regard what is used after an entry."""
        if self.full:
            self.full = used > self.low
        elif used >= self.high:
            self.full = True

    def _derive(self) -> None:
        memory = self.value("memory") or NO_END
        self.memory = memory
        self.high = NO_END if memory == NO_END else memory * self.value("high") // 100
        self.low = NO_END if memory == NO_END else memory * self.value("low") // 100
        self.staged = self.value("staged")
        self.sessions = self.value("sessions")
        self.checkpoints = self.value("checkpoints")
        self.groups = self.value("groups")
