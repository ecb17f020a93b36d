"""Checkpoints: open, close, unlink, retention, active replica, status.

What is checked here, is checked in the order of OpenSAF: parameters win over a bad handle. What
only the cluster can know, it checks in its own order, which is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from raftckpt.client.kit import Call, Nanoseconds, Opened, decoded, operations
from raftckpt.errors import CheckpointError, SaAisError
from raftckpt.limits import SECOND_NS
from raftckpt.model.types import CreationFlags, OpenFlags
from raftckpt.protocol.contract import CHECKPOINT_NAME_BYTES_MAX, SA_TIME_MAX
from raftckpt.saf.habits import attributes_meant, open_timeout_meant, time_meant_for
from raftckpt.saf.handles import find
from raftckpt.saf.initialization import CHECKPOINTS, LIBRARIES, Library, OpenCheckpoint
from raftckpt.saf.settings import Settings, current_rules
from raftckpt.saf.tracking import follow
from raftckpt.saf.types import (
    SaCkptCheckpointCreationAttributesT,
    SaCkptCheckpointDescriptorT,
    SaNameT,
)

__all__ = [
    "saCkptActiveReplicaSet",
    "saCkptCheckpointClose",
    "saCkptCheckpointOpen",
    "saCkptCheckpointOpenAsync",
    "saCkptCheckpointRetentionDurationSet",
    "saCkptCheckpointStatusGet",
    "saCkptCheckpointUnlink",
    "seconds_of",
]

_OK: Final = SaAisError.OK
_INVALID: Final = SaAisError.ERR_INVALID_PARAM
_BAD_HANDLE: Final = SaAisError.ERR_BAD_HANDLE
_ACCESS: Final = SaAisError.ERR_ACCESS
_CREATE: Final = int(OpenFlags.CREATE)
_ALL_FLAGS: Final = int(OpenFlags.READ | OpenFlags.WRITE | OpenFlags.CREATE)
_COLLOCATED: Final = int(CreationFlags.COLLOCATED)
_U64_MAX: Final = (1 << 64) - 1  # of SaSizeT and handles
_NAME_BYTES: Final = 256  # of SaNameT.value (SA_MAX_NAME_LENGTH)
_RDN: Final = "safCkpt="
_SECONDS_MAX: Final = 86_400.0
"""Longest a call waits, whatever timeout it was given."""


def seconds_of(timeout: int) -> float:
    """Return a timeout in seconds; very long ones are clamped."""
    return min(timeout / SECOND_NS, _SECONDS_MAX)


# --- what is checked before the cluster is asked -------------------------------------------------


def _is_time(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= SA_TIME_MAX


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= _U64_MAX


_ATTRIBUTE_RULES: Final[
    tuple[tuple[str, Callable[[SaCkptCheckpointCreationAttributesT], bool]], ...]
] = (
    (
        "exactly one update option, no unknown flag",
        lambda a: isinstance(a.creationFlags, int) and a.creationFlags & ~_COLLOCATED in (1, 2, 4),
    ),
    (
        "sizes are numbers of 64 bits",
        lambda a: all(map(_is_size, (a.checkpointSize, a.maxSectionSize, a.maxSectionIdSize))),
    ),
    ("at least one section", lambda a: _is_size(a.maxSections) and a.maxSections >= 1),
    (
        "checkpointSize within maxSections x maxSectionSize",
        lambda a: a.checkpointSize <= a.maxSections * a.maxSectionSize,
    ),
    ("a retention that is none or more", lambda a: _is_time(a.retentionDuration)),
)
"""In their order; each violation is INVALID_PARAM."""


def _refuse_attributes(attributes: SaCkptCheckpointCreationAttributesT) -> SaAisError | None:
    for _, holds in _ATTRIBUTE_RULES:
        if not holds(attributes):
            return _INVALID
    return None


def _name(name: SaNameT | None, settings: Settings) -> str | SaAisError:
    """Return the name as text, or the code for what is wrong with it."""
    try:
        text = name.decode("utf-8") if isinstance(name, (bytes, bytearray)) else name
        size = len(text.encode("utf-8"))  # type: ignore[union-attr]
    except (AttributeError, UnicodeError):
        return _INVALID
    if not text or not isinstance(text, str):
        return _INVALID
    if size > _NAME_BYTES and not settings.extended_names:
        return _INVALID
    if size > CHECKPOINT_NAME_BYTES_MAX:
        return SaAisError.ERR_TOO_BIG
    return text


def _prepare_open(
    handle: int,
    name: SaNameT | None,
    attributes: SaCkptCheckpointCreationAttributesT | None,
    flags: int,
    timeout: int,
) -> tuple[Library, Call, int, float] | SaAisError:
    """Check what can be checked here, in order; build the call, say how many seconds it has."""
    library: Library | None = find(LIBRARIES, handle)
    settings = current_rules() if library is None else library.settings
    text = _name(name, settings)
    if isinstance(text, SaAisError):
        return text
    if settings.rdn_names and not text.startswith(_RDN):
        return _INVALID
    timeout = open_timeout_meant(timeout, settings)
    if not isinstance(timeout, int) or timeout < 0:
        return _INVALID
    if not isinstance(flags, int) or not flags or flags & ~_ALL_FLAGS:
        return SaAisError.ERR_BAD_FLAGS
    if (attributes is not None) != bool(flags & _CREATE):
        return _INVALID
    fields = None
    attributes = attributes_meant(attributes, settings)
    if attributes is not None:
        if not isinstance(attributes, SaCkptCheckpointCreationAttributesT):
            return _INVALID
        refusal = _refuse_attributes(attributes)
        if refusal is not None:
            return refusal
        fields = [
            int(attributes.creationFlags),
            attributes.checkpointSize,
            attributes.retentionDuration,
            attributes.maxSections,
            attributes.maxSectionSize,
            attributes.maxSectionIdSize,
        ]
    if library is None:
        return _BAD_HANDLE
    if library.gone:
        return SaAisError.ERR_UNAVAILABLE
    call = _open_call(text, library.open_flags(int(flags)), fields)
    return library, call, int(flags), seconds_of(timeout)


def _open_call(text: str, flags: int, fields: list[int] | None) -> Call:
    call = operations.open_raw(text, flags, fields)
    decode = call.decode

    def with_attributes(value: Any) -> tuple[Opened, list[int]]:
        opened: Opened = decode(value)  # type: ignore[misc]
        return opened, list(value[3])

    call.decode = with_attributes
    return call


def _register(
    library: Library, found: tuple[Opened, list[int]], flags: int
) -> tuple[SaAisError, int]:
    """Give the handle out; one that cannot be followed, though its client tracks, is closed."""
    checkpoint = OpenCheckpoint(library, *found, flags)
    library.checkpoints.add(checkpoint)
    CHECKPOINTS[checkpoint.handle] = checkpoint
    rc = follow(checkpoint) if library.tracks else _OK
    if rc == _OK:
        return _OK, checkpoint.handle
    saCkptCheckpointClose(checkpoint.handle)
    return rc, 0


# --- the calls -----------------------------------------------------------------------------------


def saCkptCheckpointOpen(
    ckptHandle: int,
    checkpointName: SaNameT | None,
    checkpointCreationAttributes: SaCkptCheckpointCreationAttributesT | None,
    checkpointOpenFlags: int,
    timeout: int,
) -> tuple[SaAisError, int]:
    """Open a checkpoint, creating it if need be -> (rc, checkpointHandle).

    Arguments:
        ckptHandle: of ``saCkptInitialize``.
        checkpointName: str or bytes (UTF-8).
        checkpointCreationAttributes: exactly if the flags contain CREATE.
        checkpointOpenFlags: any combination of READ, WRITE and CREATE.
        timeout: nanoseconds. An open that ran into it leaves no opener behind.
    """
    prepared = _prepare_open(
        ckptHandle, checkpointName, checkpointCreationAttributes, checkpointOpenFlags, timeout
    )
    if isinstance(prepared, SaAisError):
        return prepared, 0
    library, call, flags, seconds = prepared
    try:
        found = library.run(call, seconds)
    except CheckpointError as error:
        return library.code(error), 0
    return _register(library, found, flags)


def saCkptCheckpointOpenAsync(
    ckptHandle: int,
    invocation: int,
    checkpointName: SaNameT | None,
    checkpointCreationAttributes: SaCkptCheckpointCreationAttributesT | None,
    checkpointOpenFlags: int,
) -> SaAisError:
    """Open a checkpoint; the open callback gets (invocation, checkpointHandle, error)."""
    prepared = _prepare_open(
        ckptHandle, checkpointName, checkpointCreationAttributes, checkpointOpenFlags, 0
    )
    if isinstance(prepared, SaAisError):
        return prepared
    library, call, flags, _ = prepared
    callback = library.callbacks.saCkptCheckpointOpenCallback
    if callback is None:
        return SaAisError.ERR_INIT

    def deliver(call: Call) -> None:
        try:
            found = decoded(call)
        except CheckpointError as error:
            callback(invocation, 0, library.code(error))
        else:
            rc, handle = _register(library, found, flags)
            callback(invocation, handle, rc)

    return library.begin(call, deliver)


def saCkptCheckpointClose(checkpointHandle: int) -> SaAisError:
    """Close a checkpoint: its handle and iterations are gone, its pending callbacks cancelled."""
    checkpoint = find(CHECKPOINTS, checkpointHandle)
    if checkpoint is None:
        return _BAD_HANDLE
    try:
        # in the order of the session: what was written before has been applied when this has
        checkpoint.run(operations.close_checkpoint(checkpoint.opened))
    except CheckpointError as error:
        rc: SaAisError = checkpoint.code(error)
        if rc in (_BAD_HANDLE, SaAisError.ERR_UNAVAILABLE):
            checkpoint.forget()
        return rc
    checkpoint.forget()
    return _OK


def saCkptCheckpointUnlink(ckptHandle: int, checkpointName: SaNameT | None) -> SaAisError:
    """Remove a checkpoint's name; it goes with its last opener. Needs no right and no open."""
    library: Library | None = find(LIBRARIES, ckptHandle)
    text = _name(checkpointName, current_rules() if library is None else library.settings)
    if isinstance(text, SaAisError):
        return text
    if library is None:
        return _BAD_HANDLE
    try:
        library.run(operations.unlink(text))
    except CheckpointError as error:
        return library.code(error)
    return _OK


