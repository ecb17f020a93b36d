"""Service groups in an image: one object each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from raftckpt.model.groups import AdminState, HaState, Member, ServiceGroup, Transition
from raftckpt.protocol import kinds as k
from raftckpt.protocol.contract import COMPONENTS_PER_GROUP_MAX, GROUPS_MAX
from raftckpt.protocol.kinds import fits, has_types

if TYPE_CHECKING:
    from raftckpt.model.state import State

__all__ = ["frozen", "load"]

_INT: Final = (int,)
_STR: Final = (str,)
_LIST: Final = (list,)
_GROUP: Final = (_STR, _INT, _STR, _INT, _STR, _STR, _INT, _STR, _LIST, _LIST)
_MEMBER: Final = (
    _INT, _STR, _INT, _STR, _INT, _INT, _INT, _INT, _INT, (bool,), _STR, _INT, _STR, _INT, _INT,
)  # fmt: skip
_HOLDING: Final = (HaState.ACTIVE, HaState.QUIESCED, HaState.QUIESCING)


def frozen(group: ServiceGroup) -> tuple[Any, ...]:
    """Return a group as it is now, in plain values."""
    return (
        group.name,
        int(group.admin),
        group.active,
        group.epoch,
        group.previous,
        group.cause,
        int(group.transition),
        group.successor,
        [member.row() for member in group.members.values()],
        [member.row() for member in group.removed.values()],
    )


def _need(condition: object, what: str) -> None:
    if not condition:
        raise ValueError(f"damaged image: {what}")


def load(state: State, fields: Any) -> None:
    """Add a group to the state, whose sessions are loaded already.

    Raises:
        ValueError: it contradicts itself or the rest of the state.
    """
    _need(has_types(fields, *_GROUP), "a group was expected")
    name, admin, active, epoch, previous, cause, transition, successor, members, removed = fields
    groups = state.groups
    _need(name not in groups.by_name and len(groups.by_name) < GROUPS_MAX, "number of groups")
    _need(fits(k.GroupName, name), "name of a group")
    _need(0 <= epoch <= groups.last, "epoch of a group")
    group = ServiceGroup(name, AdminState(admin))
    group.epoch = epoch
    group.previous, group.cause, group.successor = previous, cause, successor
    group.transition = Transition(transition)
    _need(len(members) <= COMPONENTS_PER_GROUP_MAX, "components of a group")
    before = 0
    for row in members:
        member = _load_member(state, name, row)
        _need(member.state != HaState.REMOVED, "a component in service")
        _need(before < member.number and member.name not in group.members, "order of components")
        _need((member.name == active) == (member.state in _HOLDING), "an active component")
        before = member.number
        group.members[member.name] = member
    for row in removed:
        member = _load_member(state, name, row)
        _need(member.state == HaState.REMOVED, "a failed component")
        group.removed[member.number] = member
        state.sessions[member.session].fence()
    _need(not active or active in group.members, "an active component")
    group.active = active
    groups.by_name[name] = group


def _load_member(state: State, group: str, row: Any) -> Member:
    _need(has_types(row, *_MEMBER), "a component was expected")
    member = Member.from_row(group, row)
    session = state.sessions.get(member.session)
    groups = state.groups
    _need(session is not None and session.node == member.node, "session of a component")
    _need(fits(k.ComponentName, member.name) and fits(k.Rank, member.rank), "a component")
    _need(
        fits(k.Response, member.response_ns) and fits(k.Silence, member.health_ns),
        "times of a component",
    )
    _need(0 < member.number < member.assignment <= groups.last, "numbers of a component")
    _need(member.number not in groups.members, "a component twice")
    HaState(member.state)
    Transition(member.transition)
    _need(0 <= member.epoch <= groups.last, "epoch of a component")
    _need(0 <= member.revision <= state.revision, "revision of a component")
    groups.members[member.number] = member
    if session is not None:
        session.members.add(member.number)
    return member
