"""The reply table of a session: exactly once, in the order of the sequence numbers.

Requests of a session carry 1, 2, 3, ... and "I have seen every reply up to ``answered``". As every
number is executed in turn and its result kept until it is answered, the table is exactly the
results of ``answered + 1 .. last``: a queue, never longer than ``SEQUENCE_WINDOW``. Results that
are more than a number have bounded bytes, too: ids in refusals, what transactions made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from raftckpt.errors import SaAisError
from raftckpt.model.types import Result, refuse
from raftckpt.protocol.contract import REPLY_TABLE_BYTES_MAX, SEQUENCE_WINDOW

__all__ = ["ReplyTable"]

_ITEM_BYTES: Final = 40
"""Of a number, or of the head of what is longer."""
_ANSWERED: Final = refuse(SaAisError.ERR_LIBRARY, "answered")
_GAP: Final = refuse(SaAisError.ERR_TRY_AGAIN, "gap")
_WINDOW: Final = refuse(SaAisError.ERR_TRY_AGAIN, "window")


class ReplyTable:
    """Results that the client may still ask for again.

    Attributes:
        last: highest sequence executed.
        answered: every reply up to here was seen by the client and is forgotten; at most ``last``.
        kept: the results of ``answered + 1 .. last``.
        bytes: rough memory of those that are more than a number.
    """

    __slots__ = ("answered", "bytes", "kept", "last")

    def __init__(self, last: int = 0, answered: int = 0, results: Iterable[Result] = ()) -> None:
        self.last = last
        self.answered = answered
        self.kept = deque(results)
        self.bytes = sum(map(_weight, self.kept))

    def admit(self, sequence: int, answered: int) -> Result | None:
        """Decide about a request.

        Arguments:
            sequence: its number.
            answered: what the client says it has seen; it never takes back what it said before,
                and a number beyond ``last`` (a client's bug) counts as ``last``.

        Returns:
            None: execute it and :meth:`remember` the result. Otherwise the answer: the result of
            the first execution, or a refusal that is not recorded (TRY_AGAIN "gap", "window";
            LIBRARY "answered").
        """
        last = self.last
        if answered > self.answered:
            self.forget(answered)
        if sequence == last + 1:
            if sequence - self.answered > SEQUENCE_WINDOW or self.bytes > REPLY_TABLE_BYTES_MAX:
                return _WINDOW
            return None
        if sequence > last:
            return _GAP if sequence - self.answered <= SEQUENCE_WINDOW else _WINDOW
        if sequence <= self.answered:
            return _ANSWERED
        return self.kept[sequence - self.answered - 1]

    def forget(self, answered: int) -> None:
        """Drop the results up to ``answered``, which is more than was dropped so far."""
        answered = min(answered, self.last)
        drop = self.kept.popleft
        if self.bytes:
            for _ in range(answered - self.answered):
                self.bytes -= _weight(drop())
        else:
            for _ in range(answered - self.answered):
                drop()
        self.answered = answered

    def remember(self, result: Result) -> None:
        """Record the result of the request that was just admitted."""
        self.last += 1
        self.kept.append(result)
        self.bytes += _weight(result)

    def results(self) -> list[Result]:
        """Return the results of ``answered + 1 .. last``."""
        return list(self.kept)


def _weight(result: Result) -> int:
    """Rough bytes of a result; none if it is only a number, or nothing. Equal for equal values."""
    value = result[1]
    return 0 if type(value) is int or value is None else _bytes(value)


def _bytes(value: Any) -> int:
    if isinstance(value, bytes | str):
        return _ITEM_BYTES + len(value)
    if isinstance(value, list | tuple):
        return _ITEM_BYTES + sum(map(_bytes, value))
    return _ITEM_BYTES
