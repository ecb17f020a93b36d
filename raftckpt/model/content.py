"""Commands about sections and their data.

Each function is ``(state, session, command, dry) -> Result``; ``dry`` stops before the first change
(the leader asks whether it may accept early). Fields are within their bounds, a stage number in the
place of data has been replaced by its value. Checks are made in the order of OpenSAF: what the
standard leaves open, applications have come to know from it.
"""

from __future__ import annotations

from typing import Any, Final

from raftckpt.errors import SaAisError
from raftckpt.model.changes import ChangeKind
from raftckpt.model.checkpoints import SECTION_BYTES, WRITE, Checkpoint
from raftckpt.model.sessions import HANDLE, Session
from raftckpt.model.state import State
from raftckpt.model.types import Result, refuse, success
from raftckpt.model.values import Value, store, write_at
from raftckpt.protocol.contract import PAGE_BYTES, SA_TIME_MAX
from raftckpt.protocol.operations import (
    CheckpointWrite,
    SectionCorrupt,
    SectionCreate,
    SectionDelete,
    SectionExpirationSet,
    SectionOverwrite,
    SectionPut,
)

__all__ = [
    "checkpoint_write",
    "section_corrupt",
    "section_create",
    "section_delete",
    "section_expiration_set",
    "section_overwrite",
    "section_put",
]

_OK: Final = success()
_NO_ID: Final = refuse(SaAisError.ERR_INVALID_PARAM, "param", "section_id")
_DEFAULT_SECTION: Final = refuse(SaAisError.ERR_INVALID_PARAM, "default_section")
_make_tuple: Final = tuple.__new__
_CREATED: Final = int(ChangeKind.CREATED)
_WRITTEN: Final = int(ChangeKind.WRITTEN)
_OVERWRITTEN: Final = int(ChangeKind.OVERWRITTEN)
_DELETED: Final = int(ChangeKind.DELETED)
_EXPIRED: Final = int(ChangeKind.EXPIRED)
_EXPIRATION_SET: Final = int(ChangeKind.EXPIRATION_SET)


def _missing(section_id: bytes, position: int | None = None) -> Result:
    return refuse(SaAisError.ERR_NOT_EXIST, "section_missing", section_id, position)


def _refuse_write(checkpoint: Checkpoint, flags: int, session: Session, size: int) -> Result | None:
    """Right, fence, size, active replica: in this order (as ``saCkptSectionOverwrite``)."""
    return (
        checkpoint.refuse_change(flags, session.id)
        or checkpoint.refuse_size(size)
        or checkpoint.refuse_inactive()
    )


# --- the hot path: 100 bytes replace 100 bytes ---------------------------------------------------


def section_overwrite(
    state: State, session: Session, c: SectionOverwrite, dry: bool = False
) -> Result:
    """``saCkptSectionOverwrite``: replace the whole contents."""
    opened = session.handles.get(c.handle)
    if opened is None:
        return HANDLE
    checkpoint, flags = opened
    section_id = c.section_id
    data: Any = c.data
    size = len(data)
    if not flags & WRITE or checkpoint.guarded or size > checkpoint.write_limit:
        refusal = _refuse_write(checkpoint, flags, session, size)
        if refusal is not None:
            return refusal
    old = checkpoint.sections.get(section_id)
    if old is None:
        return _missing(section_id)
    if size > len(old[0]):
        refusal = _refuse_room(state, checkpoint, size - len(old[0]))
        if refusal is not None:
            return refusal
    if dry:
        return _OK
    if checkpoint.corrupted:
        checkpoint.mend(section_id)
    return _replace(state, checkpoint, session.id, section_id, old, data, size)


def section_put(state: State, session: Session, c: SectionPut, dry: bool = False) -> Result:
    """Overwrite the section, or create it without expiration if it is missing."""
    opened = session.handles.get(c.handle)
    if opened is None:
        return HANDLE
    checkpoint, flags = opened
    section_id = c.section_id
    data: Any = c.data
    size = len(data)
    if not flags & WRITE or checkpoint.guarded or size > checkpoint.write_limit:
        refusal = _refuse_write(checkpoint, flags, session, size)
        if refusal is not None:
            return refusal
    old = checkpoint.sections.get(section_id)
    if old is not None:
        if size > len(old[0]):
            refusal = _refuse_room(state, checkpoint, size - len(old[0]))
            if refusal is not None:
                return refusal
        if dry:
            return _OK
        if checkpoint.corrupted:
            checkpoint.mend(section_id)
        return _replace(state, checkpoint, session.id, section_id, old, data, size)
    refusal = (
        _refuse_id(checkpoint, section_id)
        or _refuse_more(checkpoint)
        or _refuse_room(state, checkpoint, size, 1)
    )
    if refusal is not None:
        return refusal
    if dry:
        return _OK
    return success(_add(state, checkpoint, session.id, section_id, data, SA_TIME_MAX))


