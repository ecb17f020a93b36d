"""Who did, or tried, what only some may do: one line each, so many a second.

The logger is `raftckpt.audit`: its lines can be sent elsewhere than the rest.
"""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["Audit"]

log = logging.getLogger("raftckpt.audit")

_LINES_PER_TICK_MAX: Final = 50
"""Of each kind between two ticks, a second: who is refused in a loop must not fill the disk."""


class Audit:
    """Writes the lines, and counts those that it does not write."""

    def __init__(self) -> None:
        self._asked = 0
        self._refused = 0

    def asked(self, peer: str, principal: str, operation: str) -> None:
        """Somebody asks for something that needs the right to operate."""
        self._asked += 1
        if self._asked <= _LINES_PER_TICK_MAX:
            log.info("asked peer=%s principal=%s operation=%s", peer, principal, operation)

    def refused(self, peer: str, principal: str, why: str) -> None:
        """Somebody was refused for lack of a right or a credential."""
        self._refused += 1
        if self._refused <= _LINES_PER_TICK_MAX:
            log.warning("refused peer=%s principal=%s why=%s", peer, principal, why)

    def tick(self) -> None:
        """Another second begins."""
        left_out = max(0, self._asked - _LINES_PER_TICK_MAX)
        left_out += max(0, self._refused - _LINES_PER_TICK_MAX)
        if left_out:
            log.warning("more_like_these count=%d", left_out)
        self._asked = self._refused = 0
