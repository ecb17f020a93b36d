"""Service groups: who is active, who stands by, who was told what and answered it.

What happens to them is decided in ``assignments``.

Invariants:

* a group has at most one *holder*: a component that was given ACTIVE and has neither answered that
  it is quiesced nor been taken out of service;
* an unlocked group with a component has a holder;
* assignments are numbered by one counter of the whole state, so the numbers of a group only grow,
  also over its deletion: the number of the last ACTIVE is the group's fencing epoch;
* a component taken out of service without having been asked (it failed) leaves its session fenced
  until it answers that it knows.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import Any, Final

__all__ = [
    "LEASES",
    "AdminState",
    "Groups",
    "HaState",
    "Member",
    "Operation",
    "ServiceGroup",
    "Transition",
    "name_in_spaces",
]


LEASES: Final = "lease:"
"""Prefix of groups that are locks: the lock's own name, behind it, is what spaces decide on."""


def name_in_spaces(group: str) -> str:
    """What spaces decide on for a group: its name, or that of the lock that it is."""
    return group.removeprefix(LEASES)


class HaState(IntEnum):
    """SaAmfHAStateT, and the two states of a component without an assignment."""

    UNASSIGNED = 0
    """In the group, but the group is locked."""
    ACTIVE = 1
    STANDBY = 2
    QUIESCED = 3
    QUIESCING = 4
    REMOVED = 5
    """Taken out of the group."""


class AdminState(IntEnum):
    """SaAmfAdminStateT."""

    UNLOCKED = 1
    LOCKED = 2
    LOCKED_INSTANTIATION = 3
    SHUTTING_DOWN = 4


class Operation(IntEnum):
    """What an operator can do to a group."""

    UNLOCK = 1
    LOCK = 2
    LOCK_INSTANTIATION = 3
    SWAP = 4
    SHUTDOWN = 5
    DELETE = 6


class Transition(IntEnum):
    """SaAmfCSITransitionDescriptorT: how the previous active ended."""

    NONE = 0
    NEW_ASSIGN = 1
    QUIESCED = 2
    NOT_QUIESCED = 3
    STILL_ACTIVE = 4


_UNASSIGNED: Final = int(HaState.UNASSIGNED)
_STANDBY: Final = int(HaState.STANDBY)
_UNLOCKED: Final = int(AdminState.UNLOCKED)


_KEPT: Final = (
    "number",
    "name",
    "session",
    "node",
    "rank",
    "response_ns",
    "health_ns",
    "state",
    "assignment",
    "answered",
    "reason",
    "transition",
    "previous",
    "epoch",
    "revision",
)


class Member:
    """A component in a group.

    Attributes:
        number: its own, never used again.
        group, name, session, node: where and whose it is.
        rank: preferred order of promotion, smaller first; then the order of joining.
        response_ns: time it has for an answer.
        health_ns: longest time between two signs of life of its own; 0: none are expected.
        state: the HA state it was given last.
        assignment: number of that assignment; 0: none yet.
        answered: whether it said that it carried it out.
        reason, transition, previous: why it was given, how the previous active ended and its name.
        epoch: fencing epoch of the group at that time.
        revision: of the state at that time: no change of the previous active has a larger one.
    """

    __slots__ = (
        "answered",
        "assignment",
        "epoch",
        "group",
        "health_ns",
        "name",
        "node",
        "number",
        "previous",
        "rank",
        "reason",
        "response_ns",
        "revision",
        "session",
        "state",
        "transition",
    )

    def __init__(
        self,
        number: int,
        group: str,
        name: str,
        session: int,
        node: str,
        rank: int,
        response_ns: int,
        health_ns: int,
    ) -> None:
        self.number = number
        self.group = group
        self.name = name
        self.session = session
        self.node = node
        self.rank = rank
        self.response_ns = response_ns
        self.health_ns = health_ns
        self.state = _UNASSIGNED
        self.assignment = 0
        self.answered = False
        self.reason = ""
        self.transition = int(Transition.NONE)
        self.previous = ""
        self.epoch = 0
        self.revision = 0

    def row(self) -> tuple[Any, ...]:
        """Everything that is to be kept of it, for an image."""
        return tuple(getattr(self, field) for field in _KEPT)

    @classmethod
    def from_row(cls, group: str, row: list[Any]) -> Member:
        """Make a component of what :meth:`row` returned (of right types, unchecked)."""
        member = cls(row[0], group, *row[1:7])
        for field, value in zip(_KEPT[7:], row[7:], strict=True):
            setattr(member, field, value)
        return member

    @property
    def ready(self) -> bool:
        """Whether it stands by and said so."""
        return self.state == _STANDBY and self.answered


class ServiceGroup:
    """A service group.

    Attributes:
        name: its name.
        admin: administrative state.
        members: name -> component, in the order of joining.
        removed: number -> component that failed and has not answered that it knows.
        active: name of the holder, "" for none.
        epoch: number of the last assignment of ACTIVE.
        previous: name of the holder before.
        cause: why the group has no holder, for the one that gets ACTIVE next.
        transition: how the previous holder ended, for the same.
        successor: who is to get ACTIVE in a swap; "": the best.
    """

    __slots__ = (
        "active",
        "admin",
        "cause",
        "epoch",
        "members",
        "name",
        "previous",
        "removed",
        "successor",
        "transition",
    )

    def __init__(self, name: str, admin: int = _UNLOCKED) -> None:
        self.name = name
        self.admin = admin
        self.members: dict[str, Member] = {}
        self.removed: dict[int, Member] = {}
        self.active = ""
        self.epoch = 0
        self.previous = ""
        self.cause = "first"
        self.transition = int(Transition.NEW_ASSIGN)
        self.successor = ""

    @property
    def holder(self) -> Member | None:
        """The component that is active, or is quiescing or quiesced and not relieved yet."""
        return self.members.get(self.active)

    def waiting(self) -> list[Member]:
        """Everybody but the holder, the next to be promoted first."""
        others = [member for member in self.members.values() if member.name != self.active]
        return sorted(others, key=_order)

    def rank_of(self, member: Member) -> int:
        """Position of a standby in the order of promotion, from 1; 0 for others."""
        standbys = (other.name for other in self.waiting() if other.state == _STANDBY)
        for position, name in enumerate(standbys, 1):
            if name == member.name:
                return position
        return 0


def _order(member: Member) -> tuple[bool, int, int]:
    return not member.ready, member.rank, member.number


class Groups:
    """All service groups.

    Attributes:
        by_name: name -> group.
        members: number -> component, failed ones included.
        last: the last number given to a component or an assignment.
        told: components given an assignment by the present batch; not part of the image.
        unsettled: groups that lost components whose sessions ended, while more may end.
    """

    __slots__ = ("by_name", "last", "members", "told", "unsettled")

    def __init__(self) -> None:
        self.by_name: dict[str, ServiceGroup] = {}
        self.members: dict[int, Member] = {}
        self.last = 0
        self.told: dict[int, Member] = {}
        self.unsettled: dict[str, ServiceGroup] = {}

    def next(self) -> int:
        """Take the next number."""
        self.last += 1
        return self.last

    def of_session(self, numbers: Iterable[int]) -> list[Member]:
        """Components of a session, failed ones included, in the order of joining."""
        return [self.members[number] for number in sorted(numbers)]