def _replace(
    state: State,
    checkpoint: Checkpoint,
    session: int,
    section_id: bytes,
    old: tuple[Value, int, int, int],
    data: Value,
    size: int,
) -> Result:
    revision = state.revision = checkpoint.revision = state.revision + 1
    state.grow(checkpoint, size - len(old[0]))
    if size > PAGE_BYTES:
        data = store(data)
    checkpoint.sections[section_id] = (data, old[1], state.now_ns, revision)
    state.changes.append((checkpoint.uid, revision, _OVERWRITTEN, session, section_id, data, None))
    return _make_tuple(Result, (1, revision))


def _add(
    state: State,
    checkpoint: Checkpoint,
    session: int,
    section_id: bytes,
    data: Value,
    expiration_ns: int,
) -> int:
    """Insert a section; returns the revision."""
    data = store(data)
    revision = state.revise(checkpoint, _CREATED, session, section_id, data, expiration_ns)
    checkpoint.sections[section_id] = (data, expiration_ns, state.now_ns, revision)
    state.grow(checkpoint, len(data), 1)
    if expiration_ns < SA_TIME_MAX:
        state.due.schedule(expiration_ns, checkpoint.uid, section_id)
    return revision


def _refuse_id(checkpoint: Checkpoint, section_id: bytes) -> Result | None:
    """Ids of created sections have 1..max_section_id_size bytes."""
    longest = checkpoint.attributes.max_section_id_size
    if 0 < len(section_id) <= longest:
        return None
    return refuse(SaAisError.ERR_INVALID_PARAM, "section_id", longest)


def _refuse_more(checkpoint: Checkpoint) -> Result | None:
    """NO_SPACE if the checkpoint holds as many sections as it may."""
    most = checkpoint.attributes.max_sections
    if len(checkpoint.sections) < most:
        return None
    return refuse(SaAisError.ERR_NO_SPACE, "sections_full", most)


def _refuse_room(
    state: State, checkpoint: Checkpoint, more: int, sections: int = 0, *, promised: bool = True
) -> Result | None:
    """NO_SPACE if so many bytes and sections more have no room, in quotas or memory.

    ``promised``: it may have been accepted early if the checkpoint is asynchronous: then it has the
    reserve of the memory, too.
    """
    promised = promised and checkpoint.attributes.asynchronous
    return checkpoint.refuse_more(more, sections) or state.refuse_growth(
        more + SECTION_BYTES * sections, promised=promised
    )


# --- structure -----------------------------------------------------------------------------------


def section_create(state: State, session: Session, c: SectionCreate) -> Result:
    """``saCkptSectionCreate``."""
    section_id = c.section_id
    data: Any = c.data
    opened = session.handles.get(c.handle)
    if opened is None:
        return HANDLE
    checkpoint, flags = opened
    refusal = checkpoint.refuse_change(flags, session.id)
    if refusal is None and section_id is not None:
        refusal = _refuse_id(checkpoint, section_id)
    refusal = refusal or checkpoint.refuse_inactive() or checkpoint.refuse_size(len(data))
    if refusal is None and checkpoint.has_default_section:
        refusal = refuse(SaAisError.ERR_EXIST, "default_section")
    if refusal is None and section_id in checkpoint.sections:
        refusal = refuse(SaAisError.ERR_EXIST, "section_exists", section_id)
    refusal = (
        refusal
        or _refuse_more(checkpoint)
        or _refuse_room(state, checkpoint, len(data), 1, promised=False)
    )
    if refusal is not None:
        return refusal
    if section_id is None:
        section_id = checkpoint.next_section_id()
        if section_id is None:  # short ids: all of them are taken
            return refuse(SaAisError.ERR_NO_SPACE, "sections_full", len(checkpoint.sections))
    due_ns = _due(state, c)
    revision = _add(state, checkpoint, session.id, section_id, data, due_ns)
    if due_ns <= state.now_ns:  # a past time is accepted, and expires at once
        state.remove_section(checkpoint, section_id, _EXPIRED, 0)
    return success([revision, section_id])


def section_delete(state: State, session: Session, c: SectionDelete) -> Result:
    """``saCkptSectionDelete``."""
    if not c.section_id:
        return _NO_ID
    opened = session.handles.get(c.handle)
    if opened is None:
        return HANDLE
    checkpoint, flags = opened
    refusal = checkpoint.refuse_change(flags, session.id) or checkpoint.refuse_inactive()
    if refusal is not None:
        return refusal
    if checkpoint.has_default_section:
        return _DEFAULT_SECTION
    if c.section_id not in checkpoint.sections:
        return _missing(c.section_id)
    return success(state.remove_section(checkpoint, c.section_id, _DELETED, session.id))


