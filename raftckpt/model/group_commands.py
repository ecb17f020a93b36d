"""Commands and queries about service groups.

Each command is ``(state, session, command) -> Result``, a query ``(state, session, query) ->
Result``. Fields are within their bounds; what follows from an accepted command is decided in
``assignments``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from raftckpt.errors import SaAisError
from raftckpt.model import assignments
from raftckpt.model.access import READING, VISIBLE, not_granted
from raftckpt.model.checkpoints import DEPOSED
from raftckpt.model.groups import (
    AdminState,
    HaState,
    Member,
    Operation,
    ServiceGroup,
    name_in_spaces,
)
from raftckpt.model.sessions import NO_SESSION, Session
from raftckpt.model.state import State
from raftckpt.model.types import Result, refuse, success
from raftckpt.protocol import operations as ops
from raftckpt.protocol.contract import (
    COMPONENTS_PER_GROUP_MAX,
    COMPONENTS_PER_SESSION_MAX,
)

__all__ = [
    "QUERIES",
    "group_admin",
    "group_fail",
    "group_join",
    "group_leave",
    "group_respond",
    "role_of",
]

_ACTIVE: Final = int(HaState.ACTIVE)
_LOCKING: Final = {
    int(Operation.UNLOCK): int(AdminState.UNLOCKED),
    int(Operation.LOCK): int(AdminState.LOCKED),
    int(Operation.LOCK_INSTANTIATION): int(AdminState.LOCKED_INSTANTIATION),
    int(Operation.SHUTDOWN): int(AdminState.SHUTTING_DOWN),
}


# --- commands ------------------------------------------------------------------------------------


def group_join(state: State, session: Session, c: ops.GroupJoin) -> Result:
    """A component joins; the group is created if there is none."""
    name, component = c.group, c.component
    if session.fences:
        return DEPOSED
    group = state.groups.by_name.get(name)
    if group is not None and component in group.members:
        mine = group.members[component].session == session.id
        reason = "component_joined" if mine else "component_exists"
        return refuse(SaAisError.ERR_EXIST, reason, component)
    if group is not None and len(group.members) >= COMPONENTS_PER_GROUP_MAX:
        return refuse(SaAisError.ERR_NO_RESOURCES, "limit", "components of a group")
    if len(session.members) >= COMPONENTS_PER_SESSION_MAX:
        return refuse(SaAisError.ERR_NO_RESOURCES, "limit", "components of a session")
    if group is None:
        if len(state.groups.by_name) >= state.bounds.groups:
            return refuse(SaAisError.ERR_NO_RESOURCES, "limit", "groups")
        group = state.groups.by_name[name] = ServiceGroup(name)
    member = assignments.join(
        state, session, group, [component, c.rank, c.response_ns, c.health_ns]
    )
    return success([member.number, member.assignment])


def _find(state: State, session: Session, name: str, component: str) -> Member | Result:
    """The session's own component of this name, one in service before one that failed.

    It is looked for among its own: a group that may not be seen is not looked at.
    """
    failed = None
    for member in state.groups.of_session(session.members):
        if member.group == name and member.name == component:
            if member.state != HaState.REMOVED:
                return member
            failed = failed or member
    if failed is not None:
        return failed
    rights = state.access.rights(session.principal, name_in_spaces(name))
    if name not in state.groups.by_name or not rights & VISIBLE:
        return refuse(SaAisError.ERR_NOT_EXIST, "group_missing", name)
    return refuse(SaAisError.ERR_NOT_EXIST, "component_missing", component)


def group_leave(state: State, session: Session, c: ops.GroupLeave) -> Result:
    """A component leaves; one that failed must answer that it knows first."""
    member = _find(state, session, c.group, c.component)
    if isinstance(member, Result):
        return member
    if member.state == HaState.REMOVED:
        return DEPOSED
    assignments.leave(state, session, member, "component_failed" if c.failed else "left")
    return success()


def group_respond(state: State, session: Session, c: ops.GroupRespond) -> Result:
    """A component answers its present assignment, once."""
    assignment = c.assignment
    member = _find(state, session, c.group, c.component)
    if isinstance(member, Result):
        return member
    if assignment != member.assignment:
        return refuse(SaAisError.ERR_BAD_OPERATION, "assignment_old", member.assignment)
    if member.answered:
        return refuse(SaAisError.ERR_BAD_OPERATION, "assignment_answered", assignment)
    assignments.respond(state, session, member, c.ok)
    return success()


def group_admin(state: State, session: Session, c: ops.GroupAdmin) -> Result:
    """An operator's wish -> administrative state of the group, None if it was deleted."""
    name, operation = c.group, c.operation
    group = state.groups.by_name.get(name)
    if group is None:
        return refuse(SaAisError.ERR_NOT_EXIST, "group_missing", name)
    if operation == Operation.DELETE:
        if group.members or group.removed:
            return refuse(SaAisError.ERR_BAD_OPERATION, "group_in_use", len(group.members))
        del state.groups.by_name[name]
        return success()
    if operation == Operation.SWAP:
        return _swap(state, group, c.component)
    admin = _LOCKING[operation]
    if admin == AdminState.SHUTTING_DOWN and group.admin != AdminState.UNLOCKED:
        if group.admin == admin:
            return success(admin)
        return refuse(SaAisError.ERR_BAD_OPERATION, "group_locked", name)
    if admin == AdminState.UNLOCKED != group.admin and not group.active and group.epoch:
        group.cause = "unlock"
    group.admin = admin
    assignments.settle(state, group)
    return success(int(group.admin))


