"""The operations on principals and spaces: arguments in, a call out, its reply decoded."""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from raftckpt.client.calls import Call, Needs
from raftckpt.client.types import duration_ns
from raftckpt.errors import InvalidParam
from raftckpt.limits import SECOND_NS
from raftckpt.protocol import operations as ops
from raftckpt.protocol.contract import (
    CHECKPOINT_NAME_BYTES_MAX,
    LIMIT_NAME_BYTES_MAX,
    PRINCIPAL_NAME_BYTES_MAX,
    SA_TIME_MAX,
)
from raftckpt.protocol.kinds import Grant

__all__ = [
    "TOKEN_ID_BYTES",
    "TOKEN_SECRET_BYTES",
    "AccessStatus",
    "Caller",
    "NewToken",
    "PrincipalRow",
    "QuotaUse",
    "SpaceRow",
    "auth_set",
    "auth_status",
    "known_principal",
    "known_token",
    "mask_of",
    "new_token",
    "principal_create",
    "principal_revoke",
    "principal_rotate",
    "principals",
    "space_create",
    "space_delete",
    "space_grant",
    "space_quota",
    "space_revoke",
    "spaces",
    "who_am_i",
    "words_of",
]

_COMMAND: Final = Needs.COMMAND
TOKEN_SECRET_BYTES: Final = 32
"""256 bits: nobody guesses it, so its plain SHA-256 is all that is kept."""
TOKEN_ID_BYTES: Final = 6
"""48 bits, no secret: that of 20,000, all tokens that there can be, two are drawn alike is one in a
million."""
_TOKEN: Final = re.compile(r"rck1\.([A-Za-z0-9]{1,32})\.[A-Za-z0-9_-]{43}", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


class NewToken(NamedTuple):
    """A token that was just made. Nobody can tell its text again."""

    text: str
    """What a client shows; keep it in a file that only it may read."""
    id: str
    digest: bytes


class AccessStatus(NamedTuple):
    """What ``raftckpt auth status`` tells."""

    on: bool
    revision: int
    """Of principals and spaces; grows with each change."""
    principals: int
    spaces: int
    operators: int
    """Principals that may operate the cluster and have a credential that works."""


class PrincipalRow(NamedTuple):
    """A principal."""

    name: str
    number: int
    certificate: bool
    tokens: list[tuple[str, int | None]]
    """(id, ns since 1970 at which it ends; None: it does not)."""


class QuotaUse(NamedTuple):
    """A quota of a space."""

    most: int
    used: int
    """More than ``most`` if it was set below what was there."""


class SpaceRow(NamedTuple):
    """A space."""

    prefix: str
    grants: dict[str, list[str]]
    """Rights by principal."""
    quotas: dict[str, QuotaUse]
    """Those that are set, by name: checkpoints, sections, bytes."""


class Caller(NamedTuple):
    """Who a connection proved to be."""

    principal: str
    """"": nobody; rights are off, or it connected when they were."""
    grants: dict[str, list[str]]
    """Rights by the prefix of the space."""


def new_token(random: bytes) -> NewToken:
    """Make a token of random bytes (``TOKEN_ID_BYTES + TOKEN_SECRET_BYTES`` of them)."""
    number = random[:TOKEN_ID_BYTES].hex()
    secret = urlsafe_b64encode(random[TOKEN_ID_BYTES:]).rstrip(b"=").decode()
    text = f"rck1.{number}.{secret}"
    return NewToken(text, number, hashlib.sha256(text.encode()).digest())


def known_token(text: str) -> NewToken:
    """Take the text of a token.

    Raises:
        InvalidParam: it is none.
    """
    found = _TOKEN.fullmatch(text)
    if found is None:
        raise InvalidParam("a token is rck1.ID.SECRET, as principal create makes it")
    return NewToken(text, found[1], hashlib.sha256(text.encode()).digest())


def mask_of(rights: str | Iterable[str]) -> int:
    """Return rights as a number: "read,write", or words.

    Raises:
        InvalidParam: a word is none of read, write, create, drop, operate.
    """
    words = rights.split(",") if isinstance(rights, str) else list(rights)
    mask = 0
    for word in words:
        try:
            mask |= Grant[word.strip().upper()]
        except KeyError:
            known = ", ".join(grant.name.lower() for grant in Grant if grant.name)
            raise InvalidParam(f"rights are of {known}, not {word!r}") from None
    if not mask:
        raise InvalidParam("no rights are named")
    return mask


def words_of(mask: int) -> list[str]:
    """Return a number of rights as words."""
    return [str(grant.name).lower() for grant in Grant if mask & grant]


def known_principal(name: str) -> str:
    """Take the name of a principal.

    Raises:
        InvalidParam: it is none.
    """
    if (
        not isinstance(name, str)
        or not _NAME.fullmatch(name)
        or len(name) > (PRINCIPAL_NAME_BYTES_MAX)
    ):
        raise InvalidParam(
            f"a principal has 1..{PRINCIPAL_NAME_BYTES_MAX} letters, digits, '.', '_', '-', "
            f"the first a letter or digit, not {name!r}",
            reason="param",
        )
    return name


def _space(prefix: str) -> str:
    try:
        fits = len(prefix.encode("utf-8")) <= CHECKPOINT_NAME_BYTES_MAX
    except (AttributeError, UnicodeError):
        fits = False
    if not fits:
        raise InvalidParam(
            f"a space is a prefix of names, a text of at most {CHECKPOINT_NAME_BYTES_MAX} bytes, "
            f"not {prefix!r}",
            reason="param",
        )
    return prefix


def _ends_ns(ends: float | None) -> int:
    """``ends``: seconds since 1970, None: never."""
    if ends is None:
        return SA_TIME_MAX
    if not isinstance(ends, int | float) or not 0 < ends < SA_TIME_MAX / SECOND_NS:
        raise InvalidParam(f"a token ends at a time in seconds since 1970, not {ends!r}")
    return int(ends * SECOND_NS)


def auth_set(on: bool, expected: int | None) -> Call:
    """Build the switch."""
    what = "switch rights on" if on else "switch rights off"
    return Call(what, _COMMAND, ops.AuthSet(0, 0, 0, bool(on), expected))


def principal_create(
    name: str,
    token: NewToken | None,
    ends: float | None,
    certificate: bool,
    expected: int | None,
) -> Call:
    """Build a principal -> revision of the tables."""
    number, digest = (None, b"") if token is None else (token.id, token.digest)
    if token is None and not certificate:
        raise InvalidParam("a principal is known by a token, by its certificate, or by both")
    message = ops.PrincipalCreate(
        0, 0, 0, known_principal(name), number, digest, _ends_ns(ends), bool(certificate), expected
    )
    return Call(f"create principal {name!r}", _COMMAND, message)


def principal_rotate(
    name: str, token: NewToken, ends: float | None, keep: float, expected: int | None
) -> Call:
    """Build another token."""
    message = ops.PrincipalRotate(
        0,
        0,
        0,
        known_principal(name),
        token.id,
        token.digest,
        _ends_ns(ends),
        duration_ns(keep, "keep"),
        expected,
    )
    return Call(f"rotate the token of principal {name!r}", _COMMAND, message)


def principal_revoke(name: str, expected: int | None) -> Call:
    """Build the end of a principal."""
    message = ops.PrincipalRevoke(0, 0, 0, known_principal(name), expected)
    return Call(f"revoke principal {name!r}", _COMMAND, message)


def space_create(prefix: str, expected: int | None) -> Call:
    """Build a space."""
    message = ops.SpaceCreate(0, 0, 0, _space(prefix), expected)
    return Call(f"create space {prefix!r}", _COMMAND, message)


def space_grant(
    prefix: str, principal: str, rights: str | Iterable[str], expected: int | None
) -> Call:
    """Build a grant."""
    message = ops.SpaceGrant(
        0, 0, 0, _space(prefix), known_principal(principal), mask_of(rights), expected
    )
    return Call(f"grant on space {prefix!r} to {principal!r}", _COMMAND, message)


def space_revoke(
    prefix: str, principal: str, rights: str | Iterable[str], expected: int | None
) -> Call:
    """Build the end of a grant."""
    message = ops.SpaceRevoke(
        0, 0, 0, _space(prefix), known_principal(principal), mask_of(rights), expected
    )
    return Call(f"revoke on space {prefix!r} from {principal!r}", _COMMAND, message)


def space_quota(prefix: str, quotas: Mapping[str, int | None], expected: int | None) -> Call:
    """Build a change of quotas; None or 0: there is to be none."""
    rows = []
    for name, most in quotas.items():
        if not isinstance(name, str) or not 1 <= len(name) <= LIMIT_NAME_BYTES_MAX:
            raise InvalidParam(f"there is no quota {name!r}", reason="param")
        if most is not None and (type(most) is not int or not 0 <= most <= SA_TIME_MAX):
            raise InvalidParam(f"the quota {name} is a number >= 0, not {most!r}", reason="param")
        rows.append((name, most or 0))
    if not rows:
        raise InvalidParam("name the quotas that are to be set", reason="param")
    message = ops.SpaceQuota(0, 0, 0, _space(prefix), rows, expected)
    return Call(f"set quotas of space {prefix!r}", _COMMAND, message)


def space_delete(prefix: str, expected: int | None) -> Call:
    """Build the end of a space."""
    message = ops.SpaceDelete(0, 0, 0, _space(prefix), expected)
    return Call(f"delete space {prefix!r}", _COMMAND, message)


def auth_status() -> Call:
    """Build the question whether rights are on -> AccessStatus."""

    def decode(value: Any) -> AccessStatus:
        return AccessStatus._make(value[1:])

    return Call("auth status", Needs.LEADER, ops.AuthStatus(0, 0, 0), decode=decode)


def who_am_i() -> Call:
    """Build the question who this connection is -> Caller."""

    def decode(value: Any) -> Caller:
        return Caller(value[1], {prefix: words_of(rights) for prefix, rights in value[2]})

    return Call("whoami", Needs.LEADER, ops.WhoAmI(0, 0, 0), decode=decode)


def principals() -> Call:
    """Build the listing of principals -> (revision of the tables, rows)."""
    message = ops.PrincipalsRequest(0, 0, 0)
    return Call("list principals", Needs.LEADER, message, decode=partial(_rows, _principal_row))


def _rows(row: Any, value: Any) -> tuple[int, list[Any]]:
    return value[1], [row(fields) for fields in value[2]]


def _principal_row(fields: Any) -> PrincipalRow:
    name, number, certificate, tokens = fields
    ends = [(token, None if at == SA_TIME_MAX else at) for token, at in tokens]
    return PrincipalRow(name, number, certificate, ends)


def _space_row(fields: Any) -> SpaceRow:
    prefix, grants, *more = fields
    quotas = {name: QuotaUse(most, used) for rows in more for name, most, used in rows}
    return SpaceRow(prefix, {name: words_of(rights) for name, rights in grants}, quotas)


def spaces() -> Call:
    """Build the listing of spaces -> (revision of the tables, rows)."""
    message = ops.SpacesRequest(0, 0, 0)
    return Call("list spaces", Needs.LEADER, message, decode=partial(_rows, _space_row))