def section_expiration_set(state: State, session: Session, c: SectionExpirationSet) -> Result:
    """``saCkptSectionExpirationTimeSet``; a time in the past is refused."""
    section_id = c.section_id
    opened = session.handles.get(c.handle)
    if opened is None:
        return HANDLE
    checkpoint, flags = opened
    refusal = checkpoint.refuse_change(flags, session.id)
    if refusal is not None:
        return refusal
    due_ns = _due(state, c)
    if due_ns < state.now_ns:
        return refuse(SaAisError.ERR_INVALID_PARAM, "time_past")
    refusal = checkpoint.refuse_inactive()
    if refusal is not None:
        return refusal
    if checkpoint.has_default_section:
        return _DEFAULT_SECTION
    old = checkpoint.sections.get(section_id)
    if old is None:
        return _missing(section_id)
    refusal = checkpoint.refuse_corrupted(section_id)
    if refusal is not None:
        return refusal
    revision = state.revise(checkpoint, _EXPIRATION_SET, session.id, section_id, None, due_ns)
    checkpoint.sections[section_id] = (old[0], due_ns, old[2], revision)
    if due_ns < SA_TIME_MAX:
        state.due.schedule(due_ns, checkpoint.uid, section_id)
    elif old[1] < SA_TIME_MAX:
        state.due.cancel(checkpoint.uid, section_id)
    return success(revision)


def _due(state: State, c: SectionCreate | SectionExpirationSet) -> int:
    """When the section expires: absolute, or from the time of apply on."""
    return c.expiration_ns if c.ttl_ns is None else min(state.now_ns + c.ttl_ns, SA_TIME_MAX)


def section_corrupt(state: State, session: Session, c: SectionCorrupt) -> Result:
    """Fault injection: the section becomes CORRUPTED. It takes a revision."""
    section_id = c.section_id
    opened = session.handles.get(c.handle)
    if opened is None:
        return HANDLE
    checkpoint, flags = opened
    refusal = checkpoint.refuse_change(flags, session.id) or checkpoint.refuse_inactive()
    if refusal is not None:
        return refusal
    old = checkpoint.sections.get(section_id)
    if old is None:
        return _missing(section_id)
    refusal = checkpoint.corrupt(section_id)
    if refusal is not None:
        return refusal
    revision = state.revision = checkpoint.revision = state.revision + 1
    checkpoint.sections[section_id] = (
        *old[:3],
        revision,
    )  # trackers are not told: no content changed
    return success(revision)


# --- vectors -------------------------------------------------------------------------------------


def checkpoint_write(
    state: State, session: Session, c: CheckpointWrite, dry: bool = False
) -> Result:
    """``saCkptCheckpointWrite``: all elements in their order, or none."""
    vector: list[Any] = c.vector
    opened = session.handles.get(c.handle)
    if opened is None:
        return HANDLE
    checkpoint, flags = opened
    refusal = _refuse_vector(checkpoint, flags, session, vector) or _refuse_room(
        state, checkpoint, _growth(checkpoint, vector)
    )
    if refusal is not None:
        return refusal
    if dry:
        return _OK
    written: dict[bytes, Value] = {}
    for section_id, offset, data in vector:
        value = written.get(section_id)
        if value is None:
            value = checkpoint.sections[section_id][0]
        written[section_id] = write_at(value, offset, data)
    revision = state.revise(checkpoint, _WRITTEN, session.id, None, vector)
    for section_id, value in written.items():
        old = checkpoint.sections[section_id]
        state.grow(checkpoint, len(value) - len(old[0]))
        checkpoint.sections[section_id] = (value, old[1], state.now_ns, revision)
    return success(revision)


def _refuse_vector(
    checkpoint: Checkpoint, flags: int, session: Session, vector: list[Any]
) -> Result | None:
    limit = checkpoint.write_limit
    for position, (_, _, data) in enumerate(vector):
        if len(data) > limit:
            return checkpoint.refuse_size(len(data), position)
    if not flags & WRITE or checkpoint.guarded:
        refusal = checkpoint.refuse_change(flags, session.id) or checkpoint.refuse_inactive()
        if refusal is not None:
            return refusal
    limit = checkpoint.section_limit
    for position, (section_id, offset, data) in enumerate(vector):
        if section_id not in checkpoint.sections:
            return _missing(section_id, position)
        if offset + len(data) > limit:
            return refuse(SaAisError.ERR_NO_RESOURCES, "section_too_big", limit, position)
        if checkpoint.corrupted:
            refusal = checkpoint.refuse_corrupted(section_id, position)
            if refusal is not None:
                return refusal
    return None


def _growth(checkpoint: Checkpoint, vector: list[Any]) -> int:
    """Bytes that the sections of a vector that is not refused grow by."""
    sections = checkpoint.sections
    ends: dict[bytes, int] = {}
    for section_id, offset, data in vector:
        end = ends.get(section_id)
        before = len(sections[section_id][0]) if end is None else end
        ends[section_id] = max(before, offset + len(data))
    return sum(end - len(sections[section_id][0]) for section_id, end in ends.items())
