"""What happens to the components of service groups: joining, answers, ends, and who is active next.

Owns the decisions; what a client may ask for is checked in ``group_commands``. Everything is a
function of the commands: silence is judged by the leader, whose verdict arrives as a command. The
invariants are those of ``groups``.
"""

from __future__ import annotations

from typing import Any, Final

from raftckpt.model.groups import AdminState, HaState, Member, ServiceGroup, Transition
from raftckpt.model.sessions import Session
from raftckpt.model.state import State

__all__ = [
    "end_components",
    "fail",
    "join",
    "leave",
    "respond",
    "settle",
    "settle_ended",
    "swap",
]

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


# --- what happens to a component -----------------------------------------------------------------


def join(state: State, session: Session, group: ServiceGroup, fields: list[Any]) -> Member:
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


def end_components(state: State, session: Session) -> None:
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


def _remove(state: State, session: Session, group: ServiceGroup, member: Member) -> None:
    del group.members[member.name]
    session.members.discard(member.number)
    del state.groups.members[member.number]
    state.groups.told.pop(member.number, None)


def _forget(state: State, session: Session, group: ServiceGroup, member: Member) -> None:
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


def swap(state: State, group: ServiceGroup, holder: Member, successor: str) -> None:
    """Begin a hand-over: when the holder answers that it is quiesced, the successor is active."""
    group.successor = successor
    _give(state, group, holder, _QUIESCED, "swap")


def _vacate(group: ServiceGroup, cause: str, transition: Transition) -> None:
    """The group has no holder any more."""
    group.previous = group.active
    group.active = ""
    group.successor = ""
    group.cause = cause
    group.transition = int(transition)


def _give(state: State, group: ServiceGroup, member: Member, ha_state: int, reason: str) -> None:
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


def settle(state: State, group: ServiceGroup) -> None:
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


def _settle_unlocked(state: State, group: ServiceGroup) -> None:
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


def _relieve(state: State, group: ServiceGroup, holder: Member) -> None:
    """The holder is quiesced: the next one gets ACTIVE, or itself if there is nobody else."""
    heir = group.members.get(group.successor) or next(iter(group.waiting()), None)
    if heir is None:
        _give(state, group, holder, _ACTIVE, "swap")
        return
    _vacate(group, "swap", Transition.QUIESCED)
    _give(state, group, heir, _ACTIVE, "swap")
    _give(state, group, holder, _STANDBY, "swap")


def _settle_locked(state: State, group: ServiceGroup) -> None:
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
