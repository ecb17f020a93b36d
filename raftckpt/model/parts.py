"""Changes under a condition, appends, and transactions: several changes of a checkpoint, or none.

Everything is planned before anything is changed: the conditions are judged by the state before the
command, each part by what the parts before it make of that state. A refusal leaves no trace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from raftckpt.errors import SaAisError
from raftckpt.model.changes import ChangeKind
from raftckpt.model.checkpoints import SECTION_BYTES, Checkpoint
from raftckpt.model.sessions import HANDLE, Session
from raftckpt.model.state import State
from raftckpt.model.types import Result, refuse, success
from raftckpt.model.values import Value, store, write_at
from raftckpt.protocol.contract import SA_TIME_MAX, WRITE_BYTES_MAX
from raftckpt.protocol.kinds import PartKind
from raftckpt.protocol.operations import CheckpointTransaction, SectionChange

__all__ = ["section_change", "transaction"]

_Part: TypeAlias = Sequence[Any]
"""(kind, section id, offset, data, if revision, expiration, ttl): ``kinds.Part``."""

_CREATED: Final = int(ChangeKind.CREATED)
_WRITTEN: Final = int(ChangeKind.WRITTEN)
_OVERWRITTEN: Final = int(ChangeKind.OVERWRITTEN)
_DELETED: Final = int(ChangeKind.DELETED)
_EXPIRED: Final = int(ChangeKind.EXPIRED)
_TRANSACTION: Final = int(ChangeKind.TRANSACTION)


class _No(Exception):
    """A part is refused: nothing happens."""

    def __init__(
        self, code: SaAisError, reason: str, detail: Any = None, position: int | None = None
    ) -> None:
        self.result = refuse(code, reason, detail, position)


class _Plan:
    """What the parts so far make of a checkpoint.

    Attributes:
        content: id -> (content, expiration) of each section they touch, new ones in the order of
            their creation; None: deleted.
        more: bytes by which all of it grows, records of sections apart.
        gone: sections of the state before that they delete, whatever comes in their place.
        told: what trackers are told of each part: (kind, id, offset, data, expiration or None).
        results: what each part returns: an id that was chosen, an offset, or None.
    """

    def __init__(self, checkpoint: Checkpoint, now_ns: int) -> None:
        self.checkpoint = checkpoint
        self.now_ns = now_ns
        self.position: int | None = None
        self.content: dict[bytes, tuple[Value, int] | None] = {}
        self.gone: dict[bytes, None] = {}
        self.sections = len(checkpoint.sections)
        self.more = 0
        self.told: list[tuple[int, bytes, int, Value, int | None]] = []
        self.results: list[Any] = []

    def find(self, section_id: bytes) -> tuple[Value, int] | None:
        """A section as the parts so far leave it, None if there is none."""
        if section_id in self.content:
            return self.content[section_id]
        old = self.checkpoint.sections.get(section_id)
        return None if old is None else (old[0], old[1])

    def existing(self, section_id: bytes) -> tuple[Value, int]:
        """A section that must be there."""
        found = self.find(section_id)
        if found is None:
            raise _No(SaAisError.ERR_NOT_EXIST, "section_missing", section_id, self.position)
        return found

    def readable(self, section_id: bytes) -> Value:
        """The content of a section that is not CORRUPTED, or was replaced by a part before."""
        if section_id not in self.content and section_id in self.checkpoint.corrupted:
            raise _No(SaAisError.ERR_BAD_OPERATION, "corrupted", section_id, self.position)
        return self.existing(section_id)[0]

    def refuse_default(self, code: SaAisError) -> None:
        """The default section is neither created nor deleted."""
        if self.checkpoint.has_default_section:
            raise _No(code, "default_section", None, self.position)

    def add(self, section_id: bytes, data: Value, expiration_ns: int) -> None:
        """Create a section."""
        attributes = self.checkpoint.attributes
        longest = attributes.max_section_id_size
        if not 0 < len(section_id) <= longest:
            raise _No(SaAisError.ERR_INVALID_PARAM, "section_id", longest, self.position)
        if self.sections >= attributes.max_sections:
            most = attributes.max_sections
            raise _No(SaAisError.ERR_NO_SPACE, "sections_full", most, self.position)
        data = store(data)
        self.sections += 1
        self.more += len(data)
        self.content.pop(section_id, None)  # one that was deleted: this is another one
        self.content[section_id] = (data, expiration_ns)
        self.told.append((_CREATED, section_id, 0, data, expiration_ns))

    def write(self, section_id: bytes, offset: int, data: Value) -> None:
        """Write into a section at an offset."""
        old = self.readable(section_id)
        limit = self.checkpoint.section_limit
        if offset + len(data) > limit:
            raise _No(SaAisError.ERR_NO_RESOURCES, "section_too_big", limit, self.position)
        self.more += max(0, offset + len(data) - len(old))
        self.content[section_id] = (write_at(old, offset, data), self.existing(section_id)[1])
        self.told.append((_WRITTEN, section_id, offset, data, None))

    def replace(self, section_id: bytes, data: Value) -> None:
        """Replace the content of a section; its expiration stays."""
        data = store(data)
        old, expiration_ns = self.existing(section_id)
        self.more += len(data) - len(old)
        self.content[section_id] = (data, expiration_ns)
        self.told.append((_OVERWRITTEN, section_id, 0, data, None))

    def remove(self, section_id: bytes) -> None:
        """Delete a section."""
        self.more -= len(self.existing(section_id)[0])
        if section_id in self.checkpoint.sections:
            self.gone[section_id] = None
        self.content[section_id] = None
        self.sections -= 1
        self.told.append((_DELETED, section_id, 0, b"", None))

    def unused_id(self) -> bytes:
        """Choose an id that no section has."""
        chosen = self.checkpoint.next_section_id(self.find, self.sections)
        if chosen is None:  # short ids: all of them are taken
            raise _No(SaAisError.ERR_NO_SPACE, "sections_full", self.sections, self.position)
        return chosen


def _create(plan: _Plan, part: _Part) -> Any:
    _, section_id, _, data, _, expiration_ns, ttl_ns = part
    plan.refuse_default(SaAisError.ERR_EXIST)
    chosen = plan.unused_id() if section_id is None else None
    section_id = section_id if chosen is None else chosen
    if plan.find(section_id) is not None:
        raise _No(SaAisError.ERR_EXIST, "section_exists", section_id, plan.position)
    due_ns = expiration_ns if ttl_ns is None else min(plan.now_ns + ttl_ns, SA_TIME_MAX)
    plan.add(section_id, data, due_ns)
    return chosen


def _put(plan: _Plan, part: _Part) -> Any:
    if plan.find(part[1]) is None:
        plan.add(part[1], part[3], SA_TIME_MAX)
    else:
        plan.replace(part[1], part[3])


def _overwrite(plan: _Plan, part: _Part) -> Any:
    plan.replace(part[1], part[3])


def _write(plan: _Plan, part: _Part) -> Any:
    plan.write(part[1], part[2], part[3])


def _append(plan: _Plan, part: _Part) -> Any:
    section_id, data = part[1], part[3]
    if plan.find(section_id) is None:
        plan.add(section_id, data, SA_TIME_MAX)
        return 0
    offset = len(plan.readable(section_id))
    plan.write(section_id, offset, data)
    return offset


def _delete(plan: _Plan, part: _Part) -> Any:
    plan.refuse_default(SaAisError.ERR_INVALID_PARAM)
    plan.remove(part[1])


_PARTS: Final[dict[int, Callable[[_Plan, _Part], Any]]] = {
    PartKind.CREATE: _create,
    PartKind.PUT: _put,
    PartKind.OVERWRITE: _overwrite,
    PartKind.WRITE: _write,
    PartKind.APPEND: _append,
    PartKind.DELETE: _delete,
}


def _planned(
    checkpoint: Checkpoint, now_ns: int, parts: Sequence[_Part], *, several: bool
) -> _Plan:
    """Plan parts.

    Raises:
        _No: a condition does not hold, else a part cannot be done.
    """
    for position, part in enumerate(parts):
        wanted = part[4]
        if wanted is not None:
            old = checkpoint.sections.get(part[1])
            found = 0 if old is None else old[3]
            if found != wanted:
                at = position if several else None
                raise _No(SaAisError.ERR_BAD_OPERATION, "conflict", found, at)
    if sum(len(part[3]) for part in parts) > WRITE_BYTES_MAX:
        raise _No(SaAisError.ERR_NO_RESOURCES, "limit", "bytes of a transaction")
    plan = _Plan(checkpoint, now_ns)
    for position, part in enumerate(parts):
        plan.position = position if several else None
        refusal = checkpoint.refuse_size(len(part[3]), plan.position)
        if refusal is not None:
            raise _No(SaAisError(refusal.code), *refusal.value)
        plan.results.append(_PARTS[part[0]](plan, part))
    return plan


def _carry_out(state: State, plan: _Plan, revision: int) -> None:
    """Make the sections what the plan says, at a revision that was taken."""
    checkpoint = plan.checkpoint
    sections = checkpoint.sections
    for section_id in plan.gone:
        state.drop_section(checkpoint, section_id)
    past = []
    for section_id, planned in plan.content.items():
        if planned is None:
            continue
        content, due_ns = planned
        old = sections.get(section_id)
        if old is None:
            state.grow(checkpoint, len(content), 1)
            if due_ns < SA_TIME_MAX:
                state.due.schedule(due_ns, checkpoint.uid, section_id)
            if due_ns <= state.now_ns:
                past.append(section_id)
        else:
            state.grow(checkpoint, len(content) - len(old[0]))
            checkpoint.mend(section_id)
        sections[section_id] = (content, due_ns, state.now_ns, revision)
    for section_id in past:  # a past time is accepted, and expires at once
        state.remove_section(checkpoint, section_id, _EXPIRED, 0)


def _begin(
    state: State, session: Session, handle: int, parts: Sequence[_Part], *, several: bool
) -> Result | _Plan:
    opened = session.handles.get(handle)
    if opened is None:
        return HANDLE
    checkpoint, flags = opened
    refusal = checkpoint.refuse_change(flags, session.id) or checkpoint.refuse_inactive()
    if refusal is not None:
        return refusal
    generated = checkpoint.generated
    try:
        plan = _planned(checkpoint, state.now_ns, parts, several=several)
    except _No as no:
        checkpoint.generated = generated
        return no.result
    sections = plan.sections - len(checkpoint.sections)
    refused = checkpoint.refuse_more(plan.more, sections) or state.refuse_growth(
        plan.more + SECTION_BYTES * sections
    )
    if refused is not None:
        checkpoint.generated = generated
        return refused
    return plan


def section_change(state: State, session: Session, c: SectionChange) -> Result:
    """One change of a section, if its condition holds; trackers are told as of any other."""
    plan = _begin(state, session, c.handle, [c.part], several=False)
    if not isinstance(plan, _Plan):
        return plan
    ((kind, section_id, offset, data, expiration_ns),) = plan.told
    if kind == _WRITTEN:
        written = [(section_id, offset, data)]
        revision = state.revise(plan.checkpoint, kind, session.id, None, written)
    else:
        kept = None if kind == _DELETED else data
        revision = state.revise(plan.checkpoint, kind, session.id, section_id, kept, expiration_ns)
    _carry_out(state, plan, revision)
    return success([revision, plan.results[0]])


def transaction(state: State, session: Session, c: CheckpointTransaction) -> Result:
    """Several changes of a checkpoint, all or nothing, under one revision."""
    plan = _begin(state, session, c.handle, c.parts, several=True)
    if not isinstance(plan, _Plan):
        return plan
    revision = state.revise(plan.checkpoint, _TRANSACTION, session.id, None, plan.told)
    _carry_out(state, plan, revision)
    return success([revision, plan.results])
