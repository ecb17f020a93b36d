"""Track callbacks: where something was written, told through dispatch, without the data.

B.02.03 calls them so; to OpenSAF's older arrival callback the same is told. A client's callback is
called for each of its checkpoints that is open for reading, now and later, and each change is told
once, in order, also over the death of replicas. Not told is what the same checkpoint handle did.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from raftckpt.client.kit import Call, Change
from raftckpt.errors import CheckpointError, SaAisError
from raftckpt.limits import SAF_PENDING_CALLBACKS_MAX
from raftckpt.saf.consumption import ChangeFeed, vector_of
from raftckpt.saf.handles import find
from raftckpt.saf.initialization import LIBRARIES, Library, OpenCheckpoint
from raftckpt.saf.resources import CONSUMPTION_DESCRIPTORS, needing
from raftckpt.saf.types import SaCkptIOVectorElementT

__all__ = [
    "follow",
    "ncsCkptRegisterCkptArrivalCallback",
    "saCkptCheckpointTrack",
    "saCkptCheckpointTrackStop",
    "saCkptTrack",
    "saCkptTrackStop",
]

_OK: Final = SaAisError.OK
_BAD_HANDLE: Final = SaAisError.ERR_BAD_HANDLE
_TOLD: Final = frozenset({"created", "written", "overwritten", "deleted", "transaction", "resync"})
"""Expirations are nobody's doing; of a creation OpenSAF tells if it came with data."""


# --- what a handle did itself --------------------------------------------------------------------


class _OwnChange:
    """One through a followed handle: a digest of what it did, when it began and ended."""

    __slots__ = ("begun", "digest", "ended")

    def __init__(self, digest: int, begun: int) -> None:
        self.digest = digest
        self.begun = begun
        self.ended: int | None = None


