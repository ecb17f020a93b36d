"""The audit stream: who was refused what, and who did what needs the right to operate.

``audit("refused", principal="billing", operation="Unlink", checkpoint="a/b", why="drop")`` writes
one line of the logger ``raftckpt.audit``: event, fields, numbers as numbers. The stream has a level
and a file of its own (``log.audit``, ``log.audit_level`` in cluster.yaml); without a file it
goes where the log goes, room "audit". Never give it a token or other content.
"""

from __future__ import annotations

from raftckpt.events import EventLog, Value

__all__ = ["audit"]

_stream = EventLog("audit")


def audit(event: str, /, *, warn: bool = False, **fields: Value) -> None:
    """Write one line of the audit stream.

    Arguments:
        event: what happened, a word.
        warn: at the level warning instead of info: a refusal.
        fields: who, what, why: text, numbers, booleans, None. Text of others is made safe here.
    """
    (_stream.warning if warn else _stream.info)(event, **fields)
