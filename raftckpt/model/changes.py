"""Changes: what the state machine tells about each revision it gives out.

A change is a plain tuple that refers to the bytes that are kept anyway: building one costs next to
nothing, and it is what travels to trackers as it is. The changes of the last batch stand in
``State.changes``; they are no part of the image. Replaying those of a checkpoint on what it held
before gives what it holds after (:func:`replay` says how).
"""

from __future__ import annotations

from collections.abc import MutableMapping
from enum import IntEnum
from typing import Any, TypeAlias

from raftckpt.model.values import Value, write_at

__all__ = ["Change", "ChangeKind", "replay"]

Change: TypeAlias = tuple[int, int, int, int, bytes | None, Any, Any]
"""(uid of the checkpoint, revision, kind, session, section id, data, detail).

``session`` is whose command made the change, or whose end did (it closed the checkpoint); 0: the
cluster itself (a section or a retention expired). ``data`` and ``detail`` depend on the kind.
"""


class ChangeKind(IntEnum):
    """What happened; numbers are part of the client protocol and never re-used."""

    IMAGE = 1
    """All sections. Sent to trackers only; data: rows of [id, data, expiration]."""
    CREATED = 2
    """A section was created; data: its content, detail: its expiration."""
    WRITTEN = 3
    """Parts of sections were written, at once; data: [[section id, offset, data], ...]."""
    OVERWRITTEN = 4
    """A section was replaced (its expiration stays); data: its content."""
    DELETED = 5
    EXPIRED = 6
    EXPIRATION_SET = 7
    """detail: the new expiration of the section."""
    ACTIVE_CHANGED = 8
    """detail: [[session, node] or None, epoch, exclusive, owner]."""
    RETENTION_SET = 9
    """detail: the new retention."""
    UNLINKED = 10
    """The name is gone; who has it open goes on."""
    DESTROYED = 11
    """The checkpoint is gone: its last change."""
    RESYNC = 12
    """As IMAGE, to a tracker that was too far behind: it replaces what the tracker had."""
    TRANSACTION = 13
    """Several changes at once, in order; data: [[kind, section id, offset, data, expiration], ...],
    kinds CREATED, WRITTEN, OVERWRITTEN, DELETED."""


def replay(sections: MutableMapping[bytes, tuple[Value, int]], change: Change) -> None:
    """Carry a change out on a copy of the sections: id -> (content, expiration)."""
    _, _, kind, _, section_id, data, detail = change
    if kind in (ChangeKind.IMAGE, ChangeKind.RESYNC):
        sections.clear()
        for row_id, content, expiration_ns in data:
            sections[row_id] = (content, expiration_ns)
    elif kind == ChangeKind.WRITTEN:
        for part_id, offset, part in data:
            content, expiration_ns = sections[part_id]
            sections[part_id] = (write_at(content, offset, part), expiration_ns)
    elif kind == ChangeKind.TRANSACTION:
        for part_kind, part_id, offset, part, expiration_ns in data:
            written = part_kind == ChangeKind.WRITTEN
            told = None if written else part_id, [(part_id, offset, part)] if written else part
            replay(sections, (*change[:2], part_kind, change[3], *told, expiration_ns))
    elif kind == ChangeKind.DESTROYED:
        sections.clear()
    elif section_id is None:
        pass  # it is about the checkpoint, not about its sections
    elif kind == ChangeKind.CREATED:
        sections[section_id] = (data, detail)
    elif kind == ChangeKind.OVERWRITTEN:
        sections[section_id] = (data, sections[section_id][1])
    elif kind == ChangeKind.EXPIRATION_SET:
        sections[section_id] = (sections[section_id][0], detail)
    else:
        del sections[section_id]
