"""The audit stream: who was refused what, and who did what needs the right to operate.

The logger is ``raftckpt.audit``. The stream has a level and a file of its own (``log.audit``,
``log.audit_level`` in cluster.yaml); without a file it goes where the log goes, room "audit".
Never give it a token or other content.
"""

from __future__ import annotations

from typing import Final

from raftckpt.events import EventLog, Value

__all__ = ["AuditTrail", "audit"]

log = EventLog("audit")

_LINES_PER_TICK_MAX: Final = 50
"""Of each kind between two ticks, a second: who is refused in a loop must not fill the disk."""


def audit(event: str, /, *, warn: bool = False, **fields: Value) -> None:
    """Write one line of the audit stream.

    Arguments:
        event: what happened, a word.
        warn: at the level warning instead of info: a refusal.
        fields: who, what, why: text, numbers, booleans, None. Text of others is made safe here.
    """
    (log.warning if warn else log.info)(event, **fields)


class AuditTrail:
    """Writes the lines, and counts those that it does not write."""

    def __init__(self) -> None:
        self._asked = 0
        self._refused = 0

    def asked(self, peer: str, principal: str, operation: str) -> None:
        """Somebody asks for something that needs the right to operate."""
        self._asked += 1
        if self._asked <= _LINES_PER_TICK_MAX:
            audit("asked", peer=peer, principal=principal, operation=operation)

    def refused(self, peer: str, principal: str, why: str) -> None:
        """Somebody was refused for lack of a right or a credential."""
        self._refused += 1
        if self._refused <= _LINES_PER_TICK_MAX:
            audit("refused", warn=True, peer=peer, principal=principal, why=why)

    def tick(self) -> None:
        """Another second begins."""
        left_out = max(0, self._asked - _LINES_PER_TICK_MAX)
        left_out += max(0, self._refused - _LINES_PER_TICK_MAX)
        if left_out:
            audit("more_like_these", warn=True, count=left_out)
        self._asked = self._refused = 0
