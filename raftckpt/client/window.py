"""The unanswered commands of a session: sequence numbers, watermark, order of replay.

Invariants: numbers are given out without gaps, at the moment of sending; a number stays in the
window until a reply that the cluster remembers under it was seen; ``answered`` is the largest n
such that every number up to n left the window.
"""

from __future__ import annotations

from typing import Final

from raftckpt import limits
from raftckpt.client.calls import Call
from raftckpt.protocol import contract

__all__ = ["BYTES_MAX", "Window"]

BYTES_MAX: Final = 8 * limits.MIB
"""Bytes of unanswered commands above which further commands wait."""


class Window:
    """Commands with a number, in order."""

    __slots__ = ("answered", "bytes", "calls", "last", "reached")

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}
        self.last = 0
        self.answered = 0
        self.bytes = 0
        self.reached = 0
        """Highest number whose caller was told that it is accepted or done."""

    @property
    def has_room(self) -> bool:
        """Whether another command may be numbered now."""
        return self.last - self.answered < contract.SEQUENCE_WINDOW and self.bytes < BYTES_MAX

    def add(self, call: Call) -> None:
        """Give ``call`` the next number."""
        self.last = call.sequence = self.last + 1
        self.calls[call.sequence] = call
        self.bytes += call.bytes_

    def settle(self, call: Call) -> None:
        """The outcome of ``call``'s number is known for good."""
        sequence = call.sequence
        calls = self.calls
        del calls[sequence]
        self.bytes -= call.bytes_
        if sequence > self.reached:
            self.reached = sequence
        answered = self.answered
        if sequence == answered + 1:
            last = self.last
            answered = sequence
            while answered < last and answered + 1 not in calls:
                answered += 1
            self.answered = answered
