"""Records of the model: attributes, sections, descriptors, results. Pure data, no behaviour.

Hot records are named tuples: building one costs a third of a frozen dataclass, they are immutable,
and they encode to msgpack arrays as they are.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any, Final, NamedTuple

from raftckpt.errors import SaAisError
from raftckpt.protocol import contract, kinds

__all__ = [
    "CheckpointDescriptor",
    "Chosen",
    "CreationAttributes",
    "CreationFlags",
    "OpenFlags",
    "Refused",
    "Result",
    "SectionDescriptor",
    "SectionState",
    "refuse",
    "success",
]


class OpenFlags(IntFlag):
    """SaCkptCheckpointOpenFlagsT."""

    READ = kinds.READ
    WRITE = kinds.WRITE
    CREATE = kinds.CREATE
    B01 = kinds.B01
    """Not of the standard: the handle lives by version B.01 of it (rights, match of retention)."""


class CreationFlags(IntFlag):
    """SaCkptCheckpointCreationFlagsT."""

    WR_ALL_REPLICAS = 0x1
    WR_ACTIVE_REPLICA = 0x2
    WR_ACTIVE_REPLICA_WEAK = 0x4
    COLLOCATED = 0x8
    QUOTA = 0x10
    """Not of the standard: no more bytes than ``size`` are taken. (There it is told, not held.)"""


_WR_ALL_REPLICAS: Final = int(CreationFlags.WR_ALL_REPLICAS)  # & with an IntFlag takes microseconds
_COLLOCATED: Final = int(CreationFlags.COLLOCATED)


class SectionState(IntEnum):
    """SaCkptSectionStateT."""

    VALID = 1
    CORRUPTED = 2


class Chosen(IntEnum):
    """SaCkptSectionsChosenT: which sections an iteration returns."""

    FOREVER = 1
    LEQ_EXPIRATION_TIME = 2
    GEQ_EXPIRATION_TIME = 3
    CORRUPTED = 4
    ANY = 5


class CreationAttributes(NamedTuple):
    """SaCkptCheckpointCreationAttributesT; sizes in bytes, retention in nanoseconds."""

    flags: int = CreationFlags.WR_ALL_REPLICAS
    size: int = contract.DEFAULT_MAX_SECTIONS * contract.DEFAULT_MAX_SECTION_SIZE
    retention_ns: int = contract.SA_TIME_MAX
    max_sections: int = contract.DEFAULT_MAX_SECTIONS
    max_section_size: int = contract.DEFAULT_MAX_SECTION_SIZE
    max_section_id_size: int = contract.DEFAULT_MAX_SECTION_ID_SIZE

    @property
    def asynchronous(self) -> bool:
        """Whether writes are acknowledged before they are committed (ACTIVE or WEAK)."""
        return not self.flags & _WR_ALL_REPLICAS

    @property
    def collocated(self) -> bool:
        """Whether the checkpoint was created with COLLOCATED."""
        return bool(self.flags & _COLLOCATED)


class SectionDescriptor(NamedTuple):
    """SaCkptSectionDescriptorT plus the revision of the last change; times in epoch ns."""

    section_id: bytes
    expiration_ns: int
    size: int
    state: int
    updated_ns: int
    revision: int


class CheckpointDescriptor(NamedTuple):
    """What StatusGet and ``checkpoint show`` tell about a checkpoint."""

    uid: int
    """Number of this generation of the name; never used again."""
    name: str
    attributes: CreationAttributes
    sections: int
    memory_used: int
    created_ns: int
    revision: int
    """Revision of the last change of this checkpoint."""
    openers: list[tuple[int, str, str, int, int]]
    """(session, session name, node, read handles, write handles) per session that has it open."""
    active: tuple[int, str] | None
    """(session, node) that made itself active, if any (collocated asynchronous, or fenced)."""
    epoch: int
    """Fencing epoch; grows with each takeover."""
    exclusive: bool
    unlinked: bool
    """Deletion is pending: the name is gone, handles go on working."""
    retention_until_ns: int | None
    """When the checkpoint will be dropped because nobody has it open; None while it is open."""
    corrupted: int
    """Sections in the state CORRUPTED."""


class Refused(NamedTuple):
    """Why a command was refused: word of ``errors.REASONS``, its detail, offending vector index."""

    reason: str
    detail: Any = None
    position: int | None = None


class Result(NamedTuple):
    """Outcome of a command or query: SA Forum code, and a value or a :class:`Refused`."""

    code: int
    value: Any

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.code == SaAisError.OK


def success(value: Any = None) -> Result:
    """Result of a command that did what it was asked."""
    return Result(1, value)


def refuse(
    code: SaAisError, reason: str, detail: Any = None, position: int | None = None
) -> Result:
    """Result of a command that changed nothing."""
    return Result(int(code), Refused(reason, detail, position))
