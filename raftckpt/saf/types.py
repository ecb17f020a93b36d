"""The standard's structures. Fields carry the standard's names, in the standard's order.

Python has no out parameters for scalars and no lengths beside buffers, so a few things differ:
a section id's ``idLen`` is derived from it, an empty or missing id is {0, NULL}, and the size of an
I/O vector element defaults to that of its buffer. Structures that the standard calls in/out are
changed in place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from raftckpt.errors import SaAisError

__all__ = [
    "SA_CKPT_DEFAULT_SECTION_ID",
    "SA_CKPT_GENERATED_SECTION_ID",
    "SaCkptCallbacksT",
    "SaCkptCallbacksT_2",
    "SaCkptCheckpointCreationAttributesT",
    "SaCkptCheckpointDescriptorT",
    "SaCkptIOVectorElementT",
    "SaCkptSectionCreationAttributesT",
    "SaCkptSectionDescriptorT",
    "SaCkptSectionIdT",
    "SaNameT",
    "SaVersionT",
]

SaNameT: TypeAlias = str | bytes


@dataclass(slots=True)
class SaVersionT:
    """Version of the interface; ``saCkptInitialize`` changes it to the one it supports."""

    releaseCode: str = "B"
    majorVersion: int = 2
    minorVersion: int = 2


@dataclass(slots=True)
class SaCkptCallbacksT:
    """What ``saCkptDispatch`` calls.

    Attributes:
        saCkptCheckpointOpenCallback: (invocation, checkpointHandle, error).
        saCkptCheckpointSynchronizeCallback: (invocation, error).
    """

    saCkptCheckpointOpenCallback: Callable[[int, int, SaAisError], Any] | None = None
    saCkptCheckpointSynchronizeCallback: Callable[[int, SaAisError], Any] | None = None


@dataclass(slots=True)
class SaCkptCallbacksT_2(SaCkptCallbacksT):
    """What ``saCkptDispatch`` calls, from B.02.03 on.

    Attributes:
        saCkptCheckpointTrackCallback: (checkpointHandle, I/O vector, number of elements); the
            vector says where something was written (``dataSize`` at ``dataOffset``), without data.
    """

    saCkptCheckpointTrackCallback: (
        Callable[[int, list[SaCkptIOVectorElementT], int], Any] | None
    ) = None


@dataclass(slots=True)
class SaCkptCheckpointCreationAttributesT:
    """Creation attributes; sizes in bytes, the retention in nanoseconds."""

    creationFlags: int
    checkpointSize: int
    retentionDuration: int
    maxSections: int
    maxSectionSize: int
    maxSectionIdSize: int


@dataclass(slots=True)
class SaCkptSectionIdT:
    """Id of a section; b"" (or None) is {0, NULL}: the default, or a generated, section."""

    id: bytes | None = None

    @property
    def idLen(self) -> int:
        """Length of the id."""
        return len(self.id) if self.id is not None else 0


SA_CKPT_DEFAULT_SECTION_ID: Final = SaCkptSectionIdT()
SA_CKPT_GENERATED_SECTION_ID: Final = SaCkptSectionIdT()


@dataclass(slots=True)
class SaCkptSectionCreationAttributesT:
    """In: the id wanted. Out, if that was the generated section id: the id chosen."""

    sectionId: SaCkptSectionIdT | None
    expirationTime: int = 0x7FFF_FFFF_FFFF_FFFF


@dataclass(slots=True)
class SaCkptSectionDescriptorT:
    """What an iteration tells about a section; times in nanoseconds since the epoch."""

    sectionId: SaCkptSectionIdT
    expirationTime: int
    sectionSize: int
    sectionState: int
    lastUpdate: int


@dataclass(slots=True)
class SaCkptIOVectorElementT:
    """One piece of data on its way.

    Attributes:
        sectionId: which section.
        dataBuffer: write: bytes. Read: a writable buffer to be filled, or None for one that the
            library allocates.
        dataSize: bytes to write, or the most to read; None: all of ``dataBuffer``.
        dataOffset: where in the section.
        readSize: out: bytes that were read.
    """

    sectionId: SaCkptSectionIdT
    dataBuffer: Any = None
    dataSize: int = None  # type: ignore[assignment]  # set below
    dataOffset: int = 0
    readSize: int = 0

    def __post_init__(self) -> None:
        if self.dataSize is None:
            buffer = self.dataBuffer
            self.dataSize = 0 if buffer is None else memoryview(buffer).nbytes


@dataclass(slots=True)
class SaCkptCheckpointDescriptorT:
    """Status of a checkpoint; its attributes carry the current retention."""

    checkpointCreationAttributes: SaCkptCheckpointCreationAttributesT
    numberOfSections: int
    memoryUsed: int = field(default=0)
