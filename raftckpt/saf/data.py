"""Data: write, overwrite, read, synchronize."""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from raftckpt.client.kit import Call, decoded, operations
from raftckpt.errors import CheckpointError, SaAisError
from raftckpt.protocol.contract import (
    INLINE_WRITE_BYTES_MAX,
    SA_TIME_MAX,
    STAGED_BYTES_PER_SESSION_MAX,
    WRITE_BYTES_MAX,
)
from raftckpt.saf.checkpoint import seconds_of
from raftckpt.saf.habits import time_meant_for
from raftckpt.saf.handles import find
from raftckpt.saf.initialization import CHECKPOINTS, OpenCheckpoint
from raftckpt.saf.section import id_of, is_possible
from raftckpt.saf.types import SaCkptIOVectorElementT, SaCkptSectionIdT

__all__ = [
    "VECTOR_BYTES_MAX",
    "saCkptCheckpointRead",
    "saCkptCheckpointSynchronize",
    "saCkptCheckpointSynchronizeAsync",
    "saCkptCheckpointWrite",
    "saCkptIOVectorElementDataFree",
    "saCkptSectionOverwrite",
]

_OK: Final = SaAisError.OK
_INVALID: Final = SaAisError.ERR_INVALID_PARAM
_BAD_HANDLE: Final = SaAisError.ERR_BAD_HANDLE
_ACCESS: Final = SaAisError.ERR_ACCESS
_NO_RESOURCES: Final = SaAisError.ERR_NO_RESOURCES
VECTOR_BYTES_MAX: Final = STAGED_BYTES_PER_SESSION_MAX + INLINE_WRITE_BYTES_MAX
"""Data of one vector write: what can be staged at once, and what travels with the command."""


def _vector(ioVector: Any) -> list[Any] | None:
    """Return the elements as a list, None if it is no vector or an empty one."""
    if isinstance(ioVector, SaCkptIOVectorElementT):
        return [ioVector]  # C programs pass the address of one element
    try:
        elements = list(ioVector)
    except TypeError:
        return None
    return elements or None


def saCkptCheckpointWrite(checkpointHandle: int, ioVector: Any) -> tuple[SaAisError, int | None]:
    """Write into sections, all elements or none -> (rc, erroneousVectorIndex).

    Arguments:
        checkpointHandle: of an open.
        ioVector: list of ``SaCkptIOVectorElementT``; sections grow as needed, gaps read as zeros.
    """
    elements = _vector(ioVector)
    if elements is None:
        return _INVALID, None
    checkpoint = find(CHECKPOINTS, checkpointHandle)
    if checkpoint is None:
        return _BAD_HANDLE, None
    writes: list[tuple[bytes, int, Any]] = []
    for index, element in enumerate(elements):
        write = _element_to_write(checkpoint, element)
        if isinstance(write, SaAisError):
            return write, index
        writes.append(write)
    if not checkpoint.writes:
        return _ACCESS, None
    if sum(len(data) for _, _, data in writes) > VECTOR_BYTES_MAX:
        return _NO_RESOURCES, None  # here, because the client would copy it all to find out
    try:
        checkpoint.change(
            lambda: operations.write_many(checkpoint.opened, writes), "written", *writes
        )
    except CheckpointError as error:
        return checkpoint.code(error), error.index
    return _OK, None


def _element_to_write(
    checkpoint: OpenCheckpoint, element: Any
) -> tuple[bytes, int, Any] | SaAisError:
    """Check an element; the size against the checkpoint's maximum comes first, as in OpenSAF."""
    try:
        section_id = id_of(element.sectionId)
        data, size, offset = element.dataBuffer, element.dataSize, element.dataOffset
        if section_id is None or not is_possible(section_id):
            return _INVALID
        if size < 0 or offset < 0 or size > checkpoint.max_section_size:
            return _INVALID
        if data is None:
            return _INVALID if size else (section_id, min(offset, SA_TIME_MAX), b"")
        if size > WRITE_BYTES_MAX:
            return _NO_RESOURCES
        if type(data) is not bytes or len(data) != size:
            view = memoryview(data).cast("B")
            if size > len(view):  # the program says more than there is
                return _INVALID
            data = view[:size]
    except (AttributeError, TypeError):
        return _INVALID
    return section_id, min(offset, SA_TIME_MAX), data


def saCkptSectionOverwrite(
    checkpointHandle: int, sectionId: SaCkptSectionIdT | None, dataBuffer: Any
) -> SaAisError:
    """Replace the contents of a section."""
    section_id = id_of(sectionId)
    if section_id is None or dataBuffer is None:
        return _INVALID
    checkpoint = find(CHECKPOINTS, checkpointHandle)
    if checkpoint is None:
        return _BAD_HANDLE
    if not checkpoint.writes:
        return _ACCESS
    if not is_possible(section_id):
        return _INVALID
    if type(dataBuffer) is not bytes:
        try:
            dataBuffer = memoryview(dataBuffer).cast("B")
        except TypeError:
            return _INVALID
    size = len(dataBuffer)
    if size > checkpoint.max_section_size:
        return _INVALID
    if size > WRITE_BYTES_MAX:
        return _NO_RESOURCES
    try:
        checkpoint.change(
            lambda: operations.overwrite(checkpoint.opened, section_id, dataBuffer),
            "overwritten",
            (section_id, 0, dataBuffer),
        )
    except CheckpointError as error:
        return checkpoint.code(error)
    return _OK


