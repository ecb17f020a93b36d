"""One initialization of the library: its session, its callbacks and what waits for dispatch.

Each ``saCkptInitialize`` has a session of its own, so that its checkpoints, callbacks and end are
its own. Completions arrive on whatever thread reads the connection; they only join the queue here.
Callbacks run on threads that dispatch, and never under a lock.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from raftckpt import limits
from raftckpt.client.kit import (
    Call,
    Driver,
    Opened,
    Options,
    ThreadEngine,
    make_core,
    operations,
    witness_of,
)
from raftckpt.errors import CheckpointError, SaAisError, SessionLost, Unavailable
from raftckpt.events import EventLog
from raftckpt.model.types import OpenFlags
from raftckpt.saf.handles import new_handle, new_table
from raftckpt.saf.settings import Settings
from raftckpt.saf.types import SaCkptCallbacksT_2

__all__ = [
    "B2",
    "B23",
    "CHECKPOINTS",
    "ITERATIONS",
    "LIBRARIES",
    "Library",
    "OpenCheckpoint",
    "code_of",
]

log = EventLog("saf")

_OK: Final = SaAisError.OK
_B01: Final = int(OpenFlags.B01)
_TRY_AGAIN: Final = SaAisError.ERR_TRY_AGAIN
_GOODBYE_SECONDS: Final = 2.0
"""Who finalizes does not wait for a cluster that does not answer: its session ends by itself."""
_BLOCKING_WAIT_SECONDS: Final = 60.0
"""Nothing depends on it: there is another one after it. What is new wakes it."""
B2: Final = (2, 2)
"""First (major, minor) for which the rules of B.02 hold; OpenSAF takes B.02.01 for old, too."""
B23: Final = (2, 3)
"""First (major, minor) that has track callbacks."""

_Deliver: TypeAlias = Callable[[], None]


class _Pending(NamedTuple):
    deliver: _Deliver
    checkpoint: OpenCheckpoint | None
    """The handle that takes it along when it is closed."""


def code_of(error: CheckpointError, *, b2: bool) -> SaAisError:
    """Return the code the standard has for an error of the client.

    TRY_AGAIN says "nothing was done", so whatever may have been done is TIMEOUT.
    """
    log.debug("refused", why=str(error))
    if not error.definite:
        return SaAisError.ERR_TIMEOUT
    if isinstance(error, SessionLost):  # the cluster no longer counts this process in
        return SaAisError.ERR_UNAVAILABLE if b2 else SaAisError.ERR_BAD_HANDLE
    if isinstance(error, Unavailable):
        return _TRY_AGAIN
    return error.code


class _Told(Protocol):
    """What tells the changes of a checkpoint."""

    revision: int

    def stop(self) -> None:
        """Tell nothing more."""


class _OwnFollower(Protocol):
    """The same for a track callback; it has to know what its own handle does."""

    def stop(self) -> None:
        """Tell nothing more."""

    def run(self, build: Callable[[], Call], kind: str, parts: Sequence[Sequence[Any]]) -> Any:
        """Run a call that changes the checkpoint through its handle."""


class OpenCheckpoint:
    """What a checkpoint handle stands for.

    Attributes:
        owner: the initialization it belongs to.
        handle: the number.
        opened: the client's record of it.
        attributes: creation attributes as of the open, in the order of the standard.
        reads: opened for reading.
        writes: opened for writing.
        run: runs a call of the client to its end.
        closed: set when the handle is gone.
        iterations: handles of its iterations.
        consumption: what tells its changes to a consumption callback.
        follower: what tells them to its client's track callback.
    """

    __slots__ = (
        "asynchronous",
        "attributes",
        "closed",
        "collocated",
        "consumption",
        "follower",
        "handle",
        "iterations",
        "max_section_id_size",
        "max_section_size",
        "opened",
        "owner",
        "reads",
        "run",
        "writes",
    )

    def __init__(self, library: Library, opened: Opened, attributes: list[int], flags: int) -> None:
        self.owner = library
        self.handle = new_handle()
        self.opened = opened
        self.attributes = attributes
        self.asynchronous = opened.asynchronous
        self.collocated = opened.attributes.collocated
        self.max_section_size = attributes[4]
        self.max_section_id_size = attributes[5]
        self.reads = bool(flags & OpenFlags.READ)
        self.writes = bool(flags & OpenFlags.WRITE)
        self.run = library.run
        self.closed = False
        self.iterations: set[int] = set()
        self.consumption: _Told | None = None
        self.follower: _OwnFollower | None = None

    def code(self, error: CheckpointError) -> SaAisError:
        """Return the standard's code for an error."""
        return code_of(error, b2=self.owner.b2)

    def carry_out(self, build: Callable[[], Call], timeout: float | None = None) -> SaAisError:
        """Build and run a call of which only the code is told (``timeout`` in seconds).

        Built in here, because what a builder refuses has a code as well.
        """
        try:
            self.run(build(), timeout)
        except CheckpointError as error:
            return self.code(error)
        return SaAisError.OK

    def change(self, build: Callable[[], Call], kind: str, *parts: tuple[bytes, int, Any]) -> Any:
        """Build and run a call that changes sections.

        Arguments:
            build: makes the call.
            kind: of the change that it will be.
            parts: (section, offset, data) of it.

        Raises:
            CheckpointError: what became of it.
        """
        follower = self.follower
        return self.run(build()) if follower is None else follower.run(build, kind, parts)

    def forget(self) -> None:
        """The handle is gone, and what belongs to it."""
        self.closed = True
        CHECKPOINTS.pop(self.handle, None)
        self.owner.checkpoints.discard(self)
        for iteration in self.iterations:
            ITERATIONS.pop(iteration, None)
        self.iterations.clear()
        for told in (self.consumption, self.follower):
            if told is not None:
                told.stop()
        self.owner.cancel(self)


