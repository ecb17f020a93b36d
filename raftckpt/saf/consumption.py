"""Hot standby: each committed change of a checkpoint by others, with its data, as it happens.

After the consumption callback of OpenClovis SAFplus. What is told is complete and in order, also
over the death of replicas; who falls too far behind gets the whole content ("resync") instead of a
gap. It comes on a thread of its own, as there, or through dispatch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Generic, TypeVar

from raftckpt.client.kit import Change, open_tracker, target_of, track_point
from raftckpt.errors import CheckpointError, SaAisError
from raftckpt.events import EventLog
from raftckpt.saf.handles import find
from raftckpt.saf.initialization import CHECKPOINTS, OpenCheckpoint
from raftckpt.saf.resources import CONSUMPTION_DESCRIPTORS, needing
from raftckpt.saf.types import SaCkptIOVectorElementT, SaCkptSectionIdT

__all__ = [
    "ChangeFeed",
    "clCkptImmediateConsumptionRegister",
    "immediate_consumption_register",
    "vector_of",
]

log = EventLog("saf")

_OK: Final = SaAisError.OK
_Told = TypeVar("_Told")
_GONE: Final = frozenset({"deleted", "expired"})


class ChangeFeed(Generic[_Told]):
    """A tracker of an open checkpoint, and the thread that takes from it.

    Arguments:
        checkpoint: whose changes.
        deliver: is told what became of those that are wanted.
        take: makes of a change what is told, or None: it is not wanted. Called once for each, in
            order, by the thread; what waits for dispatch is what it returned.
        through_dispatch: ``deliver`` is called by ``saCkptDispatch``; else by the thread.
        from_revision: every change after this one; None: from now on.
        image: begin with the whole content.

    Attributes:
        revision: everything wanted up to it was delivered.

    Raises:
        CheckpointError: there is none to be had; says why.
    """

    def __init__(
        self,
        checkpoint: OpenCheckpoint,
        deliver: Callable[[_Told], None],
        take: Callable[[Change], _Told | None],
        *,
        through_dispatch: bool,
        from_revision: int | None = None,
        image: bool = False,
    ) -> None:
        opened, owner = checkpoint.opened, checkpoint.owner
        target = target_of(opened.name, owner.run(track_point(opened)), from_revision, image)
        self.revision: int = target.at_least if from_revision is None else from_revision
        self._checkpoint = checkpoint
        self._deliver = deliver
        self._take = take
        self._through_dispatch = through_dispatch
        self._stopped = False
        self._tracker = open_tracker(owner.driver, target, owner.settings.timeout)
        thread = threading.Thread(target=self._follow, name="raftckpt-changes", daemon=True)
        try:
            with owner.starting_thread():
                thread.start()
        except BaseException:
            self._tracker.close()
            raise

    def stop(self) -> None:
        """Tell nothing more."""
        self._stopped = True
        self._tracker.close()
        self._checkpoint.owner.look_again()

    def _is_over(self) -> bool:
        return self._stopped or self._checkpoint.closed

    def _follow(self) -> None:
        owner = self._checkpoint.owner
        try:
            for change in self._tracker:
                if self._stopped:
                    return
                told = self._take(change)
                if told is None:
                    continue
                call = partial(self._call, change.revision, told)
                if not self._through_dispatch:
                    self._call_here(call)
                elif not owner.push(call, self._checkpoint, self._is_over):
                    return
        except CheckpointError as error:
            if not self._stopped:
                log.warning("changes_ended", checkpoint=self._checkpoint.handle, why=str(error))

    def _call(self, revision: int, told: _Told) -> None:
        if not self._stopped:
            self.revision = revision
            self._deliver(told)

    def _call_here(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            log.error("callback_raised", checkpoint=self._checkpoint.handle, raised=error)


def vector_of(change: Change) -> list[SaCkptIOVectorElementT]:
    """Return what changed; a section that went has size 0 and no buffer."""
    if change.kind in _GONE and change.section is not None:
        return [SaCkptIOVectorElementT(SaCkptSectionIdT(change.section), None, 0, 0)]
    return [
        SaCkptIOVectorElementT(
            SaCkptSectionIdT(part.section),
            None if part.kind in _GONE else part.data,
            len(part.data),
            part.offset,
        )
        for part in change.parts
    ]


def immediate_consumption_register(
    checkpointHandle: int,
    callback: Callable[[int, str, list[SaCkptIOVectorElementT], Any, Change], Any],
    cookie: Any = None,
    *,
    through_dispatch: bool = True,
    from_revision: int | None = None,
    image: bool = False,
    own: bool = False,
) -> SaAisError:
    """Have a callback told each committed change by others, with the data.

    Arguments:
        checkpointHandle: of an open for reading; one callback each, a later one replaces it and
            goes on where that stood.
        callback: (checkpointHandle, name, I/O vector, cookie, change); ``change`` has the kind
            ("created", "written", "overwritten", "deleted", "expired", "resync" ...) and the
            revision. Changes without data (unlinked, active_changed ...) have an empty vector.
        cookie: handed on.
        through_dispatch: called by ``saCkptDispatch``; else on a thread of the library.
        from_revision: every change after this one; None: from now on.
        image: begin with the whole content, kind "image".
        own: tell what was written through the same initialization, too.
    """
    if not callable(callback):
        return SaAisError.ERR_INVALID_PARAM
    checkpoint: OpenCheckpoint | None = find(CHECKPOINTS, checkpointHandle)
    if checkpoint is None:
        return SaAisError.ERR_BAD_HANDLE
    if not checkpoint.reads:
        return SaAisError.ERR_ACCESS
    name = checkpoint.opened.name

    def deliver(change: Change) -> None:
        callback(checkpointHandle, name, vector_of(change), cookie, change)

    left_out = None if own else checkpoint.owner.driver.core.session

    def take(change: Change) -> Change | None:
        return None if change.session == left_out and not change.is_image else change

    former = checkpoint.consumption
    try:
        with needing(CONSUMPTION_DESCRIPTORS):
            if former is not None:
                former.stop()
                if from_revision is None and not image:
                    from_revision = former.revision
            checkpoint.consumption = ChangeFeed(
                checkpoint,
                deliver,
                take,
                through_dispatch=through_dispatch,
                from_revision=from_revision,
                image=image,
            )
    except CheckpointError as error:
        return checkpoint.code(error)
    return _OK


def clCkptImmediateConsumptionRegister(
    checkpointHandle: int,
    callback: Callable[[int, str, list[SaCkptIOVectorElementT], int, Any], Any],
    cookie: Any = None,
) -> SaAisError:
    """Register as SAFplus has it: on a thread of the library, only what has a vector.

    Arguments:
        checkpointHandle: of an open for reading.
        callback: (checkpointHandle, name, I/O vector, number of elements, cookie).
        cookie: handed on.
    """
    if not callable(callback):
        return SaAisError.ERR_INVALID_PARAM

    def adapted(
        handle: int, name: str, vector: list[SaCkptIOVectorElementT], given: Any, change: Change
    ) -> None:
        if vector:
            callback(handle, name, vector, len(vector), given)

    return immediate_consumption_register(checkpointHandle, adapted, cookie, through_dispatch=False)