def _swap(state: State, group: ServiceGroup, target: str | None) -> Result:
    """Hand ACTIVE to a standby in an orderly way: the holder is asked to quiesce first."""
    holder = group.holder
    if group.admin != AdminState.UNLOCKED:
        return refuse(SaAisError.ERR_BAD_OPERATION, "group_locked", group.name)
    if holder is not None and holder.name == target and holder.state == _ACTIVE:
        return success(int(group.admin))
    if holder is None or holder.state != _ACTIVE or not holder.answered:
        return refuse(SaAisError.ERR_BAD_OPERATION, "handing_over", group.name)
    ready = [member.name for member in group.waiting() if member.ready]
    if not ready or (target is not None and target not in ready):
        return refuse(SaAisError.ERR_BAD_OPERATION, "no_standby", group.name)
    assignments.swap(state, group, holder, target or "")
    return success(int(group.admin))


def group_fail(state: State, c: ops.GroupFail) -> Result:
    """The leader found components silent -> how many were taken out of service.

    A row is [number, assignment]: it was not answered in time; or [number, 0]: it gives no sign of
    life. What happened meanwhile counts: an answer under way saves the component.
    """
    failed = 0
    for number, assignment in c.members:
        member = state.groups.members.get(number)
        if member is None or member.state == HaState.REMOVED:
            continue
        if assignment and (member.assignment != assignment or member.answered):
            continue
        assignments.fail(state, member, "no_answer" if assignment else "health")
        failed += 1
    return success(failed)


# --- what is told --------------------------------------------------------------------------------


def role_of(state: State, member: Member) -> dict[str, Any]:
    """What a component is told about its assignment (notice ``"role"``)."""
    group = state.groups.by_name[member.group]
    return {
        "group": member.group,
        "component": member.name,
        "member": member.number,
        "assignment": member.assignment,
        "state": int(member.state),
        "reason": member.reason,
        "transition": member.transition,
        "previous": member.previous,
        "active": group.active,
        "rank": group.rank_of(member),
        "epoch": member.epoch,
        "revision": member.revision,
        "answered": member.answered,
    }


def _roles(state: State, number: int | None, query: ops.RolesRequest, principal: int) -> Result:
    """Assignments of the components of the attached session."""
    session = state.sessions.get(number) if number is not None else None
    if session is None:
        return NO_SESSION
    members = state.groups.of_session(session.members)
    return success([state.revision, [role_of(state, member) for member in members]])


def _groups(state: State, number: int | None, query: ops.GroupsRequest, principal: int) -> Result:
    rights = state.access.rights_of(principal)
    rows = [
        _summary(group)
        for group in state.groups.by_name.values()
        if rights(name_in_spaces(group.name)) & READING
    ]
    return success([state.revision, rows])


def _summary(group: ServiceGroup) -> dict[str, Any]:
    holder = group.holder
    return {
        "group": group.name,
        "admin": int(group.admin),
        "active": group.active,
        "active_state": None if holder is None else int(holder.state),
        "epoch": group.epoch,
        "components": len(group.members),
        "ready": sum(member.ready for member in group.members.values()),
        "failed": len(group.removed),
    }


def _status(
    state: State, number: int | None, query: ops.GroupStatusRequest, principal: int
) -> Result:
    group = state.groups.by_name.get(query.group)
    name = name_in_spaces(query.group)
    rights = state.access.rights(principal, name)
    if group is None or not rights & VISIBLE:
        return refuse(SaAisError.ERR_NOT_EXIST, "group_missing", query.group)
    if not rights & READING:
        return not_granted(READING)
    everything = state.access.operates(principal, name)
    members = ([group.holder] if group.holder else []) + group.waiting()
    rows = [
        _row(state, member, everything or state.sessions[member.session].principal == principal)
        for member in (*members, *group.removed.values())
    ]
    status = {**_summary(group), "previous": group.previous, "members": rows}
    return success([state.revision, status])


def _row(state: State, member: Member, named: bool) -> dict[str, Any]:
    """Describe a component; ``named``: with the names of its session and node."""
    session = state.sessions[member.session]
    return {
        **role_of(state, member),
        "session": session.id,
        "session_name": session.name if named else "",
        "node": member.node if named else "",
        "preference": member.rank,
        "response_ns": member.response_ns,
        "health_ns": member.health_ns,
    }


QUERIES: Final[dict[type[Any], Callable[[State, int | None, Any, int], Result]]] = {
    ops.GroupsRequest: _groups,
    ops.GroupStatusRequest: _status,
    ops.RolesRequest: _roles,
}
