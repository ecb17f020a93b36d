"""Service groups: who is active, who stands by, who was told what and answered it.

Owns the decisions; what a client may ask for is checked in ``group_commands``. Everything is a
function of the commands: silence is judged by the leader, whose verdict arrives as a command.

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
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from raftckpt.model.sessions import Session
    from raftckpt.model.state import State

__all__ = [
    "AdminState",
    "Group",
    "Groups",
    "HaState",
    "Member",
    "Operation",
    "Transition",
    "end_session",
    "fail",
    "join",
    "leave",
    "respond",
    "settle",
    "settle_ended",
    "swap",
]


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
_ACTIVE: Final = int(HaState.ACTIVE)
_STANDBY: Final = int(HaState.STANDBY)
_QUIESCED: Final = int(HaState.QUIESCED)
_QUIESCING: Final = int(HaState.QUIESCING)
_REMOVED: Final = int(HaState.REMOVED)
_UNLOCKED: Final = int(AdminState.UNLOCKED)
_LOCKED: Final = int(AdminState.LOCKED)
_SHUTTING_DOWN: Final = int(AdminState.SHUTTING_DOWN)
_WHY_LOCKED: Final = {
    int(AdminState.LOCKED): "lock",
    int(AdminState.LOCKED_INSTANTIATION): "lock_instantiation",
    int(AdminState.SHUTTING_DOWN): "shutdown",
}


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


class Group:
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
        self.by_name: dict[str, Group] = {}
        self.members: dict[int, Member] = {}
        self.last = 0
        self.told: dict[int, Member] = {}
        self.unsettled: dict[str, Group] = {}

    def next(self) -> int:
        """Take the next number."""
        self.last += 1
        return self.last

    def of_session(self, numbers: Iterable[int]) -> list[Member]:
        """Components of a session, failed ones included, in the order of joining."""
        return [self.members[number] for number in sorted(numbers)]


# --- what happens to a component -----------------------------------------------------------------


def join(state: State, session: Session, group: Group, fields: list[Any]) -> Member:
    """Take a component in: ``fields`` are its name, rank, response_ns, health_ns."""
    name, rank, response_ns, health_ns = fields
    number = state.groups.next()
    member = Member(
        number, group.name, name, session.id, session.node, rank, response_ns, health_ns
    )
    group.members[name] = member
    state.groups.members[number] = member
    session.members.add(number)
    settle(state, group)
    return member


def leave(state: State, session: Session, member: Member, reason: str) -> None:
    """Take a component out that wants it, or whose supervisor saw its end."""
    group = state.groups.by_name[member.group]
    _remove(state, session, group, member)
    if group.active == member.name:
        quiesced = reason == "left" or (member.state != _ACTIVE and member.answered)
        _vacate(group, reason, Transition.QUIESCED if quiesced else Transition.NOT_QUIESCED)
    settle(state, group)


def end_session(state: State, session: Session) -> None:
    """Take the components of a session out that is over; :func:`settle_ended` must follow.

    Only when all that end together are gone it is clear who is left to take over.
    """
    groups = state.groups
    for number in sorted(session.members):
        member = groups.members[number]
        group = groups.by_name[member.group]
        if number in group.removed:
            _forget(state, session, group, member)
            continue
        _remove(state, session, group, member)
        if group.active == member.name:
            quiesced = member.state != _ACTIVE and member.answered
            how = Transition.QUIESCED if quiesced else Transition.NOT_QUIESCED
            _vacate(group, "session_ended", how)
        groups.unsettled[group.name] = group


def settle_ended(state: State) -> None:
    """Settle the groups that ended sessions left behind."""
    unsettled, state.groups.unsettled = state.groups.unsettled, {}
    for group in unsettled.values():
        settle(state, group)


def _remove(state: State, session: Session, group: Group, member: Member) -> None:
    del group.members[member.name]
    session.members.discard(member.number)
    del state.groups.members[member.number]
    state.groups.told.pop(member.number, None)


def _forget(state: State, session: Session, group: Group, member: Member) -> None:
    """A component that failed knows it now, or is gone: nothing is left of it."""
    del group.removed[member.number]
    session.members.discard(member.number)
    del state.groups.members[member.number]
    state.groups.told.pop(member.number, None)
    session.unfence()


def fail(state: State, member: Member, reason: str) -> None:
    """Take a component out of service; its session is fenced until it answers that it knows."""
    group = state.groups.by_name[member.group]
    del group.members[member.name]
    group.removed[member.number] = member
    state.sessions[member.session].fence()
    if group.active == member.name:
        _vacate(group, reason, Transition.NOT_QUIESCED)
    _give(state, group, member, _REMOVED, reason)
    settle(state, group)


def respond(state: State, session: Session, member: Member, ok: bool) -> None:
    """Take the answer to the present assignment of a component."""
    if member.state == _REMOVED:
        _forget(state, session, state.groups.by_name[member.group], member)
    elif not ok:
        fail(state, member, "component_failed")
    else:
        member.answered = True
        settle(state, state.groups.by_name[member.group])


def swap(state: State, group: Group, holder: Member, successor: str) -> None:
    """Begin a hand-over: when the holder answers that it is quiesced, the successor is active."""
    group.successor = successor
    _give(state, group, holder, _QUIESCED, "swap")


def _vacate(group: Group, cause: str, transition: Transition) -> None:
    """The group has no holder any more."""
    group.previous = group.active
    group.active = ""
    group.successor = ""
    group.cause = cause
    group.transition = int(transition)


def _give(state: State, group: Group, member: Member, ha_state: int, reason: str) -> None:
    """Give a component an assignment; whatever it had before is void."""
    groups = state.groups
    member.state = ha_state
    member.assignment = groups.next()
    member.answered = False
    member.reason = reason
    member.transition = int(Transition.NONE)
    member.previous = ""
    if ha_state == _ACTIVE:
        still = group.active == member.name
        member.transition = int(Transition.STILL_ACTIVE) if still else group.transition
        member.previous = member.name if still else group.previous
        group.active = member.name
        group.epoch = member.assignment
        group.successor = ""
    member.epoch = group.epoch
    member.revision = state.revision
    groups.told[member.number] = member


# --- who gets what -------------------------------------------------------------------------------


def settle(state: State, group: Group) -> None:
    """Give the components of a group what its state now asks for."""
    if group.admin == _SHUTTING_DOWN:
        holder = group.holder
        if holder is None or (holder.state != _ACTIVE and holder.answered):
            group.admin = _LOCKED
        elif holder.state == _ACTIVE:
            _give(state, group, holder, _QUIESCING, "shutdown")
    if group.admin == _UNLOCKED:
        _settle_unlocked(state, group)
    elif group.admin != _SHUTTING_DOWN:
        _settle_locked(state, group)
    for member in group.members.values():
        if not member.assignment:
            _give(state, group, member, _UNASSIGNED, _WHY_LOCKED[group.admin])


def _settle_unlocked(state: State, group: Group) -> None:
    holder = group.holder
    if holder is None:
        heirs = group.waiting()
        if heirs:
            _give(state, group, heirs[0], _ACTIVE, group.cause)
    elif holder.state != _ACTIVE:
        if holder.reason != "swap":  # the lock or shutdown was called off
            _give(state, group, holder, _ACTIVE, "unlock")
        elif holder.answered:
            _relieve(state, group, holder)
    for member in group.members.values():
        if member.state == _UNASSIGNED:
            _give(state, group, member, _STANDBY, "unlock" if member.assignment else "join")


def _relieve(state: State, group: Group, holder: Member) -> None:
    """The holder is quiesced: the next one gets ACTIVE, or itself if there is nobody else."""
    heir = group.members.get(group.successor) or next(iter(group.waiting()), None)
    if heir is None:
        _give(state, group, holder, _ACTIVE, "swap")
        return
    _vacate(group, "swap", Transition.QUIESCED)
    _give(state, group, heir, _ACTIVE, "swap")
    _give(state, group, holder, _STANDBY, "swap")


def _settle_locked(state: State, group: Group) -> None:
    why = _WHY_LOCKED[group.admin]
    holder = group.holder
    if holder is not None:
        if holder.state in (_ACTIVE, _QUIESCING) and not (
            holder.state == _QUIESCING and holder.answered
        ):
            _give(state, group, holder, _QUIESCED, why)
            return
        if not holder.answered:
            return
        _vacate(group, why, Transition.QUIESCED)
    for member in group.members.values():
        if member.state != _UNASSIGNED or member.reason != why:
            _give(state, group, member, _UNASSIGNED, why)
