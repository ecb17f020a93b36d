"""Commands and queries about principals and spaces, and what they mean for those who are here.

Each command is ``(state, session, command) -> Result``; fields are within their bounds and the
right to operate was asked for by ``machine``. A change takes a revision of the tables, never one of
the state: no checkpoint changed. What was taken away is gone in the same entry.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final, Protocol, TypeVar

from raftckpt.errors import SaAisError
from raftckpt.model import assignments
from raftckpt.model.access import (
    ALL_NAMES,
    OPERATING,
    WRITING,
    AccessTables,
    Principal,
    TokenRecord,
    not_granted,
)
from raftckpt.model.groups import HaState, name_in_spaces
from raftckpt.model.lifecycle import end_session
from raftckpt.model.quotas import QUOTAS, SpaceQuotas, in_order
from raftckpt.model.sessions import Session
from raftckpt.model.state import State
from raftckpt.model.types import Result, refuse, success
from raftckpt.protocol import operations as ops
from raftckpt.protocol.contract import (
    GRANTS_MAX,
    PRINCIPALS_MAX,
    SA_TIME_MAX,
    SPACES_MAX,
    TOKENS_PER_PRINCIPAL_MAX,
)

__all__ = [
    "QUERIES",
    "auth_set",
    "principal_create",
    "principal_revoke",
    "principal_rotate",
    "space_create",
    "space_delete",
    "space_grant",
    "space_quota",
    "space_revoke",
]


class _Comparing(Protocol):
    """A command that says which tables it was made for."""

    expected: int | None


_C = TypeVar("_C", bound=_Comparing)
_NO_OPERATOR: Final = refuse(SaAisError.ERR_BAD_OPERATION, "no_operator")
_LAST_OPERATOR: Final = refuse(SaAisError.ERR_BAD_OPERATION, "last_operator")
_PAST: Final = refuse(SaAisError.ERR_INVALID_PARAM, "time_past")
_ALL_NAMES_STAY: Final = refuse(SaAisError.ERR_BAD_OPERATION, "space_of_all")


def _compared(
    change: Callable[[State, Session, _C], Result],
) -> Callable[[State, Session, _C], Result]:
    """Have a change refused if the tables are not those that it was made for (BAD_OPERATION)."""

    @wraps(change)
    def compare(state: State, session: Session, c: _C) -> Result:
        found, expected = state.access.revision, c.expected
        if expected is None or expected == found:
            return change(state, session, c)
        return refuse(SaAisError.ERR_BAD_OPERATION, "access_changed", found)

    return compare


def _no_principal(name: str) -> Result:
    return refuse(SaAisError.ERR_NOT_EXIST, "principal_missing", name)


def _no_space(prefix: str) -> Result:
    return refuse(SaAisError.ERR_NOT_EXIST, "space_missing", prefix)


def _changed(state: State) -> Result:
    state.access.revision += 1
    return success(state.access.revision)


def _took(state: State, principal: int | None = None) -> Result:
    """Something may have been given to somebody who is here, or taken away; None: to anybody."""
    result = _changed(state)
    _enforce(state, principal)
    return result


def _enforce(state: State, principal: int | None) -> None:
    """Bring sessions, handles and components in line with the tables.

    Sessions of nobody end while rights are on. A handle has what was wanted when it was opened and
    is granted now. A component whose session may not write to its group any more is taken out of
    service, and fences its session until it answers that it knows.
    """
    access = state.access
    if access.on:
        for session in list(state.sessions.values()):
            if session.principal not in access.by_number:
                end_session(state, session)
        assignments.settle_ended(state)
    for session in list(state.sessions.values()):
        if principal is not None and session.principal != principal:
            continue
        rights = access.rights_of(session.principal)
        session.cut(rights)
        for member in state.groups.of_session(session.members):
            if (
                member.state != HaState.REMOVED
                and not rights(name_in_spaces(member.group)) & WRITING
            ):
                assignments.fail(state, member, "revoked")


# --- on and off ----------------------------------------------------------------------------------


@_compared
def auth_set(state: State, session: Session, c: ops.AuthSet) -> Result:
    """Switch rights on or off; setting what is set changes nothing."""
    access = state.access
    if access.on == c.on:
        return success(access.revision)
    if c.on and not access.operators(state.now_ns):
        return _NO_OPERATOR
    access.on = c.on
    return _took(state)


def _locks_out(access: AccessTables, now_ns: int, but: Principal) -> bool:
    """Whether nobody but one principal could operate the cluster."""
    operators = access.operators(now_ns)
    return access.on and operators == [but]


# --- principals ----------------------------------------------------------------------------------


@_compared
def principal_create(state: State, session: Session, c: ops.PrincipalCreate) -> Result:
    """Make a principal."""
    access = state.access
    if (c.token_id is None) != (not c.token_digest) or not (c.token_digest or c.certificate):
        return refuse(SaAisError.ERR_INVALID_PARAM, "param", "a token, a certificate, or both")
    if c.token_id is not None and c.ends_ns <= state.now_ns:
        return _PAST
    if c.principal in access.by_name:
        return refuse(SaAisError.ERR_EXIST, "principal_exists", c.principal)
    if c.token_id in access.holders:
        return refuse(SaAisError.ERR_EXIST, "token_exists", c.token_id)
    if len(access.by_name) >= PRINCIPALS_MAX:
        return refuse(SaAisError.ERR_NO_RESOURCES, "limit", "principals")
    principal = Principal(access.last + 1, c.principal, c.certificate)
    if c.token_id is not None:
        principal.tokens[c.token_id] = TokenRecord(c.token_digest, c.ends_ns)
    access.add(principal)
    return _changed(state)


@_compared
def principal_rotate(state: State, session: Session, c: ops.PrincipalRotate) -> Result:
    """Give a principal another token."""
    access = state.access
    principal = access.by_name.get(c.principal)
    if principal is None:
        return _no_principal(c.principal)
    if c.token_id in access.holders:
        return refuse(SaAisError.ERR_EXIST, "token_exists", c.token_id)
    if not c.token_digest:
        return refuse(SaAisError.ERR_INVALID_PARAM, "param", "token_digest")
    if c.ends_ns <= state.now_ns:
        return _PAST
    access.sweep(principal, state.now_ns)
    if c.keep_ns and len(principal.tokens) >= TOKENS_PER_PRINCIPAL_MAX:
        return refuse(SaAisError.ERR_NO_RESOURCES, "limit", "tokens of a principal")
    access.trim(principal, min(state.now_ns + c.keep_ns, SA_TIME_MAX))
    access.sweep(principal, state.now_ns)
    principal.tokens[c.token_id] = TokenRecord(c.token_digest, c.ends_ns)
    access.holders[c.token_id] = principal
    return _changed(state)


@_compared
def principal_revoke(state: State, session: Session, c: ops.PrincipalRevoke) -> Result:
    """Forget a principal; the last one that can operate the cluster stays."""
    access = state.access
    principal = access.by_name.get(c.principal)
    if principal is None:
        return _no_principal(c.principal)
    if _locks_out(access, state.now_ns, principal):
        return _LAST_OPERATOR
    access.forget(principal)
    return _took(state, principal.number)


# --- spaces --------------------------------------------------------------------------------------


@_compared
def space_create(state: State, session: Session, c: ops.SpaceCreate) -> Result:
    """Make a space; nobody has rights on it yet, whatever a shorter prefix grants."""
    access = state.access
    if c.space in access.spaces:
        return refuse(SaAisError.ERR_EXIST, "space_exists", c.space)
    if len(access.spaces) >= SPACES_MAX:
        return refuse(SaAisError.ERR_NO_RESOURCES, "limit", "spaces")
    access.add_space(c.space)
    if access.quotas:
        state.regroup(c.space)
    return _took(state)


@_compared
def space_delete(state: State, session: Session, c: ops.SpaceDelete) -> Result:
    """Forget a space; that of all names stays."""
    access = state.access
    if c.space == ALL_NAMES:
        return _ALL_NAMES_STAY
    if c.space not in access.spaces:
        return _no_space(c.space)
    counted = bool(access.quotas)
    access.forget_space(c.space)
    if counted:
        state.regroup(c.space)
    return _took(state)


@_compared
def space_quota(state: State, session: Session, c: ops.SpaceQuota) -> Result:
    """Set quotas of a space, or (0) take them away; setting what is set changes nothing."""
    access = state.access
    if c.space not in access.spaces:
        return _no_space(c.space)
    for name, _ in c.values:
        if name not in QUOTAS:
            return refuse(SaAisError.ERR_INVALID_PARAM, "param", f"there is no quota {name}")
    quotas = access.quotas.get(c.space)
    before = {} if quotas is None else quotas.given
    given = in_order([*before.items(), *c.values])
    if given == before:
        return success(access.revision)
    if not given:
        del access.quotas[c.space]
        state.regroup(c.space)
    elif quotas is not None:
        quotas.given = given
    else:
        access.quotas[c.space] = SpaceQuotas(c.space)
        access.quotas[c.space].given = given
        state.regroup(c.space)
    return _changed(state)


@_compared
def space_grant(state: State, session: Session, c: ops.SpaceGrant) -> Result:
    """Add rights; granting what is granted changes nothing."""
    access = state.access
    grants = access.spaces.get(c.space)
    if grants is None:
        return _no_space(c.space)
    principal = access.by_name.get(c.principal)
    if principal is None:
        return _no_principal(c.principal)
    number = principal.number
    before = grants.get(number, 0)
    if not before and sum(map(len, access.spaces.values())) >= GRANTS_MAX:
        return refuse(SaAisError.ERR_NO_RESOURCES, "limit", "grants")
    if before | c.rights == before:
        return success(access.revision)
    grants[number] = before | c.rights
    return _took(state, number)


@_compared
def space_revoke(state: State, session: Session, c: ops.SpaceRevoke) -> Result:
    """Take rights away; taking what is not there changes nothing."""
    access = state.access
    grants = access.spaces.get(c.space)
    if grants is None:
        return _no_space(c.space)
    principal = access.by_name.get(c.principal)
    if principal is None:
        return _no_principal(c.principal)
    before = grants.get(principal.number, 0)
    left = before & ~c.rights
    if left == before:
        return success(access.revision)
    operating = c.space == ALL_NAMES and before & ~left & OPERATING
    if operating and _locks_out(access, state.now_ns, principal):
        return _LAST_OPERATOR
    if left:
        grants[principal.number] = left
    else:
        del grants[principal.number]
    return _took(state, principal.number)


# --- what is told --------------------------------------------------------------------------------


def _auth_status(state: State, principal: int, query: ops.AuthStatus) -> Result:
    access = state.access
    counts = [len(access.by_name), len(access.spaces), len(access.operators(state.now_ns))]
    return success([state.revision, access.on, access.revision, *counts])


def _who_am_i(state: State, principal: int, query: ops.WhoAmI) -> Result:
    access = state.access
    known = access.by_number.get(principal)
    if known is None:
        return success([state.revision, "", []])
    grants = [
        [prefix, rights[principal]]
        for prefix, rights in access.spaces.items()
        if principal in rights
    ]
    return success([state.revision, known.name, grants])


def _principals(state: State, principal: int, query: ops.PrincipalsRequest) -> Result:
    access = state.access
    if not access.operates(principal):
        return not_granted(OPERATING)
    rows = [
        [
            each.name,
            each.number,
            each.certificate,
            [[token, record.ends_ns] for token, record in each.tokens.items()],
        ]
        for each in access.by_name.values()
    ]
    return success([state.revision, access.revision, rows])


def _spaces(state: State, principal: int, query: ops.SpacesRequest) -> Result:
    access = state.access
    if not access.operates(principal):
        return not_granted(OPERATING)
    rows: list[list[Any]] = [
        [
            prefix,
            [[access.by_number[number].name, rights] for number, rights in grants.items()],
        ]
        for prefix, grants in access.spaces.items()
    ]
    for row in rows:
        quotas = access.quotas.get(row[0])
        if quotas is not None:
            row.append([[name, most, quotas.used(name)] for name, most in quotas.given.items()])
    return success([state.revision, access.revision, rows])


QUERIES: Final[dict[type[Any], Callable[[State, int, Any], Result]]] = {
    ops.AuthStatus: _auth_status,
    ops.WhoAmI: _who_am_i,
    ops.PrincipalsRequest: _principals,
    ops.SpacesRequest: _spaces,
}
