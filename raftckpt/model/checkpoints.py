"""One checkpoint: its attributes, sections, openers, active replica and fence.

Owns what can be said about a checkpoint alone. Names, due times, revisions and sessions belong to
the state around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from raftckpt.errors import SaAisError
from raftckpt.model.access import READING, WRITING, not_granted
from raftckpt.model.quotas import SpaceQuotas
from raftckpt.model.types import CreationAttributes, CreationFlags, Result, refuse
from raftckpt.model.values import Value
from raftckpt.protocol.contract import (
    CORRUPTED_SECTIONS_MAX,
    SA_TIME_MAX,
    SECTION_BYTES_MAX,
    WRITE_BYTES_MAX,
)
from raftckpt.protocol.kinds import B01, CREATE, READ, WRITE

__all__ = [
    "B01",
    "CHECKPOINT_BYTES",
    "CREATE",
    "DEPOSED",
    "FENCED",
    "NO_READ",
    "NO_WRITE",
    "READ",
    "SECTION_BYTES",
    "WANTED",
    "WRITE",
    "Checkpoint",
    "Section",
]

CHECKPOINT_BYTES: Final = 4096
"""Rough memory of a checkpoint without sections, with a long name."""
SECTION_BYTES: Final = 384
"""Rough memory of a section beside its content, with an id of usual length (measured: 350)."""

FENCED: Final = 0x8
"""In the place of WRITE while the session of the handle is fenced: the hot path asks no more."""
# bits that no flag of the standard has (1, 2, 4), nor FENCED, nor B01 (0x10)
NO_READ: Final = 0x20
NO_WRITE: Final = 0x40
"""Flags of a handle whose principal is not granted it; the bit of what was wanted is not there."""
WANTED: Final = 8
"""The flags with which a handle was opened are kept above so many bits, for when it is granted."""

Section: TypeAlias = tuple[Value, int, int, int]
"""(data, expiration in ns, last update in ns, revision of the last change).

