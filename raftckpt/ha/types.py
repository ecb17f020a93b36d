"""What components and operators are told. Frozen records."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from raftckpt.model.groups import AdminState, HaState, Transition

__all__ = ["LATER", "Assignment", "GroupStatus", "GroupSummary", "MemberStatus"]


class _Later(Enum):
    LATER = "later"


LATER: Final = _Later.LATER
"""Returned by a callback: the answer comes by ``respond()`` when the work is done."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a component is to be from now on.

    Attributes:
        group, component: to whom it is given.
        number: grows from assignment to assignment; only the newest can be answered.
        state: ACTIVE, STANDBY, QUIESCED, QUIESCING, UNASSIGNED (the group is locked) or REMOVED.
        reason: why, a word: ``first``, ``join``, ``session_ended``, ``no_answer``, ``health``,
            ``component_failed``, ``left``, ``swap``, ``lock``, ``unlock``, ``lock_instantiation``,
            ``shutdown``, ``session_lost``; ``isolated``: no replica is heard from, stop before
            another one is active; ``reconnected``: none was, go on.
        transition: of ACTIVE: how the previous active ended.
        previous_active: of ACTIVE: its name, "" if there was none.
        active: who is active now, "" for nobody.
        rank: of STANDBY: place in the order of promotion, from 1.
        epoch: fencing epoch of the group: grows with every assignment of ACTIVE.
        revision: no change that the previous active got committed has a larger one.
    """

    group: str
    component: str
    number: int
    state: HaState
    reason: str
    transition: Transition = Transition.NONE
    previous_active: str = ""
    active: str = ""
    rank: int = 0
    epoch: int = 0
    revision: int = 0

    @classmethod
    def from_wire(cls, role: dict[str, Any]) -> Assignment:
        """Make the record of a notice ``"role"``."""
        return cls(
            role["group"],
            role["component"],
            role["assignment"],
            HaState(role["state"]),
            role["reason"],
            Transition(role["transition"]),
            role["previous"],
            role["active"],
            role["rank"],
            role["epoch"],
            role["revision"],
        )


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """A component as operators see it."""

    component: str
    state: HaState
    answered: bool
    reason: str
    rank: int
    assignment: int
    node: str
    session: int
    session_name: str
    preference: int
    response_timeout: float
    health_check: float | None

    @classmethod
    def from_wire(cls, row: dict[str, Any]) -> MemberStatus:
        """Make the record of a row of GROUP_STATUS."""
        return cls(
            row["component"],
            HaState(row["state"]),
            row["answered"],
            row["reason"],
            row["rank"],
            row["assignment"],
            row["node"],
            row["session"],
            row["session_name"],
            row["preference"],
            row["response_ns"] / 1e9,
            row["health_ns"] / 1e9 if row["health_ns"] else None,
        )


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """A service group in a listing.

    Attributes:
        group: its name.
        admin: administrative state.
        active: who is active, or quiesces and is not relieved yet; "" for nobody.
        active_state: the HA state of that component.
        epoch: fencing epoch.
        components: how many belong to it.
        ready: how many of them stand by and said so.
        failed: how many were taken out of service and have not answered that they know.
    """

    group: str
    admin: AdminState
    active: str
    active_state: HaState | None
    epoch: int
    components: int
    ready: int
    failed: int

    @classmethod
    def from_wire(cls, row: dict[str, Any]) -> GroupSummary:
        """Make the record of a row of GROUPS."""
        return cls(**_summary(row))


@dataclass(frozen=True, slots=True)
class GroupStatus(GroupSummary):
    """A service group with its components: the active first, then in the order of promotion."""

    previous_active: str
    members: tuple[MemberStatus, ...]

    @classmethod
    def from_wire(cls, row: dict[str, Any]) -> GroupStatus:
        """Make the record of the value of GROUP_STATUS."""
        members = tuple(map(MemberStatus.from_wire, row["members"]))
        return cls(**_summary(row), previous_active=row["previous"], members=members)


def _summary(row: dict[str, Any]) -> dict[str, Any]:
    state = row["active_state"]
    return {
        "group": row["group"],
        "admin": AdminState(row["admin"]),
        "active": row["active"],
        "active_state": None if state is None else HaState(state),
        "epoch": row["epoch"],
        "components": row["components"],
        "ready": row["ready"],
        "failed": row["failed"],
    }
