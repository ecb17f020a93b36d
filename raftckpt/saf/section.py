"""Sections: create, delete, expiration, iteration."""

from __future__ import annotations

import threading
from time import monotonic
from typing import Any, Final

from raftckpt.client.kit import Nanoseconds, operations
from raftckpt.errors import CheckpointError, SaAisError
from raftckpt.model.types import Chosen, SectionDescriptor
from raftckpt.protocol.contract import SA_TIME_MAX, SECTION_ID_BYTES_MAX, WRITE_BYTES_MAX
from raftckpt.saf.habits import time_meant_for
from raftckpt.saf.handles import find, new_handle
from raftckpt.saf.initialization import CHECKPOINTS, ITERATIONS, OpenCheckpoint
from raftckpt.saf.types import (
    SaCkptSectionCreationAttributesT,
    SaCkptSectionDescriptorT,
    SaCkptSectionIdT,
)

__all__ = [
    "Iteration",
    "clCkptSectionCheck",
    "id_of",
    "is_possible",
    "saCkptSectionCreate",
    "saCkptSectionDelete",
    "saCkptSectionExpirationTimeSet",
    "saCkptSectionIdFree",
    "saCkptSectionIterationFinalize",
    "saCkptSectionIterationInitialize",
    "saCkptSectionIterationNext",
]

_OK: Final = SaAisError.OK
_INVALID: Final = SaAisError.ERR_INVALID_PARAM
_BAD_HANDLE: Final = SaAisError.ERR_BAD_HANDLE
_ACCESS: Final = SaAisError.ERR_ACCESS
_B2_ID_BYTES_MAX: Final = 49
"""OpenSAF takes no longer id of B.02 clients, whatever maxSectionIdSize says."""


def id_of(sectionId: Any) -> bytes | None:
    """Return the id in a structure (b"" for {0, NULL}), None if it is no such structure."""
    try:
        found = sectionId.id
    except AttributeError:
        return None
    if type(found) is bytes:
        return found
    if found is None:
        return b""
    return bytes(found) if isinstance(found, (bytes, bytearray, memoryview)) else None


def is_possible(section_id: bytes) -> bool:
    """Whether a section of any checkpoint may have the id; who names one that cannot is wrong."""
    return len(section_id) <= SECTION_ID_BYTES_MAX


