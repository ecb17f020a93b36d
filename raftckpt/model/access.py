"""Who may do what: principals with their credentials, spaces with grants and quotas. Tables only.

Owns the tables, the lookup of rights and the proof of a token. What changes them is
``access_commands``; what they mean for sessions, handles and components is decided there, too.

Invariants:

* off, everybody may do everything and nobody is anybody; on, what is not granted is not allowed;
* the longest prefix decides on a name, alone: there are no patterns, no denials and no heirs;
* principals are referred to by number, which is never used again: who gets the name of one that
  was revoked has nothing of it;
* how long a lookup takes depends on the name and the spaces, not on what exists.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from typing import Final, NamedTuple

from raftckpt.errors import SaAisError
from raftckpt.model.quotas import SpaceQuotas
from raftckpt.model.types import Result, refuse
from raftckpt.protocol.kinds import Grant

__all__ = [
    "ALL",
    "ALL_NAMES",
    "CREATING",
    "DROPPING",
    "NOBODY",
    "OPERATING",
    "READING",
    "VISIBLE",
    "WORDS",
    "WRITING",
    "AccessTables",
    "Principal",
    "ProvenIdentity",
    "TokenRecord",
    "not_granted",
]

READING: Final = int(Grant.READ)
WRITING: Final = int(Grant.WRITE)
CREATING: Final = int(Grant.CREATE)
DROPPING: Final = int(Grant.DROP)
OPERATING: Final = int(Grant.OPERATE)
ALL: Final = READING | WRITING | CREATING | DROPPING | OPERATING
VISIBLE: Final = READING | WRITING
"""Without any of these a name is not there."""
WORDS: Final = {int(grant): str(grant.name).lower() for grant in Grant}
NOBODY: Final = 0
"""In the place of a principal's number."""
ALL_NAMES: Final = ""
"""Prefix of the space that is always there; `operate` on it is the right over the cluster."""
_TOKEN_PARTS: Final = 3  # scheme, id, secret
_SCHEME: Final = "rck1"
_NO_DIGEST: Final = bytes(32)
"""What an unknown token is compared with, so that it takes as long as a known one."""

_NOT_GRANTED: Final = {
    right: refuse(SaAisError.ERR_ACCESS, "not_granted", word) for right, word in WORDS.items()
}


def not_granted(right: int) -> Result:
    """ACCESS, for something that the principal may know to be there."""
    return _NOT_GRANTED[right]


class TokenRecord(NamedTuple):
    """What is kept of a token: SHA-256 of its text, and when it ends (SA_TIME_MAX: never)."""

    digest: bytes
    ends_ns: int


class ProvenIdentity(NamedTuple):
    """Who a connection proved to be."""

    principal: int
    """Number; NOBODY if rights are off."""
    token: str = ""
    """Id of the token that proved it; "": a certificate did."""


class Principal:
    """A name with credentials.

    Attributes:
        number: its own, never used again.
        name: of it.
        tokens: id -> record, in the order in which they were given.
        certificate: whether a certificate for ``raftckpt://CLUSTER/client/NAME`` proves it.
    """

    __slots__ = ("certificate", "name", "number", "tokens")

    def __init__(self, number: int, name: str, certificate: bool) -> None:
        self.number = number
        self.name = name
        self.certificate = certificate
        self.tokens: dict[str, TokenRecord] = {}

    def works(self, now_ns: int) -> bool:
        """Whether it has a credential that has not ended."""
        return self.certificate or any(token.ends_ns > now_ns for token in self.tokens.values())


