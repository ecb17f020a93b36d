"""The messages of a replica: what the first field of each says."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

__all__ = ["CONSISTENCY_LINEARIZABLE", "CONSISTENCY_LOCAL", "ReplyKind"]

# of the protocol (docs/reference/protocol.md)
CONSISTENCY_LINEARIZABLE: Final = 0
CONSISTENCY_LOCAL: Final = 1


class ReplyKind(IntEnum):
    """First field of the messages of a replica."""

    REPLY = 0
    """``[0, id, 1, value]``, or ``[0, id, code, [reason, detail, index], definite]``."""
    ACCEPTED = 1
    """``[1, id]``: the write will be committed or refused later."""
    NOTICE = 2
    """``[2, kind, value]``: nobody asked."""
    CHANGES = 3
    """``[3, id, changes, through]``: for the tracker ``id``."""