class _OwnChanges:
    """What was done through one handle and has not been heard of as a change yet.

    A change names the session that made it and no handle. So it is the handle's own if it says what
    was done through the handle. Where two handles did the same, each is told of one of the two
    changes; nobody can see which.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times = itertools.count()
        # who never dispatches hears of none: the oldest are forgotten, and told if ever
        self._changes: deque[_OwnChange] = deque(maxlen=SAF_PENDING_CALLBACKS_MAX)

    def begin(self, digest: int) -> _OwnChange:
        with self._lock:
            change = _OwnChange(digest, next(self._times))
            self._changes.append(change)
        return change

    def end(self, change: _OwnChange, digest: int) -> None:
        with self._lock:
            change.ended = next(self._times)
            change.digest = digest

    def forget(self, change: _OwnChange) -> None:
        """It did not happen."""
        with self._lock:
            if change in self._changes:
                self._changes.remove(change)

    def take(self, digests: Iterable[int]) -> bool:
        """Return whether a change is one of them, which is told of once."""
        with self._lock:
            found = next(
                (own for digest in digests for own in self._changes if own.digest == digest), None
            )
            if found is None:
                return False
            self._changes.remove(found)
            # changes come in order: what had ended before this began would have come, it never will
            for own in list(self._changes):
                if own.ended is not None and own.ended < found.begun:
                    self._changes.remove(own)
        return True


def _digest(kind: str, parts: Iterable[Sequence[Any]]) -> int:
    return hash((kind, tuple([(section, at, bytes(data)) for section, at, data, *_ in parts])))


# --- one checkpoint ------------------------------------------------------------------------------


class CheckpointFollower:
    """Tells the track callback of its client what happens to one open checkpoint."""

    def __init__(self, checkpoint: OpenCheckpoint) -> None:
        self._checkpoint = checkpoint
        self._own = _OwnChanges()
        self._feed: ChangeFeed[list[SaCkptIOVectorElementT]] | None = None

    def start(self) -> None:
        """Follow from now on.

        Raises:
            CheckpointError: it cannot be followed.
        """
        self._feed = ChangeFeed(self._checkpoint, self._tell, self._take, through_dispatch=True)

    def stop(self) -> None:
        """Tell nothing more."""
        if self._feed is not None:
            self._feed.stop()

    def run(self, build: Callable[[], Call], kind: str, parts: Sequence[Sequence[Any]]) -> Any:
        """Run a call that changes the checkpoint through its handle.

        Arguments:
            build: makes the call.
            kind: of the change that it will be.
            parts: (section, offset, data) each; the section is b"" if the cluster names it.

        Raises:
            CheckpointError: what became of it.
        """
        digest = _digest(kind, parts)
        own = self._own.begin(digest)
        try:
            result = self._checkpoint.run(build())
        except CheckpointError as error:
            if error.definite:
                self._own.forget(own)
            else:
                self._own.end(own, digest)
            raise
        if kind == "created" and not parts[0][0]:
            digest = _digest(kind, [(result, *parts[0][1:])])
        self._own.end(own, digest)
        return result

    def _take(self, change: Change) -> list[SaCkptIOVectorElementT] | None:
        """Return where something was written; the data need not wait for dispatch."""
        kind = change.kind
        session = self._checkpoint.owner.driver.core.session
        if change.session == session and not change.is_image:
            parts = change.parts or ((change.section, 0, b""),)
            digests = [_digest(kind, parts)]
            if kind == "created":  # the cluster may have told its name to us first
                digests.append(_digest(kind, [(b"", 0, change.data)]))
            if self._own.take(digests):
                return None
        if kind not in _TOLD or (kind == "created" and not change.data):
            return None
        vector = vector_of(change)
        for element in vector:
            element.dataBuffer = None
        return vector

    def _tell(self, vector: list[SaCkptIOVectorElementT]) -> None:
        callback = self._checkpoint.owner.callbacks.saCkptCheckpointTrackCallback
        if callback is not None:
            callback(self._checkpoint.handle, vector, len(vector))


def follow(checkpoint: OpenCheckpoint) -> SaAisError:
    """Have a checkpoint followed if its client tracks and it is open for reading."""
    with checkpoint.owner.following:
        return _follow(checkpoint)


def _follow(checkpoint: OpenCheckpoint) -> SaAisError:
    if checkpoint.follower is not None or not (checkpoint.owner.tracks and checkpoint.reads):
        return _OK
    # known before it hears of anything: what is written meanwhile is this handle's own
    follower = checkpoint.follower = CheckpointFollower(checkpoint)
    try:
        with needing(CONSUMPTION_DESCRIPTORS):
            follower.start()
    except CheckpointError as error:
        checkpoint.follower = None
        return checkpoint.code(error)
    if checkpoint.closed:  # meanwhile, by another thread
        follower.stop()
    return _OK


# --- the calls -----------------------------------------------------------------------------------


def _tracking(ckptHandle: int) -> Library | SaAisError:
    """Check what both calls check, in order; return the library."""
    library: Library | None = find(LIBRARIES, ckptHandle)
    if library is None:
        return _BAD_HANDLE
    if not library.b23:
        return SaAisError.ERR_VERSION
    if library.callbacks.saCkptCheckpointTrackCallback is None:
        return SaAisError.ERR_INIT
    return SaAisError.ERR_UNAVAILABLE if library.gone else library


def saCkptTrack(ckptHandle: int) -> SaAisError:
    """Have the track callback told of changes of all checkpoints open for reading, from now on."""
    library = _tracking(ckptHandle)
    return library if isinstance(library, SaAisError) else _track(library)


def _track(library: Library) -> SaAisError:
    with library.following:
        before, library.tracks = library.tracks, True
        for checkpoint in list(library.checkpoints):
            rc = _follow(checkpoint)
            if rc != _OK:
                if not before:
                    _stop(library)
                return rc
    return _OK


def _stop(library: Library) -> None:
    library.tracks = False
    for checkpoint in list(library.checkpoints):
        follower, checkpoint.follower = checkpoint.follower, None
        if follower is not None:
            follower.stop()


def saCkptTrackStop(ckptHandle: int) -> SaAisError:
    """Tell the track callback nothing more, not even what waits for dispatch."""
    library = _tracking(ckptHandle)
    if isinstance(library, SaAisError):
        return library
    with library.following:
        if not library.tracks:
            return SaAisError.ERR_NOT_EXIST
        _stop(library)
    return _OK


def saCkptCheckpointTrack(checkpointHandle: int) -> SaAisError:
    """Answer that a single checkpoint cannot be tracked, as OpenSAF does."""
    return SaAisError.ERR_NOT_SUPPORTED


def saCkptCheckpointTrackStop(checkpointHandle: int) -> SaAisError:
    """Answer that a single checkpoint cannot be tracked, as OpenSAF does."""
    return SaAisError.ERR_NOT_SUPPORTED


def ncsCkptRegisterCkptArrivalCallback(
    ckptHandle: int,
    ckptArrivalCallback: Callable[[int, list[SaCkptIOVectorElementT], int], Any] | None,
) -> SaAisError:
    """Set the track callback and track; clients of every version may (OpenSAF).

    Arguments:
        ckptHandle: of ``saCkptInitialize``.
        ckptArrivalCallback: (checkpointHandle, I/O vector, number of elements); replaces that of
            ``saCkptInitialize_2``, or a former one.
    """
    if not callable(ckptArrivalCallback):
        return SaAisError.ERR_INVALID_PARAM
    library: Library | None = find(LIBRARIES, ckptHandle)
    if library is None:
        return _BAD_HANDLE
    if library.gone:
        return SaAisError.ERR_UNAVAILABLE
    library.callbacks.saCkptCheckpointTrackCallback = ckptArrivalCallback
    return _track(library)
