"""The express lane: the two operations that make up the load, each in one function.

Both only ever say yes. Whatever is not exactly the plain case (staged data, another order, a
missing section, a refusal of any kind) is None, and goes the way of all other operations, where
the rules are and the reasons for refusals. What a yes does must be what that way would have done.
"""

from __future__ import annotations

from typing import Any, Final

from raftckpt.model.changes import ChangeKind
from raftckpt.model.checkpoints import READ, WRITE
from raftckpt.model.state import State
from raftckpt.model.types import Result
from raftckpt.protocol.contract import PAGE_BYTES, SEQUENCE_WINDOW
from raftckpt.protocol.operations import Read, SectionOverwrite, SectionPut

__all__ = ["plain_overwrite", "plain_read"]

_OVERWRITTEN: Final = int(ChangeKind.OVERWRITTEN)
_make_tuple: Final = tuple.__new__


def plain_overwrite(state: State, command: Any) -> Result | None:
    """Execute a session's next command if it replaces a section by a page of bytes at most."""
    kind = type(command)
    if kind is not SectionPut and kind is not SectionOverwrite:
        return None
    data = command.data
    if type(data) is not bytes:
        return None
    number = command.session
    session = state.sessions.get(number)
    if session is None:
        return None
    replies = session.replies
    opened = session.handles.get(command.handle)
    sequence = command.sequence
    if opened is None or sequence != replies.last + 1 or replies.bytes:
        return None
    checkpoint, flags = opened
    size = len(data)
    if (
        checkpoint.guarded
        or not flags & WRITE
        or size > checkpoint.write_limit
        or size > PAGE_BYTES
    ):
        return None
    sections = checkpoint.sections
    section_id = command.section_id
    old = sections.get(section_id)
    if old is None:
        return None
    more = size - len(old[0])
    if more > 0 and (
        state.bounds.full
        or state.footprint + state.staged_bytes + more > state.bounds.memory
        or checkpoint.memory_used + more > checkpoint.size_limit
        or checkpoint.quotas is not None
    ):
        return None
    if command.answered > replies.answered:
        replies.forget(command.answered)
    if sequence - replies.answered > SEQUENCE_WINDOW:
        return None
    revision = state.revision = checkpoint.revision = state.revision + 1
    if more:
        state.grow(checkpoint, more)
    sections[section_id] = (data, old[1], state.now_ns, revision)
    state.changes.append((checkpoint.uid, revision, _OVERWRITTEN, number, section_id, data, None))
    result = _make_tuple(Result, (1, revision))
    replies.last = sequence
    replies.kept.append(result)
    return result


def plain_read(state: State, number: int | None, query: Read) -> Result | None:
    """Answer a read of one section, as a whole, of a page of bytes at most, through a handle."""
    session = state.sessions.get(number) if number is not None else None
    handle: Any = query.target
    opened = session.handles.get(handle) if session is not None else None
    if opened is None or len(query.vector) != 1:
        return None
    checkpoint, flags = opened
    if checkpoint.guarded or not flags & READ:
        return None
    section_id, offset, size = query.vector[0]
    section = checkpoint.sections.get(section_id)
    if section is None or offset:
        return None
    data = section[0]
    if type(data) is not bytes or not (
        size is None or len(data) <= size <= checkpoint.attributes.max_section_size
    ):
        return None
    return Result(1, [state.revision, [data]])