A plain tuple, not a named one: a million of them cost the garbage collector nothing (it stops
tracking exact tuples of untracked things) and building one takes a tenth of the time.
"""

_UPDATE: Final = int(
    CreationFlags.WR_ALL_REPLICAS
    | CreationFlags.WR_ACTIVE_REPLICA
    | CreationFlags.WR_ACTIVE_REPLICA_WEAK
)
_COLLOCATED: Final = int(CreationFlags.COLLOCATED)
_QUOTA: Final = int(CreationFlags.QUOTA)
_NOT_READER: Final = refuse(SaAisError.ERR_ACCESS, "no_right", "reading")
_NOT_WRITER: Final = refuse(SaAisError.ERR_ACCESS, "no_right", "writing")
_READ_NOT_GRANTED: Final = not_granted(READING)
_WRITE_NOT_GRANTED: Final = not_granted(WRITING)
DEPOSED: Final = refuse(SaAisError.ERR_ACCESS, "deposed")
_NO_ACTIVE: Final = refuse(SaAisError.ERR_NOT_EXIST, "no_active")


class Checkpoint:
    """State of one generation of a checkpoint name.

    Attributes:
        uid: number of this generation, never used again.
        attributes: creation attributes with the current retention.
        revision: of the last change.
        sections: in the order of their creation, which is a function of history.
        memory_used: bytes in all sections.
        openers: session id -> [handles, of which READ, of which WRITE].
        nodes: node -> number of its sessions that have the checkpoint open.
        active: (session, node) that made itself active, while that node has an opener.
        owner: session that set itself active exclusively last; stays when it dies.
        epoch: fencing epoch, grows with each change of active, owner or exclusiveness by a set.
        exclusive: only the owner may change anything.
        unlinked: the name is gone, the last close destroys it.
        retention_until_ns: when it will be dropped; None while it is open, SA_TIME_MAX for never.
        generated: candidate number of the next generated section id.
        corrupted: sections in the state CORRUPTED; replaced as a whole, so that whoever lists the
            sections may keep it.
        guarded: writes need a closer look (exclusive, an active replica is missing, or there are
            corrupted sections).
        write_limit: most bytes one element may write.
        section_limit: longest section.
        size_limit: most bytes in all sections: ``attributes.size`` where that is a quota.
        quotas: of the space that decides on its name; None: it has none.
    """

    __slots__ = (
        "active",
        "attributes",
        "corrupted",
        "created_ns",
        "epoch",
        "exclusive",
        "generated",
        "guarded",
        "memory_used",
        "name",
        "nodes",
        "openers",
        "owner",
        "quotas",
        "retention_until_ns",
        "revision",
        "section_limit",
        "sections",
        "size_limit",
        "uid",
        "unlinked",
        "write_limit",
    )

    def __init__(
        self, uid: int, name: str, attributes: CreationAttributes, created_ns: int, revision: int
    ) -> None:
        self.uid = uid
        self.name = name
        self.attributes = attributes
        self.created_ns = created_ns
        self.revision = revision
        self.sections: dict[bytes, Section] = {}
        self.memory_used = 0
        self.openers: dict[int, list[int]] = {}
        self.nodes: dict[str, int] = {}
        self.active: tuple[int, str] | None = None
        self.owner = 0
        self.epoch = 0
        self.exclusive = False
        self.unlinked = False
        self.retention_until_ns: int | None = None
        self.generated = 0
        self.corrupted: frozenset[bytes] = frozenset()
        self.write_limit = min(attributes.max_section_size, WRITE_BYTES_MAX)
        self.section_limit = min(attributes.max_section_size, SECTION_BYTES_MAX)
        self.size_limit = attributes.size if attributes.flags & _QUOTA else SA_TIME_MAX
        self.quotas: SpaceQuotas | None = None
        self.guarded = self.needs_active

    @property
    def needs_active(self) -> bool:
        """Whether it can be without an active replica (collocated and asynchronous)."""
        return self.attributes.asynchronous and self.attributes.collocated

    @property
    def has_default_section(self) -> bool:
        """Whether it has exactly the default section (max_sections is 1)."""
        return self.attributes.max_sections == 1

    def add_default_section(self, now_ns: int) -> None:
        """Make the section every checkpoint with max_sections 1 has from its creation."""
        self.sections[b""] = (b"", SA_TIME_MAX, now_ns, self.revision)

    def differences(self, other: CreationAttributes, *, retention: bool = False) -> list[str]:
        """Name the creation attributes that differ.

        Arguments:
            other: what is to be compared.
            retention: compare it, too; it can be set later, so only B.01 wants that.
        """
        mine = self.attributes
        differ = mine.flags ^ other.flags
        names = []
        if differ & _UPDATE:
            names.append("update")
        if differ & _COLLOCATED:
            names.append("collocated")
        for field in ("size", "max_sections", "max_section_size", "max_section_id_size"):
            if getattr(mine, field) != getattr(other, field):
                names.append(field)
        if retention and mine.retention_ns != other.retention_ns:
            names.append("retention")
        return names

    # --- who may do what --------------------------------------------------------------

    def refuse_reader(self, flags: int) -> Result | None:
        """ACCESS unless the handle may read."""
        if flags & READ:
            return None
        return _READ_NOT_GRANTED if flags & NO_READ else _NOT_READER

    def refuse_writer(self, flags: int) -> Result | None:
        """ACCESS unless the handle may write, whoever owns the checkpoint."""
        if flags & WRITE:
            return None
        if flags & NO_WRITE:
            return _WRITE_NOT_GRANTED
        return DEPOSED if flags & FENCED else _NOT_WRITER

    def refuse_change(self, flags: int, session: int) -> Result | None:
        """ACCESS unless the handle may write and no other session fenced the checkpoint."""
        if not flags & WRITE:
            return self.refuse_writer(flags)
        if self.exclusive and self.owner != session:
            return refuse(SaAisError.ERR_ACCESS, "fenced", self.epoch)
        return None

    def refuse_inactive(self) -> Result | None:
        """NOT_EXIST if there is no active replica."""
        return _NO_ACTIVE if self.active is None and self.needs_active else None

    @property
    def footprint(self) -> int:
        """Rough bytes of memory it takes."""
        return CHECKPOINT_BYTES + self.memory_used + SECTION_BYTES * len(self.sections)

    def refuse_size(self, size: int, position: int | None = None) -> Result | None:
        """INVALID_PARAM beyond max_section_size, NO_RESOURCES beyond the limit of one write."""
        largest = self.attributes.max_section_size
        if size > largest:
            return refuse(SaAisError.ERR_INVALID_PARAM, "section_too_big", largest, position)
        if size > WRITE_BYTES_MAX:
            return refuse(SaAisError.ERR_NO_RESOURCES, "write_too_big", WRITE_BYTES_MAX, position)
        return None

    def refuse_more(self, more: int, sections: int = 0) -> Result | None:
        """NO_SPACE if its quota, or one of its space, has no room for more content or sections."""
        if more > 0 and self.memory_used + more > self.size_limit:
            return refuse(SaAisError.ERR_NO_SPACE, "checkpoint_full", self.size_limit)
        return None if self.quotas is None else self.quotas.refuse(0, sections, more)

    def refuse_corrupted(self, section_id: bytes, position: int | None = None) -> Result | None:
        """BAD_OPERATION if the section is CORRUPTED: it may only be overwritten or deleted."""
        if section_id in self.corrupted:
            return refuse(SaAisError.ERR_BAD_OPERATION, "corrupted", section_id, position)
        return None

    def regard(self) -> None:
        """Bring ``guarded`` up to date after a change of active, exclusive or corrupted."""
        self.guarded = (
            self.exclusive or bool(self.corrupted) or (self.active is None and self.needs_active)
        )

    # --- sections that were corrupted on purpose ----------------------------------------------

    def corrupt(self, section_id: bytes) -> Result | None:
        """Put a section into the state CORRUPTED; NO_RESOURCES if too many are."""
        corrupted = self.corrupted | {section_id}
        if len(corrupted) > CORRUPTED_SECTIONS_MAX:
            return refuse(SaAisError.ERR_NO_RESOURCES, "limit", "corrupted sections")
        self.corrupted = corrupted
        self.regard()
        return None

    def mend(self, section_id: bytes) -> None:
        """Note that a section is overwritten or gone."""
        if section_id in self.corrupted:
            self.corrupted -= {section_id}
            self.regard()

    # --- openers ------------------------------------------------------------------------------

    def enter(self, session: int, node: str, flags: int) -> None:
        """Count a new handle of a session."""
        counts = self.openers.get(session)
        if counts is None:
            counts = self.openers[session] = [0, 0, 0]
            self.nodes[node] = self.nodes.get(node, 0) + 1
        wanted = flags >> WANTED
        counts[0] += 1
        counts[1] += bool(wanted & READ)
        counts[2] += bool(wanted & WRITE)

    def leave(self, session: int, node: str, flags: int) -> bool:
        """Count a handle down.

        Returns:
            Whether the active replica went with it: ``node`` is its node and has no opener left.
        """
        counts = self.openers[session]
        wanted = flags >> WANTED
        counts[0] -= 1
        counts[1] -= bool(wanted & READ)
        counts[2] -= bool(wanted & WRITE)
        if counts[0]:
            return False
        del self.openers[session]
        self.nodes[node] -= 1
        if self.nodes[node]:
            return False
        del self.nodes[node]
        if self.active is None or self.active[1] != node:
            return False
        self.active = None
        self.regard()
        return True

    def next_section_id(
        self, find: Callable[[bytes], Any] | None = None, sections: int | None = None
    ) -> bytes | None:
        """Make an id no section has (tries until one is free); None if there is none.

        Arguments:
            find: what there is under an id, None: nothing; by default the sections as they are.
            sections: how many there are.
        """
        find = find or self.sections.get
        sections = len(self.sections) if sections is None else sections
        width = min(4, self.attributes.max_section_id_size)
        space = 1 << 8 * width
        for _ in range(min(space, sections + 1)):
            section_id = self.generated.to_bytes(width, "big")
            self.generated = (self.generated + 1) % space
            if find(section_id) is None:
                return section_id
        return None