def saCkptCheckpointRead(checkpointHandle: int, ioVector: Any) -> tuple[SaAisError, int | None]:
    """Read from sections, all of one state -> (rc, erroneousVectorIndex).

    Fills ``dataBuffer`` (a writable buffer, or None for one that the library allocates) and
    ``readSize`` of each element.
    """
    elements = _vector(ioVector)
    if elements is None:
        return _INVALID, None
    reads: list[tuple[bytes, int, int | None]] = []
    views: list[memoryview | None] = []
    for index, element in enumerate(elements):
        read = _element_to_read(element)
        if isinstance(read, SaAisError):
            return read, index
        reads.append(read[:3])
        views.append(read[3])
    checkpoint = find(CHECKPOINTS, checkpointHandle)
    if checkpoint is None:
        return _BAD_HANDLE, None
    if not checkpoint.reads:
        return _ACCESS, None
    try:
        found = checkpoint.run(operations.read_many(checkpoint.opened, reads, "linearizable"))
    except CheckpointError as error:
        return checkpoint.code(error), error.index
    for element, view, data in zip(elements, views, found, strict=True):
        if view is None:
            element.dataBuffer = bytearray(data)
        else:
            view[: len(data)] = data
        element.readSize = len(data)
    return _OK, None


def _element_to_read(
    element: Any,
) -> tuple[bytes, int, int | None, memoryview | None] | SaAisError:
    try:
        section_id = id_of(element.sectionId)
        buffer, size, offset = element.dataBuffer, element.dataSize, element.dataOffset
        if section_id is None or not is_possible(section_id) or offset < 0:
            return _INVALID
        offset = min(offset, SA_TIME_MAX)
        if buffer is None:
            return section_id, offset, None, None
        view = memoryview(buffer).cast("B")
        if not 0 < size <= len(view) or view.readonly:
            return _INVALID
    except (AttributeError, TypeError):
        return _INVALID
    return section_id, offset, size, view


def saCkptIOVectorElementDataFree(checkpointHandle: int, data: Any) -> SaAisError:
    """Give a buffer back that a read allocated; Python needs no call for that, C does."""
    if not isinstance(data, (bytes, bytearray, memoryview)):
        return _INVALID
    return _BAD_HANDLE if find(CHECKPOINTS, checkpointHandle) is None else _OK


# --- synchronize ---------------------------------------------------------------------------------


def _refuse_synchronize(checkpoint: OpenCheckpoint | None) -> SaAisError | None:
    """Handle, right, update option: in this order."""
    if checkpoint is None:
        return _BAD_HANDLE
    if not checkpoint.writes:
        return _ACCESS
    if not checkpoint.asynchronous:
        return SaAisError.ERR_BAD_OPERATION
    return None


def _refuse_inactive(checkpoint: OpenCheckpoint, seconds: float | None) -> SaAisError | None:
    """NOT_EXIST without an active replica; only collocated checkpoints can be without one."""
    if not checkpoint.collocated:
        return None
    try:
        checkpoint.run(operations.may_synchronize(checkpoint.opened), seconds)
    except CheckpointError as error:
        return checkpoint.code(error)
    return None


def saCkptCheckpointSynchronize(checkpointHandle: int, timeout: int) -> SaAisError:
    """Wait until what was written before is on the replicas.

    Arguments:
        checkpointHandle: of an open for writing.
        timeout: nanoseconds.
    """
    checkpoint = find(CHECKPOINTS, checkpointHandle)
    timeout = time_meant_for(checkpoint, timeout)
    if not isinstance(timeout, int) or timeout < 0:
        return _INVALID
    refusal = _refuse_synchronize(checkpoint)
    if refusal is not None or checkpoint is None:
        return refusal or _BAD_HANDLE
    deadline = monotonic() + seconds_of(timeout)
    refusal = _refuse_inactive(checkpoint, seconds_of(timeout))
    if refusal is not None:
        return refusal
    return checkpoint.carry_out(
        lambda: operations.synchronize(checkpoint.opened), deadline - monotonic()
    )


def saCkptCheckpointSynchronizeAsync(checkpointHandle: int, invocation: int) -> SaAisError:
    """Synchronize; the synchronize callback gets (invocation, error)."""
    checkpoint = find(CHECKPOINTS, checkpointHandle)
    refusal = _refuse_synchronize(checkpoint)
    if refusal is not None or checkpoint is None:
        return refusal or _BAD_HANDLE
    callback = checkpoint.owner.callbacks.saCkptCheckpointSynchronizeCallback
    if callback is None:
        return SaAisError.ERR_INIT
    refusal = _refuse_inactive(checkpoint, None)
    if refusal is not None:
        return refusal

    def deliver(call: Call) -> None:
        try:
            decoded(call)
        except CheckpointError as error:
            callback(invocation, checkpoint.code(error))
        else:
            callback(invocation, _OK)

    return checkpoint.owner.begin(operations.synchronize(checkpoint.opened), deliver, checkpoint)