class AccessTables:
    """All principals and spaces.

    Attributes:
        on: whether rights are asked for.
        revision: grows with each change of the tables; 0: there never was one.
        last: the last number given to a principal.
        by_name: name -> principal.
        by_number: number -> principal.
        holders: token id -> principal.
        spaces: prefix -> grants: number of a principal -> rights.
        quotas: prefix -> quotas, of those spaces that have any.
    """

    __slots__ = (
        "_lengths", "by_name", "by_number", "holders", "last", "on", "quotas", "revision", "spaces",
    )  # fmt: skip

    def __init__(self) -> None:
        self.on = False
        self.revision = 0
        self.last = 0
        self.by_name: dict[str, Principal] = {}
        self.by_number: dict[int, Principal] = {}
        self.holders: dict[str, Principal] = {}
        self.spaces: dict[str, dict[int, int]] = {ALL_NAMES: {}}
        self.quotas: dict[str, SpaceQuotas] = {}
        self._lengths: tuple[int, ...] = (0,)

    # --- changing them --------------------------------------------------------------------------

    def add(self, principal: Principal) -> None:
        """Add a principal, with the tokens it has."""
        self.last = max(self.last, principal.number)
        self.by_name[principal.name] = principal
        self.by_number[principal.number] = principal
        for token in principal.tokens:
            self.holders[token] = principal

    def forget(self, principal: Principal) -> None:
        """Remove a principal with its tokens and grants."""
        del self.by_name[principal.name]
        del self.by_number[principal.number]
        for token in principal.tokens:
            del self.holders[token]
        for grants in self.spaces.values():
            grants.pop(principal.number, None)

    def add_space(self, prefix: str) -> None:
        """Add a space without grants."""
        self.spaces[prefix] = {}
        self._measure()

    def forget_space(self, prefix: str) -> None:
        """Remove a space with its grants and quotas."""
        del self.spaces[prefix]
        self.quotas.pop(prefix, None)
        self._measure()

    def _measure(self) -> None:
        self._lengths = tuple(sorted({len(prefix) for prefix in self.spaces}, reverse=True))

    # --- asking them ----------------------------------------------------------------------------

    def rights(self, principal: int, name: str) -> int:
        """Rights of a principal on a name; all of them while rights are off."""
        if not self.on:
            return ALL
        return self.spaces[self.space_of(name)].get(principal, 0)

    def space_of(self, name: str) -> str:
        """Prefix of the space that decides on a name."""
        spaces = self.spaces
        for length in self._lengths:
            # a name shorter than the length is compared with itself, whole: not its prefix
            if length <= len(name) and name[:length] in spaces:
                return name[:length]
        return ALL_NAMES

    def quotas_of(self, name: str) -> SpaceQuotas | None:
        """Quotas of the space that decides on a name, None if it has none."""
        return self.quotas.get(self.space_of(name)) if self.quotas else None

    def rights_of(self, principal: int) -> Callable[[str], int]:
        """Return what tells the rights of a principal as they are now, whatever changes later."""
        if not self.on:
            return lambda name: ALL
        own = {prefix: grants.get(principal, 0) for prefix, grants in self.spaces.items()}
        lengths = self._lengths

        def rights(name: str) -> int:
            for length in lengths:
                found = own.get(name[:length])
                if found is not None and length <= len(name):
                    return found
            return 0

        return rights

    def operates(self, principal: int, name: str = ALL_NAMES) -> bool:
        """Whether a principal may operate what a name names; on all names: the cluster."""
        if not self.on or self.spaces[ALL_NAMES].get(principal, 0) & OPERATING:
            return True
        return name != ALL_NAMES and bool(self.rights(principal, name) & OPERATING)

    def operators(self, now_ns: int) -> list[Principal]:
        """Principals that may operate the cluster and have a credential that works."""
        return [
            principal
            for number, rights in self.spaces[ALL_NAMES].items()
            if rights & OPERATING and (principal := self.by_number[number]).works(now_ns)
        ]

    def prove(
        self, token: str | None, certificate: str | None, now_ns: int
    ) -> ProvenIdentity | None:
        """Find out who shows a token, or else a certificate; None: nobody known.

        Arguments:
            token: its text; what it says goes before what the certificate says.
            certificate: name of a client of this cluster that a verified certificate is for.
            now_ns: time by which tokens end.
        """
        if token is None:
            principal = self.by_name.get(certificate) if certificate is not None else None
            if principal is None or not principal.certificate:
                return None
            return ProvenIdentity(principal.number)
        parts = token.split(".", _TOKEN_PARTS - 1)
        known = len(parts) == _TOKEN_PARTS and parts[0] == _SCHEME
        number = parts[1] if known else ""
        holder = self.holders.get(number)
        record = TokenRecord(_NO_DIGEST, 0) if holder is None else holder.tokens[number]
        shown = sha256(token.encode("utf-8", "surrogatepass")).digest()
        same = compare_digest(shown, record.digest)
        if holder is None or not same or record.ends_ns <= now_ns:
            return None
        return ProvenIdentity(holder.number, number)

    def holds(self, identity: ProvenIdentity, now_ns: int) -> bool:
        """Whether what an identity was proved by still proves it."""
        if not self.on:
            return True
        principal = self.by_number.get(identity.principal)
        if principal is None:
            return False
        if not identity.token:
            return principal.certificate
        record = principal.tokens.get(identity.token)
        return record is not None and record.ends_ns > now_ns

    def trim(self, principal: Principal, until_ns: int) -> None:
        """Have the tokens of a principal end at a time at the latest; those that have are gone."""
        for number, record in list(principal.tokens.items()):
            principal.tokens[number] = record._replace(ends_ns=min(record.ends_ns, until_ns))

    def sweep(self, principal: Principal, now_ns: int) -> None:
        """Forget those tokens of a principal that have ended."""
        for number, record in list(principal.tokens.items()):
            if record.ends_ns <= now_ns:
                del principal.tokens[number]
                del self.holders[number]
