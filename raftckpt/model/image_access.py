"""Principals and spaces in an image: one object, which is not there if there never were any.

What is used of quotas is not in it: it is counted when it is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from raftckpt.model.access import ALL_NAMES, AccessTables, Principal, TokenRecord
from raftckpt.model.quotas import SpaceQuotas, in_order
from raftckpt.protocol import kinds as k
from raftckpt.protocol.contract import (
    GRANTS_MAX,
    PRINCIPALS_MAX,
    SPACES_MAX,
    TOKENS_PER_PRINCIPAL_MAX,
)
from raftckpt.protocol.kinds import fits, has_types

if TYPE_CHECKING:
    from raftckpt.model.state import State

__all__ = ["frozen", "load"]

_SPACE_FIELDS: Final = 2
"""Of a space without quotas."""
_INT: Final = (int,)
_STR: Final = (str,)
_LIST: Final = (list,)
_BOOL: Final = (bool,)
_BYTES: Final = (bytes,)


def frozen(state: State) -> tuple[Any, ...] | None:
    """Return the tables as they are now, in plain values; None: nobody ever changed them."""
    access = state.access
    if not access.revision:
        return None
    principals = [
        [each.number, each.name, each.certificate, [[t, *row] for t, row in each.tokens.items()]]
        for each in access.by_number.values()
    ]
    spaces: list[list[Any]] = [
        [prefix, [[*grant] for grant in grants.items()]] for prefix, grants in access.spaces.items()
    ]
    for row in spaces:
        quotas = access.quotas.get(row[0])
        if quotas is not None:  # an image without them is what it was before there were any
            row.append([[*quota] for quota in quotas.given.items()])
    holders = [[each.id, each.principal] for each in state.sessions.values() if each.principal]
    return (access.on, access.revision, access.last, principals, spaces, holders)


def _need(condition: object, what: str) -> None:
    if not condition:
        raise ValueError(f"damaged image: {what}")


def load(state: State, fields: Any) -> None:
    """Fill the tables of a state whose sessions and groups are loaded already.

    Raises:
        ValueError: they contradict themselves or the rest of the state.
    """
    _need(has_types(fields, _BOOL, _INT, _INT, _LIST, _LIST, _LIST), "rights were expected")
    on, revision, last, principals, spaces, holders = fields
    access = state.access = AccessTables()
    _need(revision > 0 and last >= 0, "numbers of the rights")
    _need(len(principals) <= PRINCIPALS_MAX and len(spaces) <= SPACES_MAX, "number of principals")
    before = 0
    for row in principals:
        before = _load_principal(access, row, before)
    _need(before <= last, "numbers of principals")
    access.on, access.revision, access.last = on, revision, last
    _need(spaces and spaces[0][0] == ALL_NAMES, "the space of all names")
    access.spaces.clear()
    for row in spaces:
        _load_space(access, row)
    _need(sum(map(len, access.spaces.values())) <= GRANTS_MAX, "number of grants")
    if access.quotas:
        state.regroup(ALL_NAMES)
    before = 0
    for row in holders:
        _need(has_types(row, _INT, _INT) and before < row[0] and 0 < row[1] <= last, "a holder")
        before = row[0]
        _need(not on or row[1] in access.by_number, "a session of a principal that is gone")
        state.sessions[row[0]].principal = row[1]
    for session in state.sessions.values():
        _need(not on or session.principal, "a session of nobody")
        session.cut(access.rights_of(session.principal))


def _load_principal(access: AccessTables, row: Any, before: int) -> int:
    _need(has_types(row, _INT, _STR, _BOOL, _LIST), "a principal was expected")
    number, name, certificate, tokens = row
    _need(before < number and name not in access.by_name, "order of principals")
    _need(fits(k.PrincipalName, name), "name of a principal")
    principal = Principal(number, name, certificate)
    _need(len(tokens) <= TOKENS_PER_PRINCIPAL_MAX, "tokens of a principal")
    for each in tokens:
        _need(has_types(each, _STR, _BYTES, _INT), "a token was expected")
        token, digest, ends_ns = each
        _need(token not in access.holders and token not in principal.tokens, "a token twice")
        _need(fits(k.TokenId, token) and digest and fits(k.TokenDigest, digest), "a token")
        _need(fits(k.Time, ends_ns), "end of a token")
        principal.tokens[token] = TokenRecord(digest, ends_ns)
    access.add(principal)
    return principal.number


def _load_space(access: AccessTables, row: Any) -> None:
    more = [row.pop()] if type(row) is list and len(row) > _SPACE_FIELDS else []
    _need(has_types(row, _STR, _LIST), "a space was expected")
    prefix, grants = row
    _need(prefix not in access.spaces and fits(k.NamePrefix, prefix), "a space")
    access.add_space(prefix)
    for each in grants:
        _need(has_types(each, _INT, _INT), "a grant was expected")
        number, rights = each
        _need(number in access.by_number and number not in access.spaces[prefix], "a grant")
        _need(fits(k.Grants, rights), "rights of a grant")
        access.spaces[prefix][number] = rights
    for rows in more:
        _need(fits(k.QuotaValues, rows), "quotas were expected")
        quotas = access.quotas[prefix] = SpaceQuotas(prefix)
        quotas.given = in_order((name, most) for name, most in rows)
        _need([[*quota] for quota in quotas.given.items()] == rows, "the quotas of a space")