class Library:
    """What a handle of ``saCkptInitialize`` stands for.

    Arguments:
        callbacks: what to call.
        asked: the version (major, minor) that the client asked for: it decides the rules.
        settings: where and how patiently.

    Attributes:
        b2: the rules of B.02.02 hold.
        b23: those of B.02.03, too.
        tracks: the track callback is told of changes.
        following: held while that begins, for one checkpoint or all.
        starting_thread: around the start of a thread that will outlive the call.

    Raises:
        CheckpointError: no session could be opened.
    """

    def __init__(
        self, callbacks: SaCkptCallbacksT_2, *, asked: tuple[int, int], settings: Settings
    ) -> None:
        self.handle = new_handle()
        self.callbacks = callbacks
        self.b2 = asked >= B2
        self.b23 = asked >= B23
        self.settings = settings
        self.checkpoints: set[OpenCheckpoint] = set()
        self.tracks = False
        self.following = threading.Lock()
        self.starting_thread: Callable[[], AbstractContextManager[object]] = nullcontext
        self._queue: deque[_Pending] = deque()
        self._changed = threading.Condition()
        self._pipe: tuple[int, int] | None = None
        self._raised = False
        self._awaited = 0
        self._finalized = False
        self._watcher: Callable[[], object] | None = None
        options = Options(
            settings.endpoints or (),
            settings.timeout,
            settings.session_timeout,
            settings.disconnect_grace,
            settings.node,
            settings.tls,
            settings.token,
            settings.name,
        )
        self.driver = Driver(make_core(options), ThreadEngine(options.context), options.timeout)
        self.run = self.driver.run
        try:
            self.run(operations.ready())
        except BaseException:
            self.driver.close()
            raise
        if settings.disconnect_grace == 0:
            # who is to be replaced at once may die together with the leader
            witness_of(self.driver)

    def code(self, error: CheckpointError) -> SaAisError:
        """Return the standard's code for an error."""
        return code_of(error, b2=self.b2)

    @property
    def gone(self) -> bool:
        """A B.02 client is told UNAVAILABLE when the cluster no longer counts it in."""
        return self.b2 and self.driver.core.lost is not None

    def open_flags(self, flags: int) -> int:
        """Return the flags of an open as they travel."""
        return flags if self.b2 else flags | _B01

    @property
    def written(self) -> int:
        """Number of the last command of this session."""
        return self.driver.core.commands_sent

    # --- asynchronous calls ------------------------------------------------------------------

    def begin(
        self,
        call: Call,
        deliver: Callable[[Call], None],
        checkpoint: OpenCheckpoint | None = None,
    ) -> SaAisError:
        """Start a call whose outcome will be delivered by dispatch."""
        with self._changed:
            if len(self._queue) + self._awaited >= limits.SAF_PENDING_CALLBACKS_MAX:
                return _TRY_AGAIN  # somebody does not dispatch
            self._awaited += 1

        def done(call: Call) -> None:
            self._arrived(_Pending(lambda: deliver(call), checkpoint), awaited=True)

        try:
            self.driver.submit(call, self.settings.async_timeout, done)
        except CheckpointError as error:
            with self._changed:
                self._awaited -= 1
            return self.code(error)
        return _OK

    def push(
        self, deliver: _Deliver, checkpoint: OpenCheckpoint, is_over: Callable[[], bool]
    ) -> bool:
        """Have dispatch deliver something; wait while too much waits for it already.

        Arguments:
            deliver: what dispatch calls.
            checkpoint: takes it along when it is closed.
            is_over: whether nobody wants it any more.

        Returns:
            False if it will never be delivered.
        """
        with self._changed:
            while not (self._finalized or is_over()):
                if len(self._queue) < limits.SAF_PENDING_CHANGES_MAX:
                    self._arrived(_Pending(deliver, checkpoint), awaited=False)
                    return True
                self._changed.wait(_BLOCKING_WAIT_SECONDS)
        return False

    def _arrived(self, pending: _Pending, *, awaited: bool) -> None:
        with self._changed:
            self._awaited -= awaited
            if self._finalized:
                return
            checkpoint = pending.checkpoint
            if checkpoint is not None and checkpoint.closed:
                pending = _CANCELLED
            self._queue.append(pending)
            self._raise()
            self._notify()

    def cancel(self, checkpoint: OpenCheckpoint) -> None:
        """Cancel what waits for a handle that is gone.

        A wake-up stays in its place: who selects on the descriptor already saw it readable.
        """
        with self._changed:
            self._queue = deque(
                _CANCELLED if pending.checkpoint is checkpoint else pending
                for pending in self._queue
            )
            self._notify()

    def look_again(self) -> None:
        """Let those who wait for room find out that they wait in vain."""
        with self._changed:
            self._changed.notify_all()

    def _notify(self) -> None:
        self._changed.notify_all()
        if self._watcher is not None:
            self._watcher()

    def watch(self, watcher: Callable[[], object]) -> None:
        """Have somebody who waits outside of Python told when to look again.

        Arguments:
            watcher: is called under a lock: it must be quick and call nothing here.
        """
        self._watcher = watcher

    @property
    def pending(self) -> int:
        """Callbacks that wait for dispatch."""
        return len(self._queue)

    # --- the selection object ----------------------------------------------------------------

    def descriptor(self) -> int:
        """Return the file descriptor that is readable while something is pending."""
        with self._changed:
            if self._pipe is None:
                self._pipe = os.pipe()
                for descriptor in self._pipe:
                    os.set_blocking(descriptor, False)
                self._raised = False
                if self._queue:
                    self._raise()
            return self._pipe[0]

    def _raise(self) -> None:
        if self._pipe is not None and not self._raised:
            self._raised = True
            os.write(self._pipe[1], b"\0")

    def _lower(self) -> None:
        if self._pipe is not None and self._raised:
            self._raised = False
            with suppress(BlockingIOError):  # the application read it itself
                os.read(self._pipe[0], 1)

    # --- dispatch ----------------------------------------------------------------------------

    def dispatch_one(self) -> bool:
        """Deliver one pending callback; False if none is pending."""
        with self._changed:
            if not self._queue:
                return False
            pending = self._queue.popleft()
            if not self._queue:
                self._lower()
            if len(self._queue) == limits.SAF_PENDING_CHANGES_MAX - 1:
                self._changed.notify_all()
        try:
            pending.deliver()
        except Exception as error:
            # the next callback is not to suffer for it, and the caller of dispatch did nothing
            log.error("callback_raised", library=self.handle, raised=error)
        return True

    def dispatch_all(self) -> None:
        """Deliver what is pending now."""
        for _ in range(self.pending):
            if not self.dispatch_one():
                return

    def dispatch_until_finalized(self) -> None:
        """Deliver until the library is finalized."""
        while not self._finalized:
            if not self.dispatch_one():
                with self._changed:
                    if not self._queue and not self._finalized:
                        self._changed.wait(_BLOCKING_WAIT_SECONDS)

    # --- the end -----------------------------------------------------------------------------

    def finalize(self) -> SaAisError:
        """End everything that belongs to this initialization.

        Returns:
            OK, or TIMEOUT if writes that had been accepted are not known to have survived.
        """
        with self._changed:
            self._finalized = True
            self._queue.clear()
            if self._pipe is not None:
                for descriptor in self._pipe:
                    os.close(descriptor)
                self._pipe = None
            self._notify()
        for checkpoint in list(self.checkpoints):
            checkpoint.forget()
        rc: SaAisError = _OK
        try:
            self.run(operations.synchronize(None))
        except CheckpointError as error:
            log.warning("finalize_lost_writes", why=str(error))
            if not error.definite and not isinstance(error, SessionLost):
                rc = SaAisError.ERR_TIMEOUT
        driver = self.driver
        try:
            if driver.core.session and driver.core.lost is None:
                driver.run(operations.close_session(), min(self.settings.timeout, _GOODBYE_SECONDS))
        except CheckpointError as error:
            log.info("no_goodbye", why=str(error))  # the session ends by itself
        finally:
            driver.close()
        return rc


_CANCELLED: Final = _Pending(lambda: None, None)


LIBRARIES: Final[dict[int, Library]] = new_table()
CHECKPOINTS: Final[dict[int, OpenCheckpoint]] = new_table()
ITERATIONS: Final[dict[int, Any]] = new_table()