def saCkptCheckpointRetentionDurationSet(
    checkpointHandle: int, retentionDuration: int
) -> SaAisError:
    """Set how many nanoseconds the checkpoint outlives its last opener."""
    checkpoint = find(CHECKPOINTS, checkpointHandle)
    retentionDuration = time_meant_for(checkpoint, retentionDuration)
    if not _is_time(retentionDuration):
        return _INVALID
    if checkpoint is None:
        return _BAD_HANDLE
    if checkpoint.owner.gone:
        return SaAisError.ERR_UNAVAILABLE
    if checkpoint.owner.b2 and not checkpoint.writes:
        return _ACCESS
    return checkpoint.carry_out(
        lambda: operations.set_retention(checkpoint.opened, Nanoseconds(retentionDuration))
    )


def saCkptActiveReplicaSet(checkpointHandle: int) -> SaAisError:
    """Make this node's replica the active one (collocated, asynchronous checkpoints only)."""
    checkpoint = find(CHECKPOINTS, checkpointHandle)
    if checkpoint is None:
        return _BAD_HANDLE
    if not checkpoint.writes:
        return _ACCESS
    return checkpoint.carry_out(lambda: operations.active_replica_set(checkpoint.opened, False))


def saCkptCheckpointStatusGet(
    checkpointHandle: int,
) -> tuple[SaAisError, SaCkptCheckpointDescriptorT | None]:
    """Return (rc, descriptor): attributes with the current retention, sections, bytes used."""
    checkpoint = find(CHECKPOINTS, checkpointHandle)
    if checkpoint is None:
        return _BAD_HANDLE, None
    if checkpoint.owner.b2 and not checkpoint.reads:
        return _ACCESS, None
    call = operations.status(checkpoint.opened, "linearizable")
    call.decode = _descriptor
    try:
        return _OK, checkpoint.run(call)
    except CheckpointError as error:
        return checkpoint.code(error), None


def _descriptor(value: Any) -> SaCkptCheckpointDescriptorT:
    found = value[1]
    return SaCkptCheckpointDescriptorT(
        SaCkptCheckpointCreationAttributesT(*found[2]),
        numberOfSections=found[3],
        memoryUsed=found[4],
    )