def _is_time(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= SA_TIME_MAX


def saCkptSectionCreate(
    checkpointHandle: int,
    sectionCreationAttributes: SaCkptSectionCreationAttributesT | None,
    initialData: Any,
    initialDataSize: int | None = None,
) -> SaAisError:
    """Create a section.

    Arguments:
        checkpointHandle: of an open.
        sectionCreationAttributes: the id wanted and when it expires; if that is the generated
            section id, the structure gets the id chosen.
        initialData: bytes, or None for none.
        initialDataSize: how many of them; None: all.
    """
    attributes = sectionCreationAttributes
    try:
        section_id = id_of(attributes.sectionId)  # type: ignore[union-attr]
        data = b"" if initialData is None else memoryview(initialData).cast("B")
    except (AttributeError, TypeError):
        return _INVALID
    if section_id is None or attributes is None:
        return _INVALID
    if initialDataSize is not None:
        if not 0 <= initialDataSize <= len(data):
            return _INVALID
        data = data[:initialDataSize]
    if len(data) > WRITE_BYTES_MAX:
        return SaAisError.ERR_NO_RESOURCES
    checkpoint = find(CHECKPOINTS, checkpointHandle)
    if checkpoint is None:
        return _BAD_HANDLE
    if not checkpoint.writes:
        return _ACCESS
    if section_id and _is_too_long(checkpoint, section_id):
        return _INVALID
    expiration = time_meant_for(checkpoint, attributes.expirationTime)
    if not _is_time(expiration):
        return _INVALID
    try:
        created = checkpoint.change(
            lambda: operations.create(
                checkpoint.opened,
                section_id or None,
                data,
                Nanoseconds(expiration),
                None,
            ),
            "created",
            (section_id, 0, data),
        )
    except CheckpointError as error:
        return checkpoint.code(error)
    if not section_id:
        attributes.sectionId = SaCkptSectionIdT(created)
    return _OK


def _is_too_long(checkpoint: OpenCheckpoint, section_id: bytes) -> bool:
    size = len(section_id)
    return size > checkpoint.max_section_id_size or (
        size > _B2_ID_BYTES_MAX and checkpoint.owner.b2
    )


def saCkptSectionDelete(checkpointHandle: int, sectionId: SaCkptSectionIdT | None) -> SaAisError:
    """Delete a section; the default section cannot be deleted."""
    section_id = id_of(sectionId)
    if not section_id:
        return _INVALID
    checkpoint = find(CHECKPOINTS, checkpointHandle)
    if checkpoint is None:
        return _BAD_HANDLE
    if not checkpoint.writes:
        return _ACCESS
    if not is_possible(section_id):
        return _INVALID
    try:
        checkpoint.change(
            lambda: operations.delete(checkpoint.opened, section_id),
            "deleted",
            (section_id, 0, b""),
        )
    except CheckpointError as error:
        return checkpoint.code(error)
    return _OK


def clCkptSectionCheck(ckptHdl: int, pSectionId: SaCkptSectionIdT | None) -> SaAisError:
    """Say whether a section exists: OK or NOT_EXIST (SAFplus). Needs what a status does."""
    section_id = id_of(pSectionId)
    if section_id is None:
        return _INVALID
    checkpoint = find(CHECKPOINTS, ckptHdl)
    if checkpoint is None:
        return _BAD_HANDLE
    if checkpoint.owner.b2 and not checkpoint.reads:
        return _ACCESS
    if not is_possible(section_id):
        return _INVALID
    try:
        rows = checkpoint.run(operations.section_statuses(checkpoint.opened, [section_id]))
    except CheckpointError as error:
        return checkpoint.code(error)
    return _OK if rows else SaAisError.ERR_NOT_EXIST


def saCkptSectionIdFree(checkpointHandle: int, id: Any) -> SaAisError:
    """Give the memory of a generated id back; Python needs no call for that, C does."""
    if find(CHECKPOINTS, checkpointHandle) is None:
        return _BAD_HANDLE
    return _OK if isinstance(id, (bytes, bytearray)) else _INVALID


def saCkptSectionExpirationTimeSet(
    checkpointHandle: int, sectionId: SaCkptSectionIdT | None, expirationTime: int
) -> SaAisError:
    """Set when a section expires (nanoseconds since the epoch, SA_TIME_END for never)."""
    section_id = id_of(sectionId)
    checkpoint = find(CHECKPOINTS, checkpointHandle)
    expirationTime = time_meant_for(checkpoint, expirationTime)
    if section_id is None or not _is_time(expirationTime):
        return _INVALID
    if checkpoint is None:
        return _BAD_HANDLE
    if not checkpoint.writes:
        return _ACCESS
    if not is_possible(section_id):
        return _INVALID
    at = Nanoseconds(expirationTime)
    return checkpoint.carry_out(
        lambda: operations.set_expiration(checkpoint.opened, section_id, at, None)
    )


# --- iteration -----------------------------------------------------------------------------------

_CHOSEN: Final = {
    int(Chosen.FOREVER): "forever",
    int(Chosen.LEQ_EXPIRATION_TIME): "expiring_by",
    int(Chosen.GEQ_EXPIRATION_TIME): "expiring_from",
    int(Chosen.CORRUPTED): "corrupted",
    int(Chosen.ANY): "any",
}


_FRESH_SECONDS: Final = 0.05
"""Half of what passes for at once; what another one writes meanwhile could as well have come
after."""
_BATCH: Final = 256
"""Descriptors read at once: of thousands one round trip in 256. Twice as many would mostly be read
again."""


class Iteration:
    """What an iteration handle stands for: the ids of the sections that there were at its begin.

    Their descriptors are read afresh, in batches: one is handed out while nothing was written
    here since it was read, and it is no older than the blink of an eye.
    """

    __slots__ = ("_descriptors", "_ids", "_lock", "_position", "_read_at", "_written", "checkpoint",
                 "handle")  # fmt: skip

    def __init__(self, checkpoint: OpenCheckpoint, rows: list[Any], written: int) -> None:
        self.handle = new_handle()
        self.checkpoint = checkpoint
        self._ids: list[bytes] = [row[0] for row in rows]
        self._descriptors: dict[bytes, Any] = {row[0]: row for row in rows}
        self._written = written
        self._read_at = monotonic()
        self._position = 0
        self._lock = threading.Lock()

    def next(self) -> Any:
        """Return the descriptor of the next section that still exists, None after the last.

        Raises:
            CheckpointError: it cannot be read.
        """
        with self._lock:
            while self._position < len(self._ids):
                self._refresh()
                section_id = self._ids[self._position]
                self._position += 1
                row = self._descriptors.pop(section_id, None)
                if row is not None:
                    return row
        return None

    def _refresh(self) -> None:
        owner = self.checkpoint.owner
        section_id = self._ids[self._position]
        fresh = self._written == owner.written and monotonic() - self._read_at < _FRESH_SECONDS
        if fresh and section_id in self._descriptors:
            return
        batch = self._ids[self._position : self._position + _BATCH]
        written = owner.written
        rows = self.checkpoint.run(operations.section_statuses(self.checkpoint.opened, batch))
        self._descriptors = {row[0]: row for row in rows}
        self._written = written
        self._read_at = monotonic()
        # those that are gone must not be asked for again, one by one
        gone = [each for each in batch if each not in self._descriptors]
        if gone:
            self._descriptors.update(dict.fromkeys(gone))


def saCkptSectionIterationInitialize(
    checkpointHandle: int, sectionsChosen: int, expirationTime: int
) -> tuple[SaAisError, int]:
    """Begin to go through sections -> (rc, iterationHandle).

    Every section that matches and exists from now to the end comes exactly once.
    """
    which = find(_CHOSEN, sectionsChosen)
    if which is None or not _is_time(expirationTime):
        return _INVALID, 0
    checkpoint = find(CHECKPOINTS, checkpointHandle)
    if checkpoint is None:
        return _BAD_HANDLE, 0
    if checkpoint.owner.b2 and not checkpoint.reads:
        return _ACCESS, 0
    call = operations.sections(
        checkpoint.opened, which, Nanoseconds(expirationTime), "linearizable"
    )
    call.decode = _second
    written = checkpoint.owner.written
    try:
        rows = checkpoint.run(call)
    except CheckpointError as error:
        return checkpoint.code(error), 0
    iteration = Iteration(checkpoint, rows, written)
    ITERATIONS[iteration.handle] = iteration
    checkpoint.iterations.add(iteration.handle)
    return _OK, iteration.handle


def _second(value: Any) -> Any:
    return value[1]


def saCkptSectionIterationNext(
    sectionIterationHandle: int,
) -> tuple[SaAisError, SaCkptSectionDescriptorT | None]:
    """Return (rc, descriptor) of the next section; NO_SECTIONS at the end."""
    iteration = find(ITERATIONS, sectionIterationHandle)
    if iteration is None:
        return _BAD_HANDLE, None
    try:
        found = iteration.next()
    except CheckpointError as error:
        return iteration.checkpoint.code(error), None
    if found is None:
        return SaAisError.ERR_NO_SECTIONS, None
    row = SectionDescriptor._make(found)
    return _OK, SaCkptSectionDescriptorT(
        SaCkptSectionIdT(row.section_id),
        row.expiration_ns,
        row.size,
        row.state,
        row.updated_ns,
    )


def saCkptSectionIterationFinalize(sectionIterationHandle: int) -> SaAisError:
    """End an iteration."""
    try:
        iteration = ITERATIONS.pop(sectionIterationHandle, None)
    except TypeError:
        iteration = None
    if iteration is None:
        return _BAD_HANDLE
    iteration.checkpoint.iterations.discard(sectionIterationHandle)
    return _OK
