"""Changes as users meet them; times in seconds since the epoch, durations in seconds (float)."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Final, NamedTuple

from raftckpt.client.types import Image, seconds_or_none
from raftckpt.model.changes import ChangeKind
from raftckpt.protocol.contract import SA_TIME_MAX

__all__ = ["Change", "Part", "change_from_wire"]

_KINDS: Final[dict[int, str]] = {int(kind): kind.name.lower() for kind in ChangeKind}
_NOTHING: Final[Mapping[bytes, float]] = {}


class Part(NamedTuple):
    """One of the things that a change did.

    Attributes:
        section: where.
        offset: of the data in the section.
        data: what was written; b"" for "deleted".
        kind: what happened, in a transaction: "created", "written", "overwritten" or "deleted".
        expires: when a section that was created in a transaction expires (None: never).
    """

    section: bytes
    offset: int
    data: bytes
    kind: str = ""
    expires: float | None = None


class Change(NamedTuple):
    """A committed change of a checkpoint.

    Attributes:
        kind: "image", "created", "written", "overwritten", "deleted", "expired",
            "expiration_set", "active_changed", "retention_set", "unlinked", "destroyed",
            "transaction" (several at once, in the order of its parts) or
            "resync" (an image, because the tracker was too far behind: it replaces everything).
        revision: of the change; for an image that of the state.
        session: whose command made it, or whose end did; 0: the cluster (a time ran out).
        section: the section it is about, if it is about exactly one.
        offset: where the data was written.
        data: what was written.
        parts: all data of the change: one part, several for a vector write, all sections for an
            image.
        expires: when the section expires, for "created" and "expiration_set" (None: never).
        expirations: for an image: section -> when it expires, if it does.
        active: for "active_changed" and images: (session, node) that is active, or None.
        epoch: likewise: the fencing epoch.
        exclusive: likewise: whether only ``owner`` may change anything.
        owner: likewise: session that set itself active last.
        retention: for "retention_set" and images; None: for ever.
        unlinked: for images: whether the name is gone.
    """

    kind: str
    revision: int
    session: int = 0
    section: bytes | None = None
    offset: int | None = None
    data: bytes | None = None
    parts: tuple[Part, ...] = ()
    expires: float | None = None
    expirations: Mapping[bytes, float] = _NOTHING
    active: tuple[int, str] | None = None
    epoch: int | None = None
    exclusive: bool | None = None
    owner: int | None = None
    retention: float | None = None
    unlinked: bool = False

    def __repr__(self) -> str:
        """Show what is set; large data by its size."""
        shown = [f"kind={self.kind!r}", f"revision={self.revision}"]
        defaults = self._field_defaults
        for name in self._fields[2:]:
            value = getattr(self, name)
            if name == "parts" and (len(value) > 3 or self.section is not None):
                value = f"<{len(value)}>"
            elif value == defaults[name]:
                continue
            text = repr(value)
            shown.append(f"{name}={text if len(text) <= 80 else text[:77] + '...'}")
        return f"Change({', '.join(shown)})"

    @property
    def is_image(self) -> bool:
        """Whether it tells all sections and replaces what was known before."""
        return self.kind in ("image", "resync")

    @property
    def image(self) -> Image:
        """The sections of an image as ``read_all()`` returns them."""
        sections = {part.section: part.data for part in self.parts} if self.is_image else {}
        return Image(sections, revision=self.revision)

    def apply_to(self, sections: MutableMapping[bytes, bytes]) -> None:
        """Carry the change out on a copy of the sections.

        Example::

            copy = {}
            for change in checkpoint.track():
                change.apply_to(copy)
        """
        kind = self.kind
        if kind in ("written", "created", "overwritten", "transaction"):
            for section, offset, data, part_kind, _ in self.parts:
                if part_kind == "deleted":
                    del sections[section]
                elif kind == "written" or part_kind == "written":
                    old = sections[section].ljust(offset, b"\0")
                    sections[section] = old[:offset] + data + old[offset + len(data) :]
                else:
                    sections[section] = data
        elif kind in ("deleted", "expired"):
            if self.section is not None:
                del sections[self.section]
        elif kind in ("image", "resync", "destroyed"):
            sections.clear()
            sections.update({part.section: part.data for part in self.parts})


def change_from_wire(fields: list[Any]) -> Change:
    """Make the record from a change that travelled.

    Raises:
        ValueError, TypeError, IndexError: it is malformed.
    """
    _, revision, number, session, section, data, detail = fields
    kind = _KINDS.get(number) or f"unknown_{number}"
    if number == ChangeKind.OVERWRITTEN or number == ChangeKind.CREATED:
        expires = seconds_or_none(detail) if number == ChangeKind.CREATED else None
        parts: tuple[Part, ...] = (Part(section, 0, data),)
        return Change(kind, revision, session, section, 0, data, parts, expires)
    if number == ChangeKind.WRITTEN:
        parts = tuple([Part(*part) for part in data])
        if len(parts) == 1:
            section, offset, data, *_ = parts[0]
            return Change(kind, revision, session, section, offset, data, parts)
        return Change(kind, revision, session, parts=parts)
    if number == ChangeKind.TRANSACTION:
        parts = tuple(
            [
                Part(section_id, offset, content, _KINDS[part_kind], seconds_or_none(expires))
                for part_kind, section_id, offset, content, expires in data
            ]
        )
        return Change(kind, revision, session, parts=parts)
    if number in (ChangeKind.IMAGE, ChangeKind.RESYNC):
        (active, epoch, exclusive, owner), retention_ns, unlinked = detail
        return Change(
            kind,
            revision,
            session,
            parts=tuple([Part(row[0], 0, row[1]) for row in data]),
            expirations={row[0]: row[2] / 1_000_000_000 for row in data if row[2] < SA_TIME_MAX},
            active=None if active is None else (active[0], active[1]),
            epoch=epoch,
            exclusive=exclusive,
            owner=owner,
            retention=seconds_or_none(retention_ns),
            unlinked=unlinked,
        )
    if number == ChangeKind.ACTIVE_CHANGED:
        active, epoch, exclusive, owner = detail
        return Change(
            kind,
            revision,
            session,
            active=None if active is None else (active[0], active[1]),
            epoch=epoch,
            exclusive=exclusive,
            owner=owner,
        )
    if number == ChangeKind.RETENTION_SET:
        return Change(kind, revision, session, retention=seconds_or_none(detail))
    if number == ChangeKind.EXPIRATION_SET:
        return Change(kind, revision, session, section, expires=seconds_or_none(detail))
    return Change(kind, revision, session, section, unlinked=number == ChangeKind.UNLINKED)
