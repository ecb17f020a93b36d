"""What happened of late, for people: who led when, which component took over. Bounded."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from raftckpt.events import Value
from raftckpt.model.groups import HaState, Member
from raftckpt.model.state import State

__all__ = ["Chronicle", "Happening"]

_KEPT: Final = 256
"""Happenings: a bad day has some dozens; with their texts at most a quarter of a megabyte."""
_TEXT_MAX: Final = 300  # of an entry, in characters
_ACTIVE: Final = int(HaState.ACTIVE)


class Happening(NamedTuple):
    """Something worth a line.

    Attributes:
        at_ms: when, in milliseconds since the epoch.
        kind: "leader", "failover", "link", "alarm", "members" or "drain".
        fields: by kind.
    """

    at_ms: int
    kind: str
    fields: dict[str, Value]


class Chronicle:
    """The latest happenings, oldest first.

    Attributes:
        failovers: how often a component of a service group became active, by reason; those of
            entries that a restart applied again count, too.
    """

    def __init__(self) -> None:
        self.happenings: deque[Happening] = deque(maxlen=_KEPT)
        self.failovers: Counter[str] = Counter()
        self._leads: tuple[int, str | None] = (0, None)

    def note(self, wall_ns: int, kind: str, /, **fields: Value) -> None:
        """Keep what happened at a time in nanoseconds since the epoch."""
        told = {k: v[:_TEXT_MAX] if isinstance(v, str) else v for k, v in fields.items()}
        self.happenings.append(Happening(wall_ns // 1_000_000, kind, told))

    def led(self, wall_ns: int, term: int, leader: str | None) -> None:
        """Another leader, or none, is known."""
        if (term, leader) != self._leads and (leader or self._leads[1]):
            self.note(wall_ns, "leader", term=term, leader=leader)
        self._leads = term, leader

    def assigned(self, state: State, members: Iterable[Member]) -> None:
        """An entry gave components their assignments; its own time is what counts."""
        for member in members:
            if member.state == _ACTIVE:
                self.failovers[member.reason] += 1
                self.note(
                    state.now_ns,
                    "failover",
                    group=member.group,
                    active=member.name,
                    node=member.node,
                    previous=member.previous,
                    reason=member.reason,
                    epoch=member.epoch,
                )
