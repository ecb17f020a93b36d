"""Principals, spaces and rights, for operators: what ``raftckpt auth``, ``principal`` and ``space``
call. How it is used: docs/operate/rights.md. :class:`raftckpt.aio.Rights` is the same, awaitable.

Each change takes ``expected``, the revision of the tables it was made for: if they have another one
meanwhile, :class:`~raftckpt.BadOperation` with reason ``access_changed``, and nothing happened.
"""

from __future__ import annotations

import os

from raftckpt.client import access_operations as calls
from raftckpt.client.access_operations import (
    AccessStatus,
    Caller,
    NewToken,
    PrincipalRow,
    QuotaUse,
    SpaceRow,
)
from raftckpt.client.sync_rights import Rights

__all__ = [
    "AccessStatus",
    "Caller",
    "NewToken",
    "PrincipalRow",
    "QuotaUse",
    "Rights",
    "SpaceRow",
    "known_token",
    "make_token",
]


def make_token() -> NewToken:
    """Make a token from the operating system's random bytes."""
    return calls.new_token(os.urandom(calls.TOKEN_ID_BYTES + calls.TOKEN_SECRET_BYTES))


def known_token(text: str) -> NewToken:
    """Take the text of a token that was made before.

    Raises:
        InvalidParam: it is none.
    """
    return calls.known_token(text)
