"""Life cycle: initialize, selection object, dispatch, finalize."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from raftckpt.errors import (
    CheckpointError,
    InvalidParam,
    NoResources,
    SaAisError,
    VersionMismatch,
)
from raftckpt.events import EventLog
from raftckpt.saf.constants import SA_DISPATCH_ALL, SA_DISPATCH_BLOCKING, SA_DISPATCH_ONE
from raftckpt.saf.handles import find
from raftckpt.saf.initialization import B2, B23, LIBRARIES, Library, code_of
from raftckpt.saf.resources import INITIALIZATION_DESCRIPTORS, needing
from raftckpt.saf.settings import current
from raftckpt.saf.types import SaCkptCallbacksT, SaCkptCallbacksT_2, SaVersionT

__all__ = [
    "dispatching",
    "saCkptDispatch",
    "saCkptFinalize",
    "saCkptInitialize",
    "saCkptInitialize_2",
    "saCkptSelectionObjectGet",
]

log = EventLog("saf")

_OK: Final = SaAisError.OK
_BAD_HANDLE: Final = SaAisError.ERR_BAD_HANDLE
_DISPATCHES: Final = (SA_DISPATCH_ONE, SA_DISPATCH_ALL, SA_DISPATCH_BLOCKING)
_SUPPORTED: Final = ("B", 2, 3)
"""What is answered, as OpenSAF answers; what was asked for decides the rules."""


def saCkptInitialize(
    callbacks: SaCkptCallbacksT | None, version: SaVersionT | None
) -> tuple[SaAisError, int, SaVersionT | None]:
    """Initialize the library -> (rc, handle, version).

    Arguments:
        callbacks: what dispatch calls; None, and each member None: nothing.
        version: the version asked for; changed to the one supported.
    """
    if version is None or not isinstance(callbacks, (SaCkptCallbacksT, type(None))):
        return SaAisError.ERR_INVALID_PARAM, 0, version
    chosen = SaCkptCallbacksT_2()
    if callbacks is not None:
        chosen.saCkptCheckpointOpenCallback = callbacks.saCkptCheckpointOpenCallback
        chosen.saCkptCheckpointSynchronizeCallback = callbacks.saCkptCheckpointSynchronizeCallback
    return _initialize(chosen, version, (0, 0))


def saCkptInitialize_2(
    callbacks: SaCkptCallbacksT_2 | None, version: SaVersionT | None
) -> tuple[SaAisError, int, SaVersionT | None]:
    """Initialize the library with a track callback -> (rc, handle, version).

    Arguments:
        callbacks: what dispatch calls; None, and each member None: nothing.
        version: the version asked for, B.02.03 or later; changed to the one supported.
    """
    if version is None or not isinstance(callbacks, (SaCkptCallbacksT_2, type(None))):
        return SaAisError.ERR_INVALID_PARAM, 0, version
    # a copy: what the caller does with its own later changes nothing
    chosen = SaCkptCallbacksT_2() if callbacks is None else replace(callbacks)
    return _initialize(chosen, version, B23)


def _initialize(
    callbacks: SaCkptCallbacksT_2, version: SaVersionT, least: tuple[int, int]
) -> tuple[SaAisError, int, SaVersionT]:
    asked = (version.majorVersion, version.minorVersion)
    release = version.releaseCode
    if isinstance(release, bytes):
        release = release.decode("latin-1")
    version.releaseCode, version.majorVersion, version.minorVersion = _SUPPORTED
    if release != _SUPPORTED[0] or not _is_supported(*asked) or asked < least:
        return SaAisError.ERR_VERSION, 0, version
    try:
        with needing(INITIALIZATION_DESCRIPTORS):
            library = Library(callbacks, asked=asked, settings=current())
    except (InvalidParam, VersionMismatch) as error:
        # not the caller's arguments: what configure() or the environment says
        log.error("cannot_initialize", why=str(error))
        return SaAisError.ERR_LIBRARY, 0, version
    except CheckpointError as error:
        # a C program learns the code only; out of resources it may be expected to be
        say = log.info if isinstance(error, NoResources) else log.warning
        say("not_initialized", why=str(error))
        return code_of(error, b2=asked >= B2), 0, version
    LIBRARIES[library.handle] = library
    return _OK, library.handle, version


def _is_supported(major: Any, minor: Any) -> bool:
    return isinstance(major, int) and 0 <= major <= _SUPPORTED[1] and isinstance(minor, int)


def saCkptSelectionObjectGet(ckptHandle: int) -> tuple[SaAisError, int]:
    """Return the descriptor that is readable while a callback is pending -> (rc, descriptor)."""
    library = find(LIBRARIES, ckptHandle)
    if library is None:
        return _BAD_HANDLE, -1
    if library.gone:
        return SaAisError.ERR_UNAVAILABLE, -1
    try:
        return _OK, library.descriptor()
    except OSError as error:
        log.info("no_selection_object", why=str(error))
        return SaAisError.ERR_NO_RESOURCES, -1


def saCkptDispatch(ckptHandle: int, dispatchFlags: int) -> SaAisError:
    """Call pending callbacks on this thread.

    Arguments:
        ckptHandle: of ``saCkptInitialize``.
        dispatchFlags: ``SA_DISPATCH_ONE``, ``_ALL`` (those pending now), or ``_BLOCKING`` (until
            somebody finalizes the library).
    """
    library = dispatching(ckptHandle, dispatchFlags)
    if isinstance(library, SaAisError):
        return library
    if dispatchFlags == SA_DISPATCH_ALL:
        library.dispatch_all()
    elif dispatchFlags == SA_DISPATCH_ONE:
        library.dispatch_one()
    else:
        library.dispatch_until_finalized()
    return _OK


def dispatching(ckptHandle: int, dispatchFlags: int) -> Library | SaAisError:
    """Check the arguments of ``saCkptDispatch``; return whose callbacks it is to call."""
    library = find(LIBRARIES, ckptHandle)
    if library is None:
        return _BAD_HANDLE
    if library.gone:
        return SaAisError.ERR_UNAVAILABLE
    if dispatchFlags not in _DISPATCHES:
        return SaAisError.ERR_INVALID_PARAM
    return library


def saCkptFinalize(ckptHandle: int) -> SaAisError:
    """Close everything opened with the handle; cancel what is pending; end blocked dispatches."""
    try:
        library = LIBRARIES.pop(ckptHandle, None)
    except TypeError:
        library = None
    return _BAD_HANDLE if library is None else library.finalize()
