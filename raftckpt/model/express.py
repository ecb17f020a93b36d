"""The express lane: the two operations that make up the load, each in one function.

Both only ever say yes. Whatever is not exactly the plain case (a strange type, another order, a
missing section, a refusal of any kind) is None, and goes the way of all other operations, where
the rules are and the reasons for refusals. What a yes does must be what that way would have done.
"""

from __future__ import annotations

from typing import Any, Final

from raftckpt.limits import PAGE_BYTES, SEQUENCE_WINDOW
from raftckpt.model.changes import ChangeKind
from raftckpt.model.checkpoints import READ, WRITE
from raftckpt.model.commands import Tag
from raftckpt.model.state import State
from raftckpt.model.types import Result

__all__ = ["plain_overwrite", "plain_read"]

_PUT: Final = int(Tag.SECTION_PUT)
_OVERWRITE: Final = int(Tag.SECTION_OVERWRITE)
_OVERWRITTEN: Final = int(ChangeKind.OVERWRITTEN)
_make_tuple: Final = tuple.__new__


def plain_overwrite(state: State, command: Any) -> Result | None:
    """Execute a session's next command if it replaces a section by a page of bytes at most."""
    if type(command) is not list or len(command) != 7:
        return None
    tag, number, sequence, answered, handle, section_id, data = command
    if (
        (tag != _PUT and tag != _OVERWRITE)
        or type(data) is not bytes
        or type(section_id) is not bytes
        or not type(tag) is type(number) is type(sequence) is type(answered) is type(handle) is int
    ):
        return None
    session = state.sessions.get(number)
    if session is None:
        return None
    replies = session.replies
    opened = session.handles.get(handle)
    if opened is None or sequence != replies.last + 1:
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
    old = sections.get(section_id)
    if old is None:
        return None
    if answered > replies.answered:
        replies.forget(answered)
    if sequence - replies.answered > SEQUENCE_WINDOW:
        return None
    revision = state.revision = checkpoint.revision = state.revision + 1
    checkpoint.memory_used += size - len(old[0])
    sections[section_id] = (data, old[1], state.now_ns, revision)
    state.changes.append((checkpoint.uid, revision, _OVERWRITTEN, number, section_id, data, None))
    result = _make_tuple(Result, (1, revision))
    replies.last = sequence
    replies.kept.append(result)
    return result


def plain_read(state: State, number: int | None, handle: Any, vector: Any) -> Result | None:
    """Answer a read of one section, as a whole, of a page of bytes at most, through a handle."""
    session = state.sessions.get(number) if type(number) is int else None
    opened = session.handles.get(handle) if session is not None and type(handle) is int else None
    if opened is None or type(vector) is not list or len(vector) != 1:
        return None
    checkpoint, flags = opened
    element = vector[0]
    if checkpoint.guarded or not flags & READ or type(element) is not list or len(element) != 3:
        return None
    section_id, offset, size = element
    section = checkpoint.sections.get(section_id) if type(section_id) is bytes else None
    if section is None or type(offset) is not int or offset != 0:
        return None
    data = section[0]
    if type(data) is not bytes or not (
        size is None
        or (type(size) is int and len(data) <= size <= checkpoint.attributes.max_section_size)
    ):
        return None
    return Result(1, [state.revision, [data]])
