"""Changes as users meet them; times in seconds since the epoch, durations in seconds (float)."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Final, NamedTuple

from raftckpt.client.types import Image, seconds_or_none
from raftckpt.errors import SectionNotExist
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
        """Carry the change out on a copy of the sections: all of it or nothing.

        Raises:
            SectionNotExist: the copy has not got a section that was written to: it is not what the
                changes before left behind. Track again, and begin with an image.

        Example::

            copy = {}
            for change in checkpoint.track():
                change.apply_to(copy)
        """
        if self.is_image or self.kind == "destroyed":
            sections.clear()
        became: dict[bytes, bytes | None] = {}
        if self.kind in ("deleted", "expired") and self.section is not None:
            became[self.section] = None
        for section, offset, data, kind, _ in self.parts:
            if kind == "deleted":
                became[section] = None
            elif "written" in (kind, self.kind):
                old = became[section] if section in became else sections.get(section)
                if old is None:
                    raise SectionNotExist(
                        f"revision {self.revision} writes to section {section!r}, which the copy "
                        "has not got: track again, and begin with an image",
                        reason="section_missing",
                        detail=section,
                    )
                became[section] = (
                    old[:offset].ljust(offset, b"\0") + data + old[offset + len(data) :]
                )
            else:
                became[section] = data
        for section, content in became.items():
            if content is None:
                sections.pop(section, None)  # gone from the copy, too, if it was there
            else:
                sections[section] = content


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
        activity, retention_ns, unlinked = detail
        return Change(
            kind,
            revision,
            session,
            parts=tuple([Part(row[0], 0, row[1]) for row in data]),
            expirations={row[0]: row[2] / 1_000_000_000 for row in data if row[2] < SA_TIME_MAX},
            **_activity(*activity),
            retention=seconds_or_none(retention_ns),
            unlinked=unlinked,
        )
    if number == ChangeKind.ACTIVE_CHANGED:
        return Change(kind, revision, session, **_activity(*detail))
    if number == ChangeKind.RETENTION_SET:
        return Change(kind, revision, session, retention=seconds_or_none(detail))
    if number == ChangeKind.EXPIRATION_SET:
        return Change(kind, revision, session, section, expires=seconds_or_none(detail))
    return Change(kind, revision, session, section, unlinked=number == ChangeKind.UNLINKED)


def _activity(active: Any, epoch: int, exclusive: bool, owner: int) -> dict[str, Any]:
    """Fields that say who is active."""
    pair = None if active is None else (active[0], active[1])
    return {"active": pair, "epoch": epoch, "exclusive": exclusive, "owner": owner}
